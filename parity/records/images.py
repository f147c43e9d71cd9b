"""The images of a batch, as encoded files: both engines decode them for themselves."""

from __future__ import annotations

import io
from importlib import import_module, resources
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from parity.cases.base import Batch, Picture, TrainingBatch
from parity.cases.odd_images import PREFIX
from parity.cases.patterns import item
from parity.errors import ParityError
from parity.records.odd_images import is_quarter_turn, with_orientation, written_as
from parity.weights.synthetic import uniform

_ODD_SIZE = (36, 52)  # height and width in pixels
_TURNED_LEFT = 6  # the file's rows run downwards on the right: a phone held upright


def encoded_images(batch: Batch, *, seed: int) -> list[bytes]:
    """Return the batch's files: drawn ones as PNG or as their names say, photographs as the JPEG they are."""
    if batch.files:
        return [_file(name, seed=seed, index=index) for index, name in enumerate(batch.files)]
    if batch.pictures:
        return [_png(painted(picture)) for picture in batch.pictures]
    return [_png(drawn(height, width, seed=seed, index=i)) for i, (height, width) in enumerate(batch.sizes)]


def drawn(height: int, width: int, *, seed: int, index: int) -> Image.Image:
    """Return an image of coloured rectangles and ellipses on a coarse pattern: something at every scale."""
    name = f"image {index}"
    picture = _pattern(height, width, seed=seed, name=f"{name} background")
    draw = ImageDraw.Draw(picture)
    shapes = (uniform(seed, f"{name} shapes", 12 * 8).reshape(12, 8) + 1.0) / 2.0
    for number, (x, y, w, h, *colour, kind) in enumerate(shapes):
        left, top = x * width * 0.8, y * height * 0.8
        box = (left, top, left + 4 + w * width * 0.5, top + 4 + h * height * 0.5)
        paint = draw.ellipse if number % 2 else draw.rectangle
        paint(box, fill=tuple(int(255 * value) for value in colour), outline=int(255 * kind))
    return picture


def _pattern(height: int, width: int, *, seed: int, name: str) -> Image.Image:
    """Return an image of coloured squares of about 8 pixels."""
    coarse = uniform(seed, name, (height // 8 + 1) * (width // 8 + 1) * 3)
    small = ((coarse.reshape(height // 8 + 1, width // 8 + 1, 3) + 1.0) * 127.5).astype(np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.NEAREST)


def painted(picture: Picture) -> Image.Image:
    """Return the image that a picture describes: its boxes on its ground."""
    height, width = picture.size
    if picture.ground:
        image = _pattern(height, width, seed=picture.ground, name="ground")
    else:
        image = Image.new("RGB", (width, height), (114, 114, 114))
    draw = ImageDraw.Draw(image)
    for box, label in zip(picture.boxes, picture.labels, strict=True):
        red, green, blue = (int(127.5 * (value + 1.0)) for value in uniform(label, "colour", 3))
        draw.rectangle(box, fill=(red, green, blue))
    return image


def _png(picture: Image.Image) -> bytes:
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


def drawn_objects(batch: TrainingBatch) -> dict[str, Tensor]:
    """Return the ground truth of a training batch: that of its pictures, or one that is drawn.

    Returns:
        ``gt_boxes[i]`` (G, 4) float64, pixels xyxy, exact in float32; those that are drawn lie inside of image ``i``
        and are at least 4 pixels a side; ``gt_labels[i]`` (G,) int64.
    """
    objects = {}
    for i, picture in enumerate(batch.pictures):
        boxes = torch.tensor(picture.boxes, dtype=torch.float64).reshape(-1, 4)
        objects[item("gt_boxes", i)] = boxes.float().double()
        objects[item("gt_labels", i)] = torch.tensor(picture.labels, dtype=torch.int64)
    if batch.pictures:
        return objects
    for i, (count, (height, width)) in enumerate(zip(batch.objects, batch.sizes, strict=True)):
        u = torch.from_numpy(uniform(batch.seed, f"objects {i}", 5 * count).reshape(count, 5) + 1.0) / 2.0
        left, top = u[:, 0] * (width - 8), u[:, 1] * (height - 8)
        right, bottom = left + 4 + u[:, 2] * (width - 4 - left), top + 4 + u[:, 3] * (height - 4 - top)
        boxes = torch.stack([left, top, right, bottom], 1)
        objects[item("gt_boxes", i)] = boxes.float().double()
        objects[item("gt_labels", i)] = (u[:, 4] * 80).long()
    return objects


def odd(way: str, height: int, width: int, *, seed: int, index: int) -> bytes:
    """Return an image that readers show with this height and width, written in a way of ``odd_images``."""
    stored = (width, height) if is_quarter_turn(way) else (height, width)
    return written_as(way, drawn(*stored, seed=seed, index=index))


def _file(name: str, *, seed: int, index: int) -> bytes:
    if name.startswith(PREFIX):
        return odd(name.removeprefix(PREFIX), *_ODD_SIZE, seed=seed, index=index)
    return _photograph(name)


def _photograph(name: str) -> bytes:
    """Return a file of the user's, or one of scikit-learn's sample images (CC BY), by name.

    ``flower-portrait.jpg`` is its flower with an EXIF orientation, as phones write it: the pixels are
    stored lying and are to be shown upright.
    """
    if Path(name).is_file():
        return Path(name).read_bytes()
    try:
        package = import_module("sklearn.datasets.images")
    except ImportError:
        raise ParityError(f"image {name} is no file; scikit-learn has it: pip install scikit-learn") from None
    source = resources.files(package) / name.replace("-portrait", "")
    if not source.is_file():
        raise ParityError(f"image {name} is no file, and scikit-learn has no such sample image")
    content = source.read_bytes()
    return with_orientation(content, _TURNED_LEFT) if "-portrait" in name else content


def parse_sizes(text: str, *, option: str = "--sizes") -> tuple[tuple[int, int], ...]:
    """Return (height, width) pairs from ``128x160,96x150``.

    >>> parse_sizes("128x160,96x150")
    ((128, 160), (96, 150))
    """
    try:
        sizes = tuple(tuple(int(side) for side in part.split("x")) for part in text.split(","))
        pairs = tuple((height, width) for height, width in sizes)
    except ValueError:
        raise ParityError(f"{option} {text}: give height x width for each image, such as 128x160,96x150") from None
    if any(not 32 <= side <= 4096 for pair in pairs for side in pair):
        raise ParityError(f"{option} {text}: every side has to lie between 32 and 4096 pixels")
    return pairs
