"""The checks of a run as the page shows them: in the order of the detector, each with its figures at a glance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from parity.cases.registry import all_cases
from parity.compare.verdicts import Verdict
from parity.records.kinds import Checks, checks_from_plain, checks_of, kind_by_name
from parity.report.figures import TIMES, number
from parity.report.order import place, stage_order
from parity.report.results import WITHOUT_FIGURES, Report, StageResult, TensorResult


@dataclass(frozen=True)
class Check:
    """One stage result, with what the page shows of it at a glance.

    Attributes:
        number: its place among the checks, which its address on the page is made of.
        tensor: the one that used most of its budget; ``None`` where none has figures.
        kind: what its record is of: ``inference``, ``training``, ``trajectory`` or ``recipe``.
        recorded: all checks that its record is for; ``None`` where its case is not known here, nor the run tells.
        error, floor, budget: its RMS error, noise floor and allowance, relative to the truth's RMS; ``None`` where
            there is no such figure.
    """

    number: int
    result: StageResult
    tensor: TensorResult | None
    error: float | None
    floor: float | None
    budget: float | None
    kind: str
    recorded: Checks | None = None

    @property
    def anchor(self) -> str:
        """Where the page shows it."""
        return f"check-{self.number}"

    @property
    def passes(self) -> bool:
        """Whether the engines are the same here."""
        return self.result.verdict.passes

    @property
    def worst(self) -> list[TensorResult]:
        """The tensors to look at, worst first."""
        return self.result.worst_tensors()

    @property
    def why(self) -> str:
        """What did not pass, counted."""
        tensors = [tensor for tensor in self.result.tensors if not tensor.verdict.passes]
        decisions = [decision for decision in self.result.decisions if not decision.verdict.passes]
        nothing = self.result.error or self.result.inconclusive or "no tensor was compared"
        parts = [] if self.result.tensors else [nothing]
        parts += [f"{len(tensors)} of {counted(len(self.result.tensors), 'tensor')}"] if tensors else []
        parts += [f"{len(decisions)} of {counted(len(self.result.decisions), 'decision')}"] if decisions else []
        return " and ".join(parts) + (" not the same" if tensors or decisions else "")

    @property
    def share(self) -> str:
        """How much of its budget was used at most, for people; see ``share``."""
        return share(self.tensor.used if self.tensor else 0.0)


def checks_in_order(report: Report) -> list[Check]:
    """Return the checks by stage, float64 before float32, isolated before cascade."""
    stages = stage_order(report.results)
    results = sorted(report.results, key=lambda result: place(result, stages))
    recorded = recorded_checks(report)
    return [_check(at, result, recorded.get((result.case, result.record))) for at, result in enumerate(results)]


def recorded_checks(report: Report) -> dict[tuple[str, str], Checks]:
    """Return (case, record) -> the checks that the record is for.

    The run tells them; of a run of an earlier version the records' names do, where their cases are known here.
    """
    told = report.environment.get("checks", {})
    known, found = all_cases(), {}
    for case, record in dict.fromkeys((result.case, result.record) for result in report.results):
        if f"{case}/{record}" in told:
            found[case, record] = checks_from_plain(told[f"{case}/{record}"])
        elif case in known:
            found[case, record] = checks_of(known[case], record)
    return found


def _check(at: int, result: StageResult, recorded: Checks | None) -> Check:
    kind = recorded.kind if recorded else kind_by_name(result.record)
    measured = [tensor for tensor in result.tensors if tensor.verdict not in WITHOUT_FIGURES]
    if not measured:
        return Check(at, result, None, None, None, None, kind, recorded)
    worst = max(measured, key=lambda tensor: tensor.severity)
    if worst.verdict is Verdict.NONFINITE or not math.isfinite(worst.rms):
        error = math.inf
    else:
        error = worst.rms / worst.expected_rms if worst.expected_rms else worst.rel_rms
    floor = worst.floor_rms / worst.expected_rms if worst.expected_rms else 0.0
    return Check(at, result, worst, error, floor or None, worst.budget * floor or None, kind, recorded)


def missing_checks(checks: Sequence[Check]) -> list[tuple[str, str, str, str, str]]:
    """Return (case, record, stage, mode, dtype) of what a run lacks: checks that its records are for, but not made.

    Stages, modes and dtypes that were not asked for at all, as with ``--stage``, are not lacking.
    """
    results = [check.result for check in checks]
    recorded = {(check.result.case, check.result.record): check.recorded for check in checks}
    asked = {(result.case, result.stage) for result in results}
    modes, dtypes = {result.mode for result in results}, {result.dtype for result in results}
    made = {(result.case, result.record, result.stage, result.mode, result.dtype) for result in results}
    lacking = []
    for (case, record), told in recorded.items():
        lacking += [
            (case, record, stage, mode, dtype)
            for stage in (told.stages if told else ())
            for mode in (told.modes if told else ())
            for dtype in (told.dtypes if told else ())
            if (case, stage) in asked and mode in modes and dtype in dtypes
        ]
    return [each for each in lacking if each not in made]


def share(used: float) -> str:
    """Return a share of a budget for people: a percentage, or how many times all of it; nothing where it is no figure.

    >>> [share(used) for used in (0.0, 0.0004, 0.123, 7.25, math.inf)]
    ['', '<1 %', '12 %', '7.2\N{MULTIPLICATION SIGN}', '']
    """
    if used == 0.0 or not math.isfinite(used):
        return ""
    return f"{number(used, 2)}{TIMES}" if used > 1.0 else "<1 %" if used < 0.01 else f"{100.0 * used:.0f} %"


def counted(count: int, noun: str) -> str:
    """Return a number and its noun.

    >>> counted(1, "tensor"), counted(2, "tensor")
    ('1 tensor', '2 tensors')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"
