"""What is wrong with an annotation file."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from parity.coco.annotations import Annotation, AnnotationFile, Image, Segment
from parity.errors import ParityError

_ROUNDING = 0.0101  # COCO keeps two decimals of a box's place and two of its size: their sum is off by up to 0.01
_EXAMPLES = 5
Sizes = dict[int, tuple[int, int]]  # image -> width and height in pixels


@dataclass
class Problems:
    """Kind of problem -> where it was found, in words."""

    found: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, where: str) -> None:
        """Note one more."""
        self.found.setdefault(kind, []).append(where)

    def lines(self) -> list[str]:
        """Return a line for each kind: how many, and the first of them."""
        return [
            f"{kind}: {len(places)} ({'; '.join(places[:_EXAMPLES])}{'; …' if len(places) > _EXAMPLES else ''})"
            for kind, places in self.found.items()
        ]


def check(path: Path, *, images: Path | None = None, masks: Path | None = None) -> Problems:
    """Return the problems of an instances or a panoptic file.

    Args:
        images: the folder of the images; none is looked for if it is left away.
        masks: the folder of a panoptic file's PNGs, likewise.

    Raises:
        ParityError: the file cannot be read, is damaged, or is no COCO annotation file; a folder is missing.
    """
    for folder in (images, masks):
        if folder and not folder.is_dir():
            raise ParityError(f"{folder} is no folder")
    file = AnnotationFile(path)
    problems = Problems()
    listed = list(file.read_images())
    sizes: Sizes = {image.id: (image.width, image.height) for image in listed}
    _unique(problems, "image id used twice", (image.id for image in listed))
    _unique(problems, "file name used twice", (image.file_name for image in listed))
    categories = [category.id for category in file.read_categories()]
    _unique(problems, "category id used twice", categories)
    _present(problems, "image file missing", images, [image.file_name for image in listed])
    if file.is_panoptic:
        _check_panoptic(problems, file, listed, set(categories), masks)
    else:
        _check_instances(problems, file, sizes, set(categories))
    return problems


def _check_instances(problems: Problems, file: AnnotationFile, sizes: Sizes, categories: set[int]) -> None:
    ids = []
    for annotation in file.read_annotations():
        ids.append(annotation.id)
        where = f"annotation {annotation.id}"
        if annotation.image_id not in sizes:
            problems.add("image not in the file", f"{where}: image {annotation.image_id}")
        _check_object(problems, annotation, where, sizes.get(annotation.image_id), categories)
    _unique(problems, "annotation id used twice", ids)


def _check_panoptic(
    problems: Problems, file: AnnotationFile, listed: Sequence[Image], categories: set[int], masks: Path | None
) -> None:
    sizes: Sizes = {image.id: (image.width, image.height) for image in listed}
    entries = list(file.read_panoptic())
    _unique(problems, "image annotated twice", (entry.image_id for entry in entries))
    for entry in entries:
        if entry.image_id not in sizes:
            problems.add("image not in the file", f"segments of image {entry.image_id}")
        ids = [segment.id for segment in entry.segments_info]
        _unique(problems, f"segment id used twice in image {entry.image_id}", ids)
        for segment in entry.segments_info:
            where = f"segment {segment.id} of image {entry.image_id}"
            _check_object(problems, segment, where, sizes.get(entry.image_id), categories)
    for number in sorted(sizes.keys() - {entry.image_id for entry in entries}):
        problems.add("image without segments", f"image {number}")
    _present(problems, "segment PNG missing", masks, [entry.file_name for entry in entries])


def _check_object(
    problems: Problems, thing: Annotation | Segment, where: str, size: tuple[int, int] | None, categories: set[int]
) -> None:
    if thing.category_id not in categories:
        problems.add("category not in the file", f"{where}: category {thing.category_id}")
    box = thing.bbox
    if len(box) != 4 or not all(map(math.isfinite, box)):
        problems.add("box is not four numbers", f"{where}: {box}")
        return
    x, y, width, height = box
    if width <= 0 or height <= 0 or thing.area <= 0:
        problems.add("box of no area", f"{where}: {box}, area {thing.area}")
    beyond = size and max(-x, -y, x + width - size[0], y + height - size[1])
    if size and beyond and beyond > _ROUNDING:
        problems.add("box outside the image", f"{where}: {box} in {size[0]} x {size[1]}")


def _unique(problems: Problems, kind: str, values: Iterable[Hashable]) -> None:
    for value in _repeated(values):
        problems.add(kind, str(value))


def _repeated(values: Iterable[Hashable]) -> Iterator[Hashable]:
    seen = set()
    for value in values:
        if value in seen:
            yield value
        seen.add(value)


def _present(problems: Problems, kind: str, folder: Path | None, names: Sequence[str]) -> None:
    if folder is None:
        return
    there = {path.name for path in folder.iterdir()}  # one call, not one for each of 118,287 files
    for name in names:
        if name not in there and not (folder / name).is_file():
            problems.add(kind, name)
