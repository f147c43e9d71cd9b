"""Images as cameras, phones and editors write them: the ways in which ``records.odd_images`` writes one scene each."""

from __future__ import annotations

from parity.cases.base import PREPROCESS, Batch

PREFIX = "written as "  # of a batch's file names: one of the ways follows
WAYS = (
    *(f"jpeg turned {orientation}" for orientation in range(1, 9)),  # by EXIF, which has eight
    "jpeg turned 6, big-endian",
    "jpeg turned 9",
    "jpeg turned 6, of Pillow",
    "jpeg progressive",
    "jpeg of whole colours",
    "jpeg of half the colours",
    "jpeg coarse",
    "jpeg with a profile",
    "jpeg with a film behind it",
    "jpegs two in one",
    "jpeg grey",
    "jpeg grey, turned 8",
    "jpeg cmyk",
    "jpeg cmyk, turned 5",
    "png grey",
    "png grey, one transparent",
    "png grey with alpha",
    "png with alpha",
    "png, one transparent",
    "png palette",
    "png palette of 4 bits",
    "png palette, transparent",
    "png of 1 bit",
    "png of 16 bits, grey",
    "png of 16 bits",
    "png of 16 bits with alpha",
    "png of 16 bits, grey with alpha",
    "png interlaced",
    "png interlaced with alpha",
    "png turned 6",
    "png with a profile",
    "png with a gamma",
    "webp",
    "webp with alpha",
)


def odd_images(seed: int) -> Batch:
    """Return the batch of an image of each kind, resized: what a reader takes wrongly shows in the pixels or the shape.

    What is made of pixels does not depend on how they were written, so the record ends with ``preprocess``.
    """
    return Batch(seed=seed, files=tuple(PREFIX + way for way in WAYS), scale=(64, 48), stages=(PREPROCESS,))
