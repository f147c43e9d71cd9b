"""Entries of annotation files as they are found: what a sound one has may lack, so that it can be said."""

from __future__ import annotations

import msgspec
from msgspec import Raw


class Listed(msgspec.Struct):
    """An image; sides in pixels."""

    id: int
    file_name: str | None = None
    height: int | None = None
    width: int | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height."""
        return None if self.width is None or self.height is None else (self.width, self.height)


class Thing(msgspec.Struct, kw_only=True):
    """A segment of a panoptic file; the box is x, y, width, height in pixels, the area in square pixels."""

    category_id: int
    id: int | None = None
    bbox: list[float] | None = None
    area: float | None = None
    iscrowd: int | bool | None = None


class Outlined(Thing, kw_only=True):
    """An object of an instances file, with its polygons or run lengths."""

    image_id: int
    segmentation: Raw = Raw(b"[]")


class Segments(msgspec.Struct):
    """All segments of an image, and the PNG that shows them."""

    image_id: int
    file_name: str
    segments_info: list[Thing]
