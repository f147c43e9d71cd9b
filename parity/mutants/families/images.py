"""Readers of images that go wrong where a file is not an ordinary one: what ``cases.odd_images`` is for."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from parity.cases.base import PREPROCESS, TRAIN_IMAGES
from parity.mutants.base import Mutant
from parity.mutants.families.common import DETR_4, DETR_5, FCN_12, FCN_36, RCNN_12, RCNN_36, SWIN
from parity.mutants.families.preprocessing import test_step
from parity.mutants.families.recipe import transform
from parity.mutants.plant import Plant, wrapped
from parity.records.odd_images import EXIF_ORIENTATION

Pixels = np.ndarray  # (height, width, 3) uint8, BGR
READER = "mmcv.image.io:imfrombytes"
LOAD = "LoadImageFromFile"
FAMILIES = (FCN_12, RCNN_12, DETR_4)


def reads(change: Callable[[bytes, Image.Image, Pixels], Pixels]) -> Plant:
    """Return a reader whose pixels are changed, given the file and what Pillow knows of it."""

    def wrap(original: Any) -> Any:
        @functools.wraps(original)
        def read(content: bytes, *args: Any, **kwargs: Any) -> Any:
            pixels = original(content, *args, **kwargs)
            return np.ascontiguousarray(change(content, Image.open(io.BytesIO(content)), pixels))

        return read

    return wrapped(READER, wrap)


def only(wanted: Callable[[Image.Image], bool], change: Callable[[Image.Image, Pixels], Pixels]) -> Plant:
    """Return a reader that goes wrong with some images and is right with all others."""
    return reads(lambda _, picture, pixels: change(picture, pixels) if wanted(picture) else pixels)


def orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation, 1 if there is none."""
    return int(picture.getexif().get(EXIF_ORIENTATION, 1))


def turned(*orientations: int) -> Callable[[Image.Image], bool]:
    """Return whether an image has one of these orientations."""
    return lambda picture: orientation(picture) in orientations


def of_mode(*modes: str) -> Callable[[Image.Image], bool]:
    """Return whether an image is of one of Pillow's modes."""
    return lambda picture: picture.mode in modes


def turned_back(picture: Image.Image, pixels: Pixels) -> Pixels:
    """Return the pixels as they are stored."""
    return _bgr(picture)


def turned_again(picture: Image.Image, pixels: Pixels) -> Pixels:
    """Return the pixels turned once more."""
    again = Image.fromarray(pixels)
    again.getexif()[EXIF_ORIENTATION] = orientation(picture)
    return np.asarray(ImageOps.exif_transpose(again))


def has_alpha(picture: Image.Image) -> bool:
    """Whether something of an image is transparent."""
    return "A" in picture.mode or "transparency" in picture.info


def blended(ground: float) -> Callable[[Image.Image, Pixels], Pixels]:
    """Return pixels laid over a ground of one value by their alpha."""

    def blend(picture: Image.Image, pixels: Pixels) -> Pixels:
        share = np.asarray(picture.convert("RGBA"))[:, :, 3:].astype(np.float64) / 255.0
        return (pixels * share + ground * (1.0 - share)).round().astype(np.uint8)

    return blend


def is_sixteen(picture: Image.Image) -> bool:
    """Whether a PNG has 16 bits: Pillow says so of grey ones by their mode, of the others by how they are stored."""
    tiles: Any = getattr(picture, "tile", ())
    return picture.mode.startswith("I") or any("16" in str(tile[3]) for tile in tiles)


def sixteen_read(change: Callable[[np.ndarray], np.ndarray]) -> Plant:
    """Return a reader that makes 8 bits of 16 in another way."""

    def read(content: bytes, picture: Image.Image, pixels: Pixels) -> Pixels:
        if not is_sixteen(picture):
            return pixels
        import cv2

        whole: Any = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
        return change(whole.astype(np.float64)).astype(np.uint8)

    return reads(read)


def _bgr(picture: Image.Image) -> Pixels:
    return np.asarray(picture.convert("RGB"))[:, :, ::-1]


def swapped(_: Image.Image, pixels: Pixels) -> Pixels:
    """Return the channels in the other order."""
    return pixels[:, :, ::-1]


def last_of_several(picture: Image.Image, pixels: Pixels) -> Pixels:
    """Return the last picture of a file."""
    picture.seek(getattr(picture, "n_frames", 1) - 1)
    return _bgr(picture)


READERS: tuple[tuple[str, Plant, str, tuple[str, ...]], ...] = (
    ("exif-ignored", test_step(LOAD, color_type="color_ignore_orientation"), "EXIF orientations ignored", FAMILIES),
    ("exif-mirrors", only(turned(2, 4, 5, 7), lambda _, p: p[:, ::-1]), "turned, but never mirrored", (FCN_36,)),
    ("exif-half-turn", only(turned(3), turned_back), "quarter turns alone", (RCNN_36,)),
    ("exif-clockwise", only(turned(6, 8), lambda _, p: p[::-1, ::-1]), "turned the other way round", FAMILIES),
    ("exif-twice", only(lambda picture: orientation(picture) > 1, turned_again), "turned by two readers", (DETR_5,)),
    (
        "exif-intel",
        reads(lambda content, picture, p: _bgr(picture) if content[12:14] == b"MM" and orientation(picture) > 1 else p),
        "EXIF of one byte order alone",
        (SWIN,),
    ),
    (
        "exif-jpeg",
        only(lambda picture: picture.format == "PNG" and orientation(picture) > 1, turned_back),
        "the turn of a PNG ignored",
        (FCN_12,),
    ),
    ("alpha-white", only(has_alpha, blended(255.0)), "alpha blended with white, not dropped", FAMILIES),
    ("alpha-black", only(has_alpha, blended(0.0)), "alpha blended with black", (DETR_5,)),
    ("alpha-grey", only(of_mode("LA"), blended(0.0)), "alpha blended in grey images alone", (RCNN_36,)),
    ("palette-rgb", only(of_mode("P"), swapped), "red and blue exchanged in palettes alone", FAMILIES),
    ("grey-blue", only(of_mode("L"), lambda _, p: p * np.array([1, 0, 0], np.uint8)), "grey in one channel", FAMILIES),
    (
        "palette-index",
        only(of_mode("P"), lambda picture, _: np.repeat(np.asarray(picture)[:, :, None], 3, axis=2)),
        "a palette's numbers taken for grey",
        (SWIN,),
    ),
    ("bit-as-number", only(of_mode("1"), lambda _, p: p // 255), "1 bit read as 0 and 1", (FCN_36,)),
    ("sixteen-rounded", sixteen_read(lambda p: (p / 257.0).round()), "16 bits rounded, not cut", FAMILIES),
    ("sixteen-clipped", sixteen_read(lambda p: p.clip(0, 255)), "16 bits clipped at 255", (RCNN_36,)),
    ("sixteen-low", sixteen_read(lambda p: p % 256), "the low byte of 16 bits", (DETR_5,)),
    ("cmyk-inverted", only(of_mode("CMYK"), lambda _, p: 255 - p), "inks taken for light", FAMILIES),
    ("cmyk-pillow", only(of_mode("CMYK"), turned_back), "inks mixed by another rule", (SWIN,)),
    ("pillow-reader", test_step(LOAD, imdecode_backend="pillow"), "another library reads", (FCN_36,)),
    ("two-in-one", only(lambda picture: picture.format == "MPO", last_of_several), "the second of two", (DETR_4,)),
    (
        "gamma-applied",
        only(lambda picture: "gamma" in picture.info, lambda _, p: (255.0 * (p / 255.0) ** 0.4545).astype(np.uint8)),
        "a PNG's gamma applied",
        (RCNN_12,),
    ),
)

TRAINED_CASES = (FCN_12, RCNN_36, DETR_4)
TRAINED = (
    (
        "exif-ignored",
        transform(LOAD, color_type="color_ignore_orientation"),
        "EXIF orientations ignored",
        TRAINED_CASES,
    ),
    ("pillow-reader", transform(LOAD, imdecode_backend="pillow"), "another library reads", TRAINED_CASES),
    ("exif-clockwise", only(turned(6, 8), lambda _, p: p[::-1, ::-1]), "turned the other way", (DETR_4,)),
    ("alpha-white", only(has_alpha, blended(255.0)), "alpha blended with white, not dropped", TRAINED_CASES),
    ("palette-rgb", only(of_mode("P"), swapped), "red and blue exchanged in palettes alone", (FCN_12, DETR_4)),
    ("sixteen-rounded", sixteen_read(lambda p: (p / 257.0).round()), "16 bits rounded, not cut", TRAINED_CASES),
    ("cmyk-inverted", only(of_mode("CMYK"), lambda _, p: 255 - p), "inks taken for light", (RCNN_36,)),
)

MUTANTS = (
    *(Mutant(f"read-{name}", PREPROCESS, cases, plant, why) for name, plant, why, cases in READERS),
    *(Mutant(f"train-read-{name}", TRAIN_IMAGES, cases, plant, why) for name, plant, why, cases in TRAINED),
)
