"""Find the first module that differs, in two recordings of one stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from parity.locate.pairs import Paths
from parity.taps.modules import differ

Events = Sequence[Mapping[str, Any]]

# Relative to a tensor's size: correct engines agree to some 1e-13 in float64, the smallest bug of use is far above.
SAME = 1e-10


@dataclass(frozen=True)
class Finding:
    """The first place that differs.

    Attributes:
        module: the new engine's module, empty where it is the stage's own code, outside of any module.
        call: which of the module's calls.
        what: ``out``: what went in is the same, what came out is not. ``in``: what it was given differs, so that the
            code around it is to blame; ``inside`` is then the module that was given it.
        inside: see ``what``.
        compared: how many module calls were compared.
        after: the last module call that was the same.
    """

    module: str
    call: int
    what: str
    inside: str
    compared: int
    after: str


def first_difference(new: Events, legacy: Events, pairs: Paths) -> Finding | None:
    """Return the first place that differs; ``None`` where all that was recorded is the same.

    Events come in the order of the new engine's run: a module's inputs, what happens inside, its outputs. So the
    first one that differs is as deep inside as can be told.
    """
    recorded = {(event["module"], event["call"], event["at"]): event for event in legacy}
    active: list[str] = []
    last = ""
    compared = 0
    for event in new:
        path, call, at = event["module"], event["call"], event["at"]
        if at == "out":
            active = active[: len(active) - active[::-1].index(path) - 1]
        other = recorded.get((pairs.get(path, ""), call, at))
        if other is not None and event["digests"] and other["digests"]:
            compared += at == "out"
            if _differs(event["digests"], other["digests"]):
                parent = next((p for p in reversed(active) if p in pairs), "")
                found, inside = (path, "") if at == "out" else (parent, path)
                return Finding(found, call, at, inside, compared, last)
            last = path if at == "out" else last
        if at == "in":
            active.append(path)
    return None


def _differs(first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]) -> bool:
    """Whether tensors differ that both engines have; what one passes beyond the other says nothing."""
    return any(differ(a, b, relative=SAME) for a, b in zip(first, second, strict=False))


def compared_modules(new: Events, legacy: Events, pairs: Paths) -> int:
    """Return how many module calls both recordings hold."""
    recorded = {(event["module"], event["call"]) for event in legacy if event["at"] == "out"}
    return sum((pairs.get(e["module"], ""), e["call"]) in recorded for e in new if e["at"] == "out")
