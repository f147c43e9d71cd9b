"""Predictions of the legacy engine that are committed, so that small cases need no legacy engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from parity.ap.frames import Detections, Predictions
from parity.ap.subject import DRAWN, PREDICTIONS, WEIGHTS, Subject, data_digest, read_drawn, sha256
from parity.coco.synthesize import synthesize
from parity.errors import ParityError

DRAWING: dict[str, Any] = {"images": 1, "val": 32, "seed": 0}  # arguments of ``synthesize``


def drawn_coco(subject: Subject) -> None:
    """Draw the small data set unless it is there.

    Raises:
        ParityError: it is not, byte for byte, what the legacy engine saw.
    """
    assert subject.shipped is not None
    if not subject.coco.exists():
        try:
            synthesize(subject.coco, **DRAWING)
        except ParityError:
            if not subject.coco.exists():  # by another process, meanwhile
                raise
    expected = read_drawn(subject.shipped)["data"] if (subject.shipped / DRAWN).exists() else None
    if expected is not None and data_digest(subject.coco) != expected:
        raise ParityError(f"{subject.coco} is not what the legacy engine saw: remove it, and it is drawn again")


def read_committed(subject: Subject) -> tuple[Predictions, str]:
    """Return the legacy engine's predictions, and what made them in words.

    Raises:
        ParityError: the file cannot be read, or is of other weights.
    """
    assert subject.shipped is not None
    said, path = read_drawn(subject.shipped), subject.shipped / PREDICTIONS
    if sha256(subject.checkpoint) != said["weights"] or not path.is_file() or sha256(path) != said["predictions"]:
        raise ParityError(
            f"{path} was not made from these weights: `parity ap {subject.case.id} --freeze` makes it again"
        )
    engine = said["legacy"]
    made = f"legacy predictions are the committed ones (torch {engine['torch']}, mmdet {engine['mmdet']})"
    return unpack(path), made


def freeze(subject: Subject, found: Predictions, engine: dict[str, str]) -> Path:
    """Keep predictions of the legacy engine as the committed ones; return their file."""
    assert subject.shipped is not None
    path = subject.shipped / PREDICTIONS
    _replace(path, pack(found))
    said = {
        "schema": 1,
        "drawing": DRAWING,
        "data": data_digest(subject.coco),
        "weights": sha256(subject.shipped / WEIGHTS),
        "predictions": sha256(path),
        "legacy": engine,
    }
    _replace(subject.shipped / DRAWN, (json.dumps(said, indent=1) + "\n").encode())
    return path


def pack(found: Predictions) -> bytes:
    """Return predictions as the bytes of one safetensors file."""
    images = sorted(found)
    listed = [found[image] for image in images]
    arrays = {name: np.concatenate([getattr(one, name) for one in listed]) for name in ("boxes", "scores", "labels")}
    counts = np.array([len(one) for one in listed])
    return bytes(save({"images": np.array(images), "counts": counts, **arrays}))


def unpack(path: Path) -> Predictions:
    """Return the predictions that ``pack`` put into a file."""
    try:
        arrays = load(path.read_bytes())
        ends = np.cumsum(arrays["counts"])[:-1]
        columns = [np.split(arrays[name], ends) for name in ("boxes", "scores", "labels")]
    except (OSError, SafetensorError, KeyError) as error:
        raise ParityError(f"{path} cannot be read: {error}") from None
    rows = zip(arrays["images"].tolist(), *columns, strict=True)
    return {image: Detections(boxes, scores, labels) for image, boxes, scores, labels in rows}


def _replace(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    part.replace(path)
