"""What is read of COCO's annotation files, instances and panoptic ones. Boxes are x, y, width, height in pixels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Raw

from parity.coco import jsonfile
from parity.errors import ParityError


class Image(msgspec.Struct):
    """An image; sides in pixels."""

    id: int
    file_name: str
    height: int
    width: int


class Category(msgspec.Struct):
    """A category; ``isthing`` is in panoptic files only."""

    id: int
    name: str
    isthing: int = 1


class Annotation(msgspec.Struct):
    """An object of an instances file, without its outline."""

    id: int
    image_id: int
    category_id: int
    bbox: list[float]
    area: float
    iscrowd: int | bool = 0


class Segment(msgspec.Struct):
    """A segment of a panoptic file."""

    id: int
    category_id: int
    bbox: list[float]
    area: float
    iscrowd: int | bool = 0


class _Kind(msgspec.Struct):
    """What tells a panoptic file's annotation from an object."""

    segments_info: list[Raw] | None = None


class Owner(msgspec.Struct):
    """Whose an annotation of any kind is; ``segments_info`` is in panoptic files only."""

    image_id: int
    iscrowd: int | bool = 0
    segments_info: list[Segment] | None = None


class Panoptic(msgspec.Struct):
    """All segments of an image, and the PNG that shows them."""

    image_id: int
    file_name: str
    segments_info: list[Segment]


class AnnotationFile:
    """An annotation file, its entries still bytes.

    Attributes:
        top: everything in it by its name, undecoded.
        images, annotations: their entries, undecoded and in order; a file of test images has no annotations.
    """

    def __init__(self, path: Path, content: dict[str, Raw] | list[Raw] | None = None) -> None:
        content = jsonfile.read(path) if content is None else content
        if not isinstance(content, dict) or "images" not in content:
            raise ParityError(f"{path} is no COCO annotation file: it has no images")
        self.path = path
        self.top = content
        self.images = self._list("images")
        self.annotations = self._list("annotations") if "annotations" in content else []

    def _list(self, key: str) -> list[Raw]:
        return jsonfile.decode(self.top[key], list[Raw], where=f"{self.path}: {key}")

    @property
    def is_panoptic(self) -> bool:
        """Whether its annotations are lists of segments, one for each image."""
        first = next(jsonfile.each(self.annotations[:1], _Kind, where=f"{self.path}: annotations"), None)
        return first is not None and first.segments_info is not None

    def read_images(self) -> Iterator[Image]:
        """Decode the images."""
        return jsonfile.each(self.images, Image, where=f"{self.path}: images")

    def read_categories(self) -> list[Category]:
        """Decode the categories; a file without them is refused."""
        if "categories" not in self.top:
            raise ParityError(f"{self.path} is no COCO annotation file of objects: it has no categories")
        return list(jsonfile.each(self._list("categories"), Category, where=f"{self.path}: categories"))

    def read_owners(self) -> Iterator[Owner]:
        """Decode whose each annotation is."""
        return jsonfile.each(self.annotations, Owner, where=f"{self.path}: annotations")

    def read_annotations(self) -> Iterator[Annotation]:
        """Decode an instances file's annotations."""
        return jsonfile.each(self.annotations, Annotation, where=f"{self.path}: annotations")

    def read_panoptic(self) -> Iterator[Panoptic]:
        """Decode a panoptic file's annotations."""
        return jsonfile.each(self.annotations, Panoptic, where=f"{self.path}: annotations")
