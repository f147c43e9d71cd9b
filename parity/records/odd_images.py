"""Images as cameras, phones and editors write them: one scene, encoded in every way that a reader may take wrongly.

A reader that ignores a turn, blends what is transparent, swaps channels in one colour model only or scales 16 bits its
own way gives other pixels for one of these, and the same ones for an ordinary JPEG or PNG.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from parity.errors import ParityError

QUARTER_TURNS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
EXIF_ORIENTATION = 0x0112
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))  # PNG, 8.2
_GREY, _RGB, _GREY_ALPHA, _RGBA = 0, 2, 4, 6  # PNG's colour types
_CHANNELS = {_GREY: 1, _RGB: 3, _GREY_ALPHA: 2, _RGBA: 4}

Encoder = Callable[[Image.Image], bytes]


def _saved(picture: Image.Image, form: str, **options: Any) -> bytes:
    content = io.BytesIO()
    picture.save(content, form, **options)
    return content.getvalue()


def with_orientation(jpeg: bytes, orientation: int, *, order: str = "<") -> bytes:
    """Return a JPEG with an EXIF block that holds just an orientation; its image data stay untouched.

    Args:
        order: of the bytes, ``<`` as Intel has them or ``>`` as Motorola.
    """
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(f"{order}HHIHH", EXIF_ORIENTATION, 3, 1, orientation, 0)
    tiff = mark + struct.pack(f"{order}IH", 8, 1) + entry + struct.pack(f"{order}I", 0)
    payload = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + jpeg[2:]


def _jpeg(picture: Image.Image, *, quality: int = 90, **options: Any) -> bytes:
    return _saved(picture, "JPEG", quality=quality, **options)


def _turned(orientation: int, *, order: str = "<") -> Encoder:
    return lambda picture: with_orientation(_jpeg(picture), orientation, order=order)


def _with_alpha(picture: Image.Image) -> Image.Image:
    """Return the picture with an alpha channel that runs from transparent to opaque."""
    across = np.linspace(0, 255, picture.width).astype(np.uint8)
    alpha = np.broadcast_to(across, (picture.height, picture.width))
    mode = {"L": "LA", "RGB": "RGBA"}[picture.mode]
    bands = [*picture.split(), Image.fromarray(np.ascontiguousarray(alpha))]
    return Image.merge(mode, bands)


def _sixteen(picture: Image.Image) -> np.ndarray:
    """Return pixels of 16 bits, (height, width, channels), whose lower bytes are not those of the upper ones."""
    pixels = np.asarray(picture, dtype=np.uint16).reshape(picture.height, picture.width, -1)
    low = (np.arange(pixels.size, dtype=np.uint16) * 37 % 256).reshape(pixels.shape)
    return pixels * 256 + low


def png(pixels: np.ndarray, colour: int, *, interlaced: bool = False) -> bytes:
    """Return a PNG of pixels (height, width, channels), uint8 or uint16.

    Pillow writes neither RGB of 16 bits nor interlaced ones.
    """
    height, width = pixels.shape[:2]
    assert pixels.shape[2] == _CHANNELS[colour]
    depth = 8 * pixels.dtype.itemsize
    parts = [pixels[top::down, left::right] for top, left, down, right in _ADAM7] if interlaced else [pixels]
    rows = b"".join(
        b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for part in parts if part.size for row in part
    )
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(rows, 9)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _palette(picture: Image.Image, colours: int = 64) -> Image.Image:
    return picture.quantize(colours, dither=Image.Dither.NONE)


def _pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture).reshape(picture.height, picture.width, -1)


def _grey(picture: Image.Image) -> Image.Image:
    return picture.convert("L")


def _profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    return exif


def _with_gamma(content: bytes) -> bytes:
    """Return a PNG that says that its numbers are proportional to light."""
    head = 8 + 25  # signature, IHDR
    return content[:head] + _chunk(b"gAMA", struct.pack(">I", 100_000)) + content[head:]


def _two_in_one(picture: Image.Image) -> bytes:
    """Return two JPEGs in one file, as phones write a picture and its map of depth."""
    return _saved(picture, "MPO", save_all=True, append_images=[picture.rotate(180)], quality=90)


ENCODERS: dict[str, Encoder] = {  # for each of ``cases.odd_images``'s ways
    **{f"jpeg turned {number}": _turned(number) for number in range(1, 9)},
    "jpeg turned 6, big-endian": _turned(6, order=">"),
    "jpeg turned 9": _turned(9),  # there is no such orientation
    "jpeg turned 6, of Pillow": lambda picture: _jpeg(picture, exif=_exif(6)),
    "jpeg progressive": lambda picture: _jpeg(picture, progressive=True),
    "jpeg of whole colours": lambda picture: _jpeg(picture, subsampling=0),
    "jpeg of half the colours": lambda picture: _jpeg(picture, subsampling=1),
    "jpeg coarse": lambda picture: _jpeg(picture, quality=15),
    "jpeg with a profile": lambda picture: _jpeg(picture, icc_profile=_profile()),
    "jpeg with a film behind it": lambda picture: _jpeg(picture) + b"\0MotionPhoto_Data" * 8,
    "jpegs two in one": _two_in_one,
    "jpeg grey": lambda picture: _jpeg(_grey(picture)),
    "jpeg grey, turned 8": lambda picture: with_orientation(_jpeg(_grey(picture)), 8),
    "jpeg cmyk": lambda picture: _jpeg(picture.convert("CMYK")),
    "jpeg cmyk, turned 5": lambda picture: with_orientation(_jpeg(picture.convert("CMYK")), 5),
    "png grey": lambda picture: _saved(_grey(picture), "PNG"),
    "png grey, one transparent": lambda picture: _saved(_grey(picture), "PNG", transparency=100),
    "png grey with alpha": lambda picture: _saved(_with_alpha(_grey(picture)), "PNG"),
    "png with alpha": lambda picture: _saved(_with_alpha(picture), "PNG"),
    "png, one transparent": lambda picture: _saved(picture, "PNG", transparency=picture.getpixel((3, 3))),
    "png palette": lambda picture: _saved(_palette(picture), "PNG"),
    "png palette of 4 bits": lambda picture: _saved(_palette(picture, 12), "PNG", bits=4),
    "png palette, transparent": lambda picture: _saved(_palette(picture), "PNG", transparency=bytes(range(64))),
    "png of 1 bit": lambda picture: _saved(picture.convert("1"), "PNG"),
    "png of 16 bits, grey": lambda picture: png(_sixteen(_grey(picture)), _GREY),
    "png of 16 bits": lambda picture: png(_sixteen(picture), _RGB),
    "png of 16 bits with alpha": lambda picture: png(_sixteen(_with_alpha(picture)), _RGBA),
    "png of 16 bits, grey with alpha": lambda picture: png(_sixteen(_with_alpha(_grey(picture))), _GREY_ALPHA),
    "png interlaced": lambda picture: png(_pixels(picture), _RGB, interlaced=True),
    "png interlaced with alpha": lambda picture: png(_pixels(_with_alpha(picture)), _RGBA, interlaced=True),
    "png turned 6": lambda picture: _saved(picture, "PNG", exif=_exif(6)),
    "png with a profile": lambda picture: _saved(picture, "PNG", icc_profile=_profile()),
    "png with a gamma": lambda picture: _with_gamma(_saved(picture, "PNG")),
    "webp": lambda picture: _saved(picture, "WEBP", quality=90),
    "webp with alpha": lambda picture: _saved(_with_alpha(picture), "WEBP", lossless=True, exact=True),
}


def written_as(name: str, picture: Image.Image) -> bytes:
    """Return a picture encoded in one of the ways of ``ENCODERS``.

    Raises:
        ParityError: there is no such way.
    """
    if name not in ENCODERS:
        raise ParityError(f"no image is written as {name!r}; there are: {'; '.join(ENCODERS)}")
    return ENCODERS[name](picture)


def is_quarter_turn(name: str) -> bool:
    """Whether readers show an image of this kind with width and height exchanged.

    >>> is_quarter_turn("jpeg grey, turned 8"), is_quarter_turn("jpeg turned 3"), is_quarter_turn("png of 1 bit")
    (True, False, False)
    """
    _, turned, orientation = name.partition("turned ")
    return bool(turned) and int(orientation[0]) in QUARTER_TURNS
