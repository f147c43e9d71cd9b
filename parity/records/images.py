"""The images of a batch, as encoded files: both engines decode them for themselves."""

from __future__ import annotations

import io
from importlib import import_module, resources
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from parity.cases.base import Batch
from parity.errors import ParityError
from parity.weights.synthetic import uniform

_EXIF_ORIENTATION = 0x0112
_TURNED_LEFT = 6  # the file's rows run downwards on the right: a phone held upright


def encoded_images(batch: Batch, *, seed: int) -> list[bytes]:
    """Return the batch's files: drawn ones as PNG, photographs as the JPEG they are."""
    if batch.files:
        return [_photograph(name) for name in batch.files]
    return [_drawn(height, width, seed=seed, index=i) for i, (height, width) in enumerate(batch.sizes)]


def _drawn(height: int, width: int, *, seed: int, index: int) -> bytes:
    """Return a PNG of coloured rectangles and ellipses on a coarse pattern: something at every scale."""
    name = f"image {index}"
    coarse = uniform(seed, f"{name} background", (height // 8 + 1) * (width // 8 + 1) * 3)
    small = ((coarse.reshape(height // 8 + 1, width // 8 + 1, 3) + 1.0) * 127.5).astype(np.uint8)
    picture = Image.fromarray(small).resize((width, height), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(picture)
    shapes = (uniform(seed, f"{name} shapes", 12 * 8).reshape(12, 8) + 1.0) / 2.0
    for number, (x, y, w, h, *colour, kind) in enumerate(shapes):
        left, top = x * width * 0.8, y * height * 0.8
        box = (left, top, left + 4 + w * width * 0.5, top + 4 + h * height * 0.5)
        paint = draw.ellipse if number % 2 else draw.rectangle
        paint(box, fill=tuple(int(255 * value) for value in colour), outline=int(255 * kind))
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


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
    return _with_orientation(content, _TURNED_LEFT) if "-portrait" in name else content


def _with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """Return the JPEG with an EXIF block that holds just an orientation; its image data stay untouched."""
    exif = Image.Exif()
    exif[_EXIF_ORIENTATION] = orientation
    payload = b"Exif\x00\x00" + exif.tobytes().removeprefix(b"Exif\x00\x00")
    segment = b"\xff\xe1" + (len(payload) + 2).to_bytes(2, "big") + payload
    return jpeg[:2] + segment + jpeg[2:]


def parse_sizes(text: str) -> tuple[tuple[int, int], ...]:
    """Return (height, width) pairs from ``128x160,96x150``.

    >>> parse_sizes("128x160,96x150")
    ((128, 160), (96, 150))
    """
    try:
        sizes = tuple(tuple(int(side) for side in part.split("x")) for part in text.split(","))
        pairs = tuple((height, width) for height, width in sizes)
    except ValueError:
        raise ParityError(f"--sizes {text}: give height x width for each image, such as 128x160,96x150") from None
    if any(not 32 <= side <= 4096 for pair in pairs for side in pair):
        raise ParityError(f"--sizes {text}: every side has to lie between 32 and 4096 pixels")
    return pairs
