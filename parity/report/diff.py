"""Two runs compared: which verdicts changed, which errors grew, and what else was different."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from parity.report.figures import number
from parity.report.matrix import percent
from parity.report.order import in_order, rerun
from parity.report.results import Report, StageResult, TensorResult

SCHEMA = 1
NOISE = 1.0 / 8.0  # of a budget: in float32 one noise floor of the eight that are allowed (compare/budgets.py)
SHOWN = 40  # lines for people: where a stage diverges, hundreds of tensors behind it do
SETTING = "setting "  # before the name of a numerical setting, among the surroundings
# Of an environment: what every run has differently, and what is told by itself.
_OWN = ("when", "records", "limits", "checks")


@dataclass(frozen=True)
class Change:
    """One thing that is not as it was.

    Attributes:
        kind: ``verdict``, ``error``, ``check``, ``tensor`` or ``environment``.
        where: the check's id, and behind it the tensor's name; or the key of the environment.
        before, after: as people read them; empty where there was or is nothing.
        worse: whether the second run is the worse for it.
        rerun: the command that runs the check again, where it does not pass now.
    """

    kind: str
    where: str
    before: str
    after: str
    worse: bool
    rerun: str = ""

    def __str__(self) -> str:
        """Return it as a line."""
        return f"{self.where}: {self.before or 'nothing'} -> {self.after or 'nothing'}"


@dataclass(frozen=True)
class Diff:
    """All that changed from one run to another, what became worse first."""

    before: str
    after: str
    changes: tuple[Change, ...]

    @property
    def worse(self) -> bool:
        """Whether anything became worse."""
        return any(change.worse for change in self.changes)


def diff(before: Report, after: Report) -> Diff:
    """Compare two runs check by check and tensor by tensor.

    An error grew if the share of the budget that it uses is greater by more than ``NOISE``. A check or a tensor that
    is not there any more is worse: what is not compared is not proven.
    """
    old = {result.id: result for result in before.results}
    new = {result.id: result for result in in_order(after.results)}
    changes = [*_checks(old, new), *environment_changes(before.environment, after.environment)]
    changes.sort(key=lambda change: not change.worse)
    return Diff(before.verdict.value, after.verdict.value, tuple(changes))


def _checks(old: Mapping[str, StageResult], new: Mapping[str, StageResult]) -> Iterator[Change]:
    for name, now in new.items():
        then = old.get(name)
        if then is None:
            again = "" if now.verdict.passes else rerun(now)
            yield Change("check", name, "", now.verdict.value, not now.verdict.passes, again)
            continue
        if then.verdict != now.verdict:
            worse = list(type(now.verdict)).index(now.verdict) > list(type(then.verdict)).index(then.verdict)
            again = "" if now.verdict.passes else rerun(now)
            graver = worse and not now.verdict.passes
            yield Change("verdict", name, then.verdict.value, now.verdict.value, graver, again)
        yield from _tensors(name, then, now)
    for name in old.keys() - new.keys():
        yield Change("check", name, old[name].verdict.value, "", True)


def _tensors(name: str, then: StageResult, now: StageResult) -> Iterator[Change]:
    old = {tensor.name: tensor for tensor in then.tensors}
    new = {tensor.name: tensor for tensor in now.tensors}
    for gone in sorted(old.keys() - new.keys()):
        yield Change("tensor", f"{name} {gone}", old[gone].verdict.value, "", True)
    for came in sorted(new.keys() - old.keys()):
        yield Change("tensor", f"{name} {came}", "", new[came].verdict.value, not new[came].verdict.passes)
    for both in sorted(old.keys() & new.keys()):
        if moved(old[both].used, new[both].used):
            words = _error(old[both]), _error(new[both])
            yield Change("error", f"{name} {both}", *words, new[both].used > old[both].used)


def moved(before: float, after: float) -> bool:
    """Whether a share of a budget changed by more than noise.

    >>> moved(0.2, 0.3), moved(0.2, 0.4), moved(math.inf, math.inf), moved(0.2, math.inf)
    (False, True, False, True)
    """
    return before != after and not abs(after - before) <= NOISE


def _error(tensor: TensorResult) -> str:
    if math.isinf(tensor.used):
        return tensor.verdict.value
    return f"{number(tensor.max_abs)} ({percent(tensor.used)} of its budget)"


def environment_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Return what is different about the surroundings of two runs: versions, commit, driver, numerical settings."""
    old, new = surroundings(before), surroundings(after)
    told = [any(key.startswith(SETTING) for key in facts) for facts in (old, new)]
    return [
        Change("environment", key, old.get(key, ""), new.get(key, ""), worse=False)
        for key in dict.fromkeys((*old, *new))
        # Runs of earlier versions do not tell their settings: that is no change of them.
        if old.get(key) != new.get(key) and (all(told) or not key.startswith(SETTING))
    ]


def surroundings(environment: Mapping[str, Any]) -> dict[str, str]:
    """Return name -> version of all that a run's figures may depend on, as far as the run tells it.

    Of a legacy engine, each version that some record of the run was frozen with.
    """
    found = {key: str(value) for key, value in environment.items() if key not in (*_OWN, "new", "settings")}
    found.update(_texts(environment.get("new")))
    found.update({SETTING + key: value for key, value in _texts(environment.get("settings")).items()})
    legacy: dict[str, set[str]] = {}
    records = environment.get("records")
    for engines in records.values() if isinstance(records, Mapping) else ():
        versions = _texts(engines.get("legacy") if isinstance(engines, Mapping) else None)
        for key, value in versions.items():
            legacy.setdefault(f"{versions.get('engine', 'legacy')} {key}", set()).add(value)
    return found | {key: ", ".join(sorted(values)) for key, values in legacy.items()}


def _texts(value: Any) -> dict[str, str]:
    return {str(key): str(inner) for key, inner in value.items()} if isinstance(value, Mapping) else {}


def to_text(found: Diff) -> str:
    """Return it for people: what became worse first, then the rest."""
    if not found.changes:
        return f"no change: {found.after} as before\n"
    lines = [f"{found.before} -> {found.after}"]
    worse = [change for change in found.changes if change.worse]
    rest = [change for change in found.changes if not change.worse]
    for title, changes in (("worse", worse), ("changed", rest)):
        lines += [f"{title}: {len(changes)}", *_listed(changes)] if changes else []
    first = next((change.rerun for change in worse if change.rerun), "")
    return "\n".join([*lines, *([f"to reproduce the first: {first}"] if first else [])]) + "\n"


def _listed(changes: Sequence[Change]) -> list[str]:
    lines = [f"  {change.kind:12} {change}" for change in changes[:SHOWN]]
    more = len(changes) - SHOWN
    return [*lines, f"  … and {more} more: --json tells all"] if more > 0 else lines


def to_json(found: Diff) -> str:
    """Return it for programs: ``{"schema": 1, "before", "after", "worse", "changes": [...]}``."""
    changes = [asdict(change) for change in found.changes]
    whole = {"schema": SCHEMA, "before": found.before, "after": found.after, "worse": found.worse, "changes": changes}
    return json.dumps(whole, indent=1) + "\n"
