"""What a run's page shows of its cases' top-k, thresholds and limits, as its results keep them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

BOUND, EXPLAINED, UNBOUND = "bound", "not bound, with a reason", "not bound"


@dataclass(frozen=True)
class LimitLine:
    """One limit: what it is, whether a record binds it, and which or why not."""

    name: str
    value: str
    where: str
    state: str
    told: str

    @property
    def passes(self) -> bool:
        """Whether it is bound, or listed with its reason."""
        return self.state != UNBOUND


@dataclass(frozen=True)
class CaseLimits:
    """The limits of one case."""

    case: str
    lines: tuple[LimitLine, ...]
    problems: tuple[str, ...]

    @property
    def passes(self) -> bool:
        """Whether each is bound or has a reason, and the declaration is that of the engines."""
        return not self.problems and all(line.passes for line in self.lines)

    @property
    def bound(self) -> int:
        """How many a record binds."""
        return sum(line.state == BOUND for line in self.lines)


def limits_view(environment: Mapping[str, Any]) -> list[CaseLimits]:
    """Return the limits of every case of a run whose results tell them; earlier ones do not."""
    found = environment.get("limits")
    return [
        CaseLimits(str(case), tuple(_lines(said)), tuple(str(line) for line in said.get("problems", ())))
        for case, said in (found.items() if isinstance(found, Mapping) else ())
        if isinstance(said, Mapping)
    ]


def _lines(said: Mapping[str, Any]) -> Iterator[LimitLine]:
    for row in said.get("rows", ()):
        facts = {key: row.get(key, "") for key in ("limit", "value", "where", "record", "decision", "how", "reason")}
        state = BOUND if facts["record"] else EXPLAINED if facts["reason"] else UNBOUND
        told = "{record}, {decision}: {how}" if state == BOUND else "{reason}"
        value = f"{facts['value']:g}" if isinstance(facts["value"], (int, float)) else str(facts["value"])
        yield LimitLine(str(facts["limit"]), value, str(facts["where"]), state, told.format(**facts))
