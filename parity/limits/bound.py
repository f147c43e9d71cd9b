"""Whether a decision binds a limit: whether one less of it, or its worst for its best, would show there.

What no decision comes near could be anything: a detector that takes the worst 900 of 512 candidates takes all of
them, in the right order, and passes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from parity.cases.base import Limit
from parity.compare.decisions import Choice, chosen_scores, nearest_overlaps, nearest_scores
from parity.compare.stage import frozen_choice
from parity.errors import ParityError
from parity.records.kinds import GROUND_TRUTH, TRAINING
from parity.records.layout import StoredTensors
from parity.records.store import Record

# Score thresholds that detectors usually have: where one has none, a score below all of them is chosen.
USUAL = (0.05, 0.01, 1e-3)
# How near a value has to lie to a threshold, on either side of it.
NEAR = 0.01
SETTING = "setting"


@dataclass(frozen=True)
class Binding:
    """What binds a limit: the decision of a record, and how in words."""

    record: str
    decision: str
    how: str


@dataclass(frozen=True)
class Frozen:
    """One decision of a record."""

    record: Record
    name: str

    @property
    def said(self) -> dict[str, Any]:
        """What the manifest says of it."""
        described: dict[str, Any] = self.record.manifest["decisions"][self.name]
        return described

    @property
    def chosen(self) -> int:
        """How many it chose, in each row."""
        return self.record.entries[f"{self.name}/chosen"].shape[-1]

    def choice(self) -> Choice:
        """Read the whole decision."""
        return frozen_choice(self.record, StoredTensors(self.record), self.name)


def limit_names(limit: Limit, decision: str) -> bool:
    """Whether a limit is one of a decision, of whichever process of a training of several it is.

    >>> limit_names(Limit("queries", "first", 900, "decoder.nms.*"), "decoder.rank[1].nms.0")
    True
    """
    return fnmatchcase(re.sub(r"\.rank\[\d+\]", "", decision), limit.decisions)


def binding(limit: Limit, records: Sequence[Record]) -> Binding | None:
    """Return the first decision that binds a limit; ``None`` where none does.

    A limit of training is bound by a record of training alone, any other by one of inference.

    Raises:
        ParityError: the limit is of an unknown kind.
    """
    if limit.kind not in (*KINDS, SETTING):
        raise ParityError(f"limit {limit.name!r} is of kind {limit.kind!r}, there are {', '.join((*KINDS, SETTING))}")
    for frozen in shown_in(limit, records) if limit.kind in KINDS else ():
        how = KINDS[limit.kind](limit, frozen)
        if how:
            return Binding(frozen.record.id, frozen.name, how)
    return None


def shown_in(limit: Limit, records: Sequence[Record]) -> Iterator[Frozen]:
    """Yield the decisions that show a limit; one of a stage that is not compared, kept without its scores, does not."""
    for record in records:
        if (record.kind == TRAINING) == limit.training:
            for name in record.manifest["decisions"]:
                if limit_names(limit, name) and f"{name}/scores" in record.entries:
                    yield Frozen(record, name)


def _topk(limit: Limit, frozen: Frozen) -> str:
    size = int(frozen.said["size"])
    return f"{frozen.chosen} of {size}" if frozen.chosen == limit.value < size else ""


def _first(limit: Limit, frozen: Frozen) -> str:
    return f"the first {limit.value:g} of {frozen.chosen}" if frozen.chosen > limit.value else ""


def _per_object(limit: Limit, frozen: Frozen) -> str:
    """Tell the objects for each of which so many rows are matched, and how many more rows there are for each."""
    columns = int(frozen.said["settings"]["columns"])
    rows = int(frozen.said["size"]) // columns
    objects, rest = divmod(columns, int(limit.value))
    known = {
        entry.shape[0]
        for entry in frozen.record.entries.values()
        if entry.stage == GROUND_TRUTH and entry.name.startswith("gt_labels")
    }
    enough = rest == 0 and objects in known and rows >= (limit.value + 1) * objects
    return f"{limit.value:g} of {rows} for each of {objects} objects" if enough else ""


def _overlap(limit: Limit, frozen: Frozen) -> str:
    choice = frozen.choice()
    below, above = nearest_overlaps(choice)
    return _both_sides("IoU", below, above, limit.value) if choice.settings["iou_threshold"] == limit.value else ""


def _threshold(limit: Limit, frozen: Frozen) -> str:
    below, above = nearest_scores(frozen.choice())
    return _both_sides("score", below, above, limit.value)


def _both_sides(what: str, below: float, above: float, value: float) -> str:
    if max(value - below, above - value) > NEAR or not math.isfinite(below + above):
        return ""
    return f"{what} {below:.4g} below and {above:.4g} above"


def _unfiltered(limit: Limit, frozen: Frozen) -> str:
    scores = chosen_scores(frozen.choice())
    least = min((float(row.min()) for row in scores if row.numel()), default=math.inf)
    greatest = max((float(row.max()) for row in scores if row.numel()), default=-math.inf)
    apart = least < min(USUAL) and greatest > limit.value
    return f"scores {least:.2g} to {greatest:.2g}" if apart else ""


KINDS: dict[str, Callable[[Limit, Frozen], str]] = {
    "topk": _topk,
    "first": _first,
    "per_object": _per_object,
    "overlap": _overlap,
    "threshold": _threshold,
    "unfiltered": _unfiltered,
}
