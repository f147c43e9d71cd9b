"""Name the indices that two engines did not choose alike, and find where their boxes lie on the image."""

from __future__ import annotations

import base64
import io

from PIL import Image
from torch import Tensor

from parity.cases.base import PREPROCESS
from parity.compare.decisions import Choice, flipped_indices
from parity.records.layout import StoredTensors, array_key
from parity.report.details import Swap

SHOWN = 10
PICTURE = 320  # pixels of the longer side
NORMALISED = 2.0  # boxes whose coordinates all stay below are shares of the image, not pixels

Frame = tuple[float, float]  # width and height that coordinates are divided by


def swaps(actual: Tensor, truth: Choice, *, frame: Frame | None) -> tuple[Swap, ...]:
    """Return the first flips, best score first, of a choice of one row; of several rows none.

    Args:
        frame: width and height of what the boxes lie on; ``None`` where that is not known.
    """
    if actual.dim() != 1 or truth.chosen.dim() != 1:
        return ()
    ours, theirs = actual.tolist(), truth.chosen.tolist()
    scores = _scores(truth)
    flipped = sorted(flipped_indices(actual, truth.chosen), key=lambda index: -scores.get(index, float("-inf")))
    return tuple(
        Swap(
            index,
            theirs.index(index) if index in theirs else None,
            ours.index(index) if index in ours else None,
            scores.get(index),
            _box(truth, index, frame),
        )
        for index in flipped[:SHOWN]
    )


def _scores(truth: Choice) -> dict[int, float]:
    known = range(truth.size) if truth.candidates is None else truth.candidates.tolist()
    return dict(zip(known, truth.scores.tolist(), strict=True))


def _box(truth: Choice, index: int, frame: Frame | None) -> tuple[float, float, float, float] | None:
    if truth.boxes is None or frame is None or "shifted" in truth.settings or not 0 <= index < len(truth.boxes):
        return None
    width, height = (1.0, 1.0) if float(truth.boxes.abs().max()) < NORMALISED else frame
    left, top, right, bottom = truth.boxes[index].tolist()
    return left / width, top / height, right / width, bottom / height


def image_of(name: str, stored: StoredTensors) -> int | None:
    """Return which image a decision is about: the calls of one kind take the images of a batch in turn.

    ``None`` where their number is no multiple of that of the images, so that this cannot be.
    """
    stem, _, number = name.rpartition(".")
    calls = sum(other.rpartition(".")[0] == stem for other in stored.record.manifest["decisions"])
    images = len(stored.record.image_files(PREPROCESS))
    return int(number) % images if images and calls % images == 0 and number.isdigit() else None


def frame_of(name: str, stored: StoredTensors) -> Frame | None:
    """Return width and height, in pixels of the network's input, of the image that a decision is about."""
    image, key = image_of(name, stored), array_key(PREPROCESS, "img_shape", "whole")
    if image is None or key not in stored:
        return None
    height, width = stored[key][image].tolist()[:2]
    return float(width), float(height)


def picture_of(name: str, stored: StoredTensors) -> str:
    """Return the image that a decision is about, small, as a data URI; empty where that is not known."""
    image = image_of(name, stored)
    if image is None:
        return ""
    key = stored.record.image_files(PREPROCESS)[image]
    with Image.open(io.BytesIO(stored[key].numpy().tobytes())) as opened:
        small = opened.convert("RGB")
    small.thumbnail((PICTURE, PICTURE))
    written = io.BytesIO()
    small.save(written, "JPEG", quality=70)
    return f"data:image/jpeg;base64,{base64.b64encode(written.getvalue()).decode()}"
