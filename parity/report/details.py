"""What is kept of a comparison beyond its figures, for the few tensors and choices that are worth a closer look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ErrorMap:
    """Where the errors of a tensor are: the greatest of every bin of a picture of it, on a logarithmic scale.

    Attributes:
        rows, columns: bins down and across.
        down, across: which axes of the tensor they are, such as ``axes 0, 1 (1800)``.
        low, high: the errors that levels 2 and 254 stand for, in the tensor's unit; those between are even in the
            logarithm.
        levels: base64 of one byte a bin, row by row: 0 nothing was kept of this bin, 1 no error, 255 not finite.
    """

    rows: int
    columns: int
    down: str
    across: str
    low: float
    high: float
    levels: str


@dataclass(frozen=True)
class Histogram:
    """How many values are off by how much.

    Attributes:
        exact: values without an error; ``nonfinite``: with one that is no number.
        first: log10 of the lower edge of the first bin.
        counts: of each bin, half a decade wide.
    """

    exact: int
    nonfinite: int
    first: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Element:
    """One value of a tensor in both engines; ``index`` is its place in what was compared."""

    index: tuple[int, ...]
    actual: float
    expected: float


@dataclass(frozen=True)
class Detail:
    """A closer look at one tensor; there is no map of what has no places, such as a sketch."""

    histogram: Histogram
    worst: tuple[Element, ...]
    map: ErrorMap | None = None


@dataclass(frozen=True)
class Swap:
    """One index that the two engines did not choose alike.

    Attributes:
        expected_rank, actual_rank: its place among the chosen, from 0; ``None`` where it was not chosen.
        score: in the truth; ``None`` where it was not kept.
        box: xyxy in the truth, as shares of the picture's width and height; ``None`` for a choice without boxes.
    """

    index: int
    expected_rank: int | None
    actual_rank: int | None
    score: float | None = None
    box: tuple[float, float, float, float] | None = None


def detail_from_json(plain: Mapping[str, Any] | None) -> Detail | None:
    """Return a detail from its JSON object."""
    if plain is None:
        return None
    histogram = Histogram(**{**plain["histogram"], "counts": tuple(plain["histogram"]["counts"])})
    worst = tuple(
        Element(tuple(each["index"]), float(each["actual"]), float(each["expected"])) for each in plain["worst"]
    )
    return Detail(histogram, worst, None if plain["map"] is None else ErrorMap(**plain["map"]))


def swap_from_json(plain: Mapping[str, Any]) -> Swap:
    """Return a swap from its JSON object."""
    box = plain.get("box")
    return Swap(**{**plain, "box": None if box is None else (box[0], box[1], box[2], box[3])})
