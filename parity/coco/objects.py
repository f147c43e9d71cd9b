"""What is wrong with one object: its box, its area, and whether the two and its outline go together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import mul

import msgspec

from parity.coco.entries import Outlined, Thing
from parity.coco.problems import (
    AREA_UNLIKE_BOX,
    AREA_UNLIKE_OUTLINE,
    BOX_UNLIKE_OUTLINE,
    NEGATIVE,
    NO_AREA,
    NO_BOX,
    NO_NUMBERS,
    Problems,
)

_ROUNDING = 0.0101  # COCO keeps two decimals of a box's place and two of its size: their sum is off by up to 0.01
_ALIKE = 2.0  # overlapping parts, holes and self-crossings make an area honestly differ from its outline's, by less
_APART, _APART_SHARE = 2.0, 0.1  # pixels, and of a side: how far a box may lie from the one around its outline


def check_object(
    problems: Problems, thing: Thing, where: str, size: tuple[int, int] | None, categories: set[int]
) -> None:
    """Add what is wrong with an object in an image of a (width, height), if it is known."""
    if thing.category_id not in categories:
        problems.add("category not in the file", f"{where}: category {thing.category_id}")
    if thing.area is None:
        problems.add(NO_AREA, where)
    if thing.bbox is None:
        problems.add(NO_BOX, where)
    elif len(thing.bbox) != 4 or not all(map(math.isfinite, thing.bbox)):
        problems.add(NO_NUMBERS, f"{where}: {thing.bbox}")
    else:
        _check_box(problems, thing, thing.bbox, where, size)


def _check_box(
    problems: Problems, thing: Thing, box: Sequence[float], where: str, size: tuple[int, int] | None
) -> None:
    x, y, width, height = box
    if min(width, height) < 0:
        problems.add(NEGATIVE, f"{where}: {box}")
    if width <= 0 or height <= 0 or (thing.area is not None and thing.area <= 0):
        problems.add("box of no area", f"{where}: {box}, area {thing.area}")
    if size and max(-x, -y, x + width - size[0], y + height - size[1]) > _ROUNDING:
        problems.add("box outside the image", f"{where}: {box} in {size[0]} x {size[1]}")
    if thing.area is not None and min(width, height) > 0 and thing.area > width * height + _rim(box):
        problems.add(AREA_UNLIKE_BOX, f"{where}: area {thing.area:g}, box {box}")


@dataclass
class LoneBoxes:
    """Objects of which there is a box and no outline.

    Their areas are their boxes', or those of masks that are not in this file: what most of them say is taken for meant.
    """

    unlike: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, area: float, box: Sequence[float], where: str) -> None:
        """Note one more."""
        self.count += 1
        if area < box[2] * box[3] - _rim(box):
            self.unlike.append(f"{where}: area {area:g}, box {box}")

    def judge(self, problems: Problems) -> None:
        """Add those whose area is not their box's where most are."""
        for where in self.unlike if 2 * len(self.unlike) <= self.count else ():
            problems.add(AREA_UNLIKE_BOX, where)


def check_outline(problems: Problems, thing: Outlined, where: str, lone: LoneBoxes) -> None:
    """Add what of an object's outline does not go with its box or its area; one without an outline goes to ``lone``."""
    box = thing.bbox or ()
    if len(box) != 4 or min(box[2:]) <= 0:
        return
    polygons = _polygons(thing)
    outline = sum(map(_enclosed, polygons or ()))
    if polygons and not _around(polygons, box):
        problems.add(BOX_UNLIKE_OUTLINE, f"{where}: {box}")
    if thing.area is None:
        return
    if polygons and not outline / _ALIKE - _rim(box) / 2.0 <= thing.area <= outline * _ALIKE + _rim(box) / 2.0:
        problems.add(AREA_UNLIKE_OUTLINE, f"{where}: area {thing.area:g}, outline {outline:g}")
    elif polygons == [] and not thing.iscrowd:
        lone.add(thing.area, box, where)


def _rim(box: Sequence[float]) -> float:
    """Return the area of a rim of one pixel: the pixels of a mask may lie half outside of a box around its corners."""
    return box[2] + box[3] + 1.0


def _polygons(thing: Outlined) -> list[list[float]] | None:
    """Return the outline of an object, empty if it has none; ``None`` where run lengths stand for it."""
    try:
        return msgspec.json.decode(thing.segmentation, type=list[list[float]] | None) or []
    except msgspec.ValidationError:
        return None


def _enclosed(polygon: Sequence[float]) -> float:
    """Return the area inside a polygon (x, y, x, y, …).

    >>> _enclosed([0, 0, 4, 0, 4, 3, 0, 3])
    12.0
    """
    x, y = polygon[0::2], polygon[1::2]
    twice: float = sum(map(mul, x, [*y[1:], *y[:1]])) - sum(map(mul, y, [*x[1:], *x[:1]]))
    return abs(twice) / 2.0


def _around(polygons: Sequence[Sequence[float]], box: Sequence[float]) -> bool:
    """Return whether a box (x, y, width, height) is the one around the polygons, within what is allowed."""
    for axis in (0, 1):
        along = [place for polygon in polygons for place in polygon[axis::2]]
        near, far = box[axis], box[axis] + box[axis + 2]
        allowed = max(_APART, _APART_SHARE * (far - near))
        if along and max(abs(min(along) - near), abs(max(along) - far)) > allowed:
            return False
    return True
