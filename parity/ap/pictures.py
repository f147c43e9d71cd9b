"""Pictures of the images on which two engines differ most: both engines' detections side by side."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from parity.ap.frames import Detections
from parity.ap.match import ALONE, RELABELLED, SAME, ImageMatch
from parity.ap.result import ApResult
from parity.coco.categories import NAMES

WIDTH = 420  # pixels of one half at most
LEAST_SCORE = 0.3  # of a matched detection that is drawn; the others are always drawn, the best ones
MOST_DRAWN = 40
_COLOURS = {SAME: "#2f7ed8", ALONE: "#d62728", RELABELLED: "#ff8c00"}
_GAP = 6


def side_by_side(result: ApResult, count: int) -> Iterator[tuple[int, str, str]]:
    """Yield image id, picture as a data URI, and a line about it, for the images that differ most."""
    for found in result.matching.most_different(count):
        path, legacy, new = result.shown[found.image]
        alone = (int((found.legacy != SAME).sum()), int((found.new != SAME).sum()))
        text = f"{alone[0]} of {len(legacy)} legacy and {alone[1]} of {len(new)} new detections do not match"
        if found.offset:
            text += f"; those that do lie up to {found.offset:.2g} pixels apart"
        yield found.image, data_uri(picture(Path(path), found, legacy, new)), text


def picture(path: Path, found: ImageMatch, legacy: Detections, new: Detections) -> Image.Image:
    """Return both halves as one picture; a grey area stands for an image that cannot be read."""
    try:
        image = Image.open(path).convert("RGB")
    except OSError:
        image = Image.new("RGB", (WIDTH, WIDTH), "#888888")
    scale = min(WIDTH / image.width, 4.0)
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    both = Image.new("RGB", (2 * image.width + _GAP, image.height), "#ffffff")
    for place, (detections, states) in enumerate(((legacy, found.legacy), (new, found.new))):
        half = image.copy()
        draw(half, detections, states, scale)
        both.paste(half, (place * (image.width + _GAP), 0))
    return both


def draw(image: Image.Image, detections: Detections, states: np.ndarray, scale: float) -> None:
    """Draw boxes into an image: thin where matched, thick where not."""
    pen = ImageDraw.Draw(image)
    chosen = np.flatnonzero((states != SAME) | (detections.scores >= LEAST_SCORE))
    best = chosen[np.argsort(-detections.scores[chosen], kind="stable")][:MOST_DRAWN]
    for index in best[np.argsort(states[best] != SAME, kind="stable")].tolist():
        left, top, right, bottom = (detections.boxes[index] * scale).tolist()
        colour, matched = _COLOURS[int(states[index])], states[index] == SAME
        pen.rectangle((left, top, max(left, right), max(top, bottom)), outline=colour, width=1 if matched else 3)
        if not matched:
            pen.text(
                (left + 4, top + 2), f"{NAMES[detections.labels[index]]} {detections.scores[index]:.2f}", fill=colour
            )


def data_uri(image: Image.Image) -> str:
    """Return a picture as a JPEG within a URI."""
    content = io.BytesIO()
    image.save(content, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()
