"""What is wrong with an annotation file."""

from __future__ import annotations

import codecs
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from msgspec import Raw

from parity.coco import jsonfile
from parity.coco.annotations import AnnotationFile, Category
from parity.coco.categories import IDS, NAMES
from parity.coco.entries import Listed, Outlined, Segments
from parity.coco.objects import LoneBoxes, check_object, check_outline
from parity.coco.pictures import check_files, check_names, present
from parity.coco.problems import (
    ALL_CROWDS,
    CATEGORY_TWICE,
    ID_TWICE,
    ID_ZERO,
    IMAGE_TWICE,
    KEY_TWICE,
    MARK,
    NO_CROWD_MARK,
    NO_ID,
    NO_IMAGE,
    Problems,
)
from parity.coco.repeated import repeated_keys
from parity.errors import ParityError

Sizes = dict[int, tuple[int, int] | None]  # image -> width and height in pixels
_LISTS = ("images", "annotations")


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
    problems = Problems()
    file = _opened(problems, path)
    listed = list(jsonfile.each(file.images, Listed, where=f"{path}: images"))
    _check_images(problems, listed, images)
    categories = file.read_categories()
    _check_categories(problems, categories)
    known: Sizes = {image.id: image.size for image in listed}
    if file.is_panoptic:
        _check_panoptic(problems, file, known, {category.id for category in categories}, masks)
    else:
        _check_instances(problems, file, known, {category.id for category in categories})
    return problems


def _opened(problems: Problems, path: Path) -> AnnotationFile:
    """Return the file; add what is wrong with it as JSON."""
    repeated: list[str] = []
    file = AnnotationFile(path, jsonfile.read(path, repeated=repeated))
    with path.open("rb") as start:
        if start.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8:
            problems.add(MARK, str(path))
    for key in repeated:
        problems.add(KEY_TWICE, key)
    for name in file.top.keys() - set(_LISTS):
        _check_keys(problems, name, [file.top[name]])
    for name, entries in zip(_LISTS, (file.images, file.annotations), strict=True):
        _check_keys(problems, name, entries)
    return file


def _check_keys(problems: Problems, name: str, entries: Sequence[Raw]) -> None:
    for index, entry in enumerate(entries):
        for key in repeated_keys(entry):
            problems.add(KEY_TWICE, f"{key} in {name}" + (f"[{index}]" if name in _LISTS else ""))


def _check_images(problems: Problems, listed: Sequence[Listed], folder: Path | None) -> None:
    if not listed:
        problems.add(NO_IMAGE, "images is empty")
    _unique(problems, IMAGE_TWICE, (image.id for image in listed))
    _unique(problems, "file name used twice", (image.file_name for image in listed if image.file_name))
    check_names(problems, listed)
    if folder:
        check_files(problems, listed, folder)


def _check_categories(problems: Problems, categories: Sequence[Category]) -> None:
    _unique(problems, CATEGORY_TWICE, (category.id for category in categories))
    _unique(problems, "category name used twice", (category.name for category in categories))
    ids = [category.id for category in categories]
    if {(category.id, category.name) for category in categories} <= set(zip(IDS, NAMES, strict=True)):
        for before, after in pairwise(ids):
            if after < before:  # mmdet counts its classes in the file's order, and knows COCO's names by their number
                problems.add("category in another order than COCO's", f"category {after} after {before}")


def _check_instances(problems: Problems, file: AnnotationFile, sizes: Sizes, categories: set[int]) -> None:
    ids, crowds, lone = [], 0, LoneBoxes()
    for index, thing in enumerate(jsonfile.each(file.annotations, Outlined, where=f"{file.path}: annotations")):
        where = f"annotations[{index}]" if thing.id is None else f"annotation {thing.id}"
        ids.append(thing.id)
        crowds += bool(thing.iscrowd)
        if not thing.id:
            problems.add(NO_ID if thing.id is None else ID_ZERO, f"annotations[{index}]")
        if thing.iscrowd is None:
            problems.add(NO_CROWD_MARK, where)
        if thing.image_id not in sizes:
            problems.add("image not in the file", f"{where}: image {thing.image_id}")
        check_object(problems, thing, where, sizes.get(thing.image_id), categories)
        check_outline(problems, thing, where, lone)
    lone.judge(problems)
    _unique(problems, ID_TWICE, (number for number in ids if number is not None))
    if crowds and crowds == len(ids):
        problems.add(ALL_CROWDS, f"{crowds} of {crowds} annotations")


def _check_panoptic(
    problems: Problems, file: AnnotationFile, sizes: Sizes, categories: set[int], masks: Path | None
) -> None:
    entries = list(jsonfile.each(file.annotations, Segments, where=f"{file.path}: annotations"))
    _unique(problems, "image annotated twice", (entry.image_id for entry in entries))
    for entry in entries:
        if entry.image_id not in sizes:
            problems.add("image not in the file", f"segments of image {entry.image_id}")
        ids = [segment.id for segment in entry.segments_info]
        _unique(problems, f"segment id used twice in image {entry.image_id}", ids)
        for segment in entry.segments_info:
            where = f"segment {segment.id} of image {entry.image_id}"
            if not segment.id:
                problems.add("segment id 0, which is no segment's in the PNGs", where)
            check_object(problems, segment, where, sizes.get(entry.image_id), categories)
    for number in sorted(sizes.keys() - {entry.image_id for entry in entries}):
        problems.add("image without segments", f"image {number}")
    if masks:
        present(problems, "segment PNG missing", masks, [entry.file_name for entry in entries])


def _unique(problems: Problems, kind: str, values: Iterable[Hashable]) -> None:
    for value in _repeated(values):
        problems.add(kind, str(value))


def _repeated(values: Iterable[Hashable]) -> Iterator[Hashable]:
    seen = set()
    for value in values:
        if value in seen:
            yield value
        seen.add(value)
