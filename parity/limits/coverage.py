"""All limits of a case: what binds each, what does not, and where the declaration is not what the engines have."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from parity.cases.base import Case, Limit
from parity.limits.bound import SETTING, binding, limit_names
from parity.records.store import Record
from parity.taps.decisions import NMS, THRESHOLD, TOPK

# Which kind of limit has to name a decision of this kind.
OWED = {NMS: "overlap", TOPK: "topk", THRESHOLD: "threshold"}
# What a suppression limits beside the overlap, unless the setting has this value.
ALSO_OWED = {"score_threshold": (0.0, "threshold"), "max_num": (-1.0, "topk")}

# Engine -> key -> number of every limit in its config.
Configs = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Row:
    """What is known of one limit.

    Attributes:
        where: the keys of the configs, or that it is in the code.
        record, decision, how: what binds it; empty where nothing does.
        reason: why nothing does.
    """

    limit: str
    value: float
    where: str
    record: str = ""
    decision: str = ""
    how: str = ""
    reason: str = ""

    @property
    def unbound(self) -> bool:
        """Whether nothing binds it, and no reason is given."""
        return not self.record and not self.reason


@dataclass(frozen=True)
class Coverage:
    """The limits of one case.

    Attributes:
        problems: where the declared limits are not those of the engines: what to change, each in a line.
    """

    case: str
    rows: tuple[Row, ...]
    problems: tuple[str, ...]

    @property
    def unbound(self) -> tuple[Row, ...]:
        """The limits that nothing binds, without a reason."""
        return tuple(row for row in self.rows if row.unbound)


def cover(case: Case, records: Sequence[Record], configs: Configs) -> Coverage:
    """Return what the records show of a case's limits; ``configs`` are the limits of the engines whose are known."""
    rows = tuple(_row(limit, records) for limit in case.limits)
    problems = [*_of_configs(case, configs), *_of_decisions(case, records), *_of_reasons(case, rows)]
    return Coverage(case.id, rows, tuple(dict.fromkeys(problems)))


def _row(limit: Limit, records: Sequence[Record]) -> Row:
    where = ", ".join(dict.fromkeys(limit.keys.values())) or "in the code"
    blank = Row(limit.name, limit.value, where, reason=limit.reason)
    bound = binding(limit, records)
    if bound is None:
        return blank
    return Row(limit.name, limit.value, where, bound.record, bound.decision, bound.how, limit.reason)


def _of_configs(case: Case, configs: Configs) -> Iterator[str]:
    """Yield where a config has a limit that no row names, or not what a row says."""
    for engine, found in configs.items():
        declared = {limit.keys[engine]: limit for limit in case.limits if engine in limit.keys}
        for key, value in found.items():
            if key not in declared:
                yield f"{engine}'s config has {key} = {value:g}, which no limit of the case names"
        for key, limit in declared.items():
            said = limit.value if limit.said is None else limit.said
            if key not in found:
                yield f"limit {limit.name!r} names {key}, which {engine}'s config does not have"
            elif found[key] != said:
                yield f"limit {limit.name!r} is declared as {said:g}; {engine}'s config has {key} = {found[key]:g}"


def _of_decisions(case: Case, records: Sequence[Record]) -> Iterator[str]:
    """Yield the decisions of records that limit something, and that no row of that kind names."""
    for record in records:
        for name, described in record.manifest["decisions"].items():
            for kind in _owed(described["kind"], described["settings"]):
                if not any(limit.kind == kind and limit_names(limit, name) for limit in case.limits):
                    family = re.sub(r"\d+$", "*", name)
                    yield f"the decisions {family} of record {record.id} need a limit of kind {kind!r}: none names them"


def _owed(kind: str, settings: Mapping[str, float]) -> Iterator[str]:
    if kind in OWED:
        yield OWED[kind]
    for setting, (nothing, owed) in ALSO_OWED.items():
        if settings.get(setting, nothing) != nothing:
            yield owed


def _of_reasons(case: Case, rows: Sequence[Row]) -> Iterator[str]:
    for limit, row in zip(case.limits, rows, strict=True):
        if row.record and limit.reason:
            yield f"limit {limit.name!r} has a reason why nothing binds it, but record {row.record} does: remove that"
        if limit.kind == SETTING and not limit.reason:
            yield f"limit {limit.name!r} chooses among nothing: its reason has to say what shows it"
