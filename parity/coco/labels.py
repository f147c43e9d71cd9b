"""Annotations and results from COCO's own category ids to contiguous labels, and back.

To 80: ids 1 to 90 become 0 to 79. To 91: 0 to 79 become 1 to 90. Only category ids change; every other byte of an
annotation stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Raw

from parity.coco import jsonfile
from parity.coco.annotations import AnnotationFile
from parity.coco.categories import IDS, LABELS, NAMES
from parity.errors import ParityError

Fields = dict[str, Raw]
Map = Mapping[int, int]
_HOW = {80: "COCO's own ids, 1 to 90", 91: "contiguous labels, 0 to 79"}  # what is read, by what is written


def relabel(source: Path, output: Path, *, to: int) -> str:
    """Map an annotation file or a results file; return what was done, in words.

    Args:
        to: 80 for contiguous labels, 91 for COCO's own ids.

    Raises:
        ParityError: a file cannot be read or written, or a category is none of those that are counted so.
    """
    jsonfile.expect_different([output], inputs=[source])
    numbers: Map = LABELS if to == 80 else dict(enumerate(IDS))
    content = jsonfile.read(source)
    if isinstance(content, list):
        chunks = jsonfile.list_chunks(_mapped(content, numbers, where=f"{source}: results", to=to))
        jsonfile.write({output: chunks}, inputs=[source])
        return f"{output}: {len(content)} results"
    file = AnnotationFile(source, content)
    if file.is_panoptic:
        raise ParityError(f"{source} is a panoptic file, which counts things and stuff together: nothing to map")
    _expect_names(file, numbers, to=to)
    top: dict[str, Raw | Iterable[bytes | Raw]] = dict(file.top)
    top["annotations"] = _mapped(file.annotations, numbers, where=f"{source}: annotations", to=to)
    categories = jsonfile.decode(file.top["categories"], list[Raw], where=f"{source}: categories")
    top["categories"] = _mapped(categories, numbers, where=f"{source}: categories", to=to, key="id")
    jsonfile.write({output: jsonfile.object_chunks(top)}, inputs=[source])
    return f"{output}: {len(file.annotations)} annotations"


def _expect_names(file: AnnotationFile, numbers: Map, *, to: int) -> None:
    """Refuse a file whose categories are counted otherwise, as their names tell."""
    names = dict(zip(IDS if to == 80 else range(len(NAMES)), NAMES, strict=True))
    for category in file.read_categories():
        if names.get(category.id) != category.name:
            is_there = f"there {category.id} is {names.get(category.id, 'not in use')}"
            raise ParityError(f"{file.path}: category {category.id} is {category.name!r}, but to map it"
                              f" to {to} it has to be counted by {_HOW[to]}; {is_there}")  # fmt: skip


def _mapped(entries: Sequence[Raw], numbers: Map, *, where: str, to: int, key: str = "category_id") -> Iterator[bytes]:
    for index, fields in enumerate(jsonfile.each(entries, Fields, where=where)):
        if key not in fields:
            raise ParityError(f"{where}[{index}] has no {key}")
        number = jsonfile.decode(fields[key], int, where=f"{where}[{index}]: {key}")
        if number not in numbers:
            raise ParityError(f"{where}[{index}]: category {number} is none of {_HOW[to]}")
        fields[key] = Raw(b"%d" % numbers[number])
        yield msgspec.json.encode(fields)
