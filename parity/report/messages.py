"""The one builder of messages about a stage, for the terminal and for pytest alike."""

from __future__ import annotations

from collections.abc import Sequence

from parity.compare.verdicts import Verdict
from parity.report.figures import index
from parity.report.results import DecisionResult, StageResult, TensorResult

SHOWN = 10


def conclusion(verdict: Verdict) -> str:
    """Return what a run showed, in words: ``inconclusive`` is no divergence, and no proof either.

    >>> conclusion(Verdict.WITHIN_BUDGET), conclusion(Verdict.INCONCLUSIVE), conclusion(Verdict.SHAPE)
    ('same', 'nothing differs, but not everything was compared', 'NOT the same')
    """
    if verdict is Verdict.INCONCLUSIVE:
        return "nothing differs, but not everything was compared"
    return "same" if verdict.passes else "NOT the same"


def stage_line(result: StageResult) -> str:
    """Return one line: where, what, and how much of its budget the worst tensor needed."""
    flips = sum(decision.flips for decision in result.decisions)
    certified = sum(decision.certified for decision in result.decisions)
    worst = next(iter(result.worst_tensors()), None)
    used = "exact" if worst else result.inconclusive or "nothing compared"
    if worst is not None and worst.minimum_budget:
        used = f"{worst.minimum_budget:.3g} of {worst.budget:.3g} ({worst.name})"
    ties = f", {flips} flips, {certified} certified" if flips else ""
    return f"{result.verdict.value:13} {result.stage:16} {result.mode:8} {result.dtype}  budget used {used}{ties}"


def failure_message(results: Sequence[StageResult], *, rerun: str) -> str:
    """Return the whole message for stages that do not pass: the first diverging one on top, then the others.

    Args:
        results: in the order of the detector.
        rerun: the command that runs just the first one again.
    """
    if not results:
        return "nothing was compared: that is a failure"
    failed = [result for result in results if not result.verdict.passes]
    if not failed:
        return ""
    diverged = [result for result in failed if result.verdict is not Verdict.INCONCLUSIVE]
    lines = [*_describe((diverged or failed)[0])]
    if len(diverged) > 1:
        lines.append(f"first of {len(diverged)} diverging stages: {', '.join(result.stage for result in diverged)}")
    if len(failed) > max(len(diverged), 1):
        left = [result.stage for result in failed if result.verdict is Verdict.INCONCLUSIVE]
        lines.append(f"{len(left)} of {len(results)} stages were not compared: {', '.join(left)}")
    return "\n".join([*lines, f"to reproduce: {rerun}"])


def _describe(result: StageResult) -> list[str]:
    where = f"{result.case}, record {result.record}, {result.mode}, {result.dtype}, {result.device}"
    if result.inconclusive:
        return [f"stage {result.stage!r} was not compared ({where})", f"  {result.inconclusive}"]
    lines = [f"stage {result.stage!r} is not the same: {result.verdict.value} ({where})"]
    if not result.tensors:
        lines.append(f"  {result.error or 'no tensor was compared'}")
    bad = [tensor for tensor in result.worst_tensors() if not tensor.verdict.passes]
    lines += [line for tensor in bad[:SHOWN] for line in _describe_tensor(tensor)]
    if len(bad) > SHOWN:
        lines.append(f"  … and {len(bad) - SHOWN} more tensors")
    for decision in result.decisions:
        if not decision.verdict.passes:
            lines += _describe_decision(decision)
    return lines + [f"  note: {note}" for note in result.notes]


def _describe_tensor(tensor: TensorResult) -> list[str]:
    shape = "x".join(map(str, tensor.shape)) or "scalar"
    head = f"  {tensor.name} ({shape}{', ' + tensor.unit if tensor.unit else ''}): {tensor.verdict.value}"
    if tensor.verdict in (Verdict.SHAPE, Verdict.DTYPE, Verdict.MISSING, Verdict.EXTRA) or tensor.kind == "law":
        return [f"{head}; {tensor.remark}" if tensor.remark else head]
    share = 100.0 * tensor.over / tensor.count if tensor.count else 0.0
    allowed = tensor.budget * tensor.floor_max
    return [
        f"{head}, {tensor.over} / {tensor.count} elements over budget ({share:.3g}%)",
        f"    greatest error {tensor.max_abs:.3g} at {index(tensor)}, allowed {allowed:.3g}"
        f" (actual {_value(tensor.actual)}, expected {_value(tensor.expected)})",
        f"    RMS error {tensor.rms:.3g}, {tensor.rel_rms:.2g} of the truth's RMS;"
        f" budget {tensor.budget:.3g} x noise floor, would pass with {tensor.minimum_budget:.3g}",
    ]


def _value(number: float | None) -> str:
    return "none" if number is None else f"{number:.9g}"


def _describe_decision(decision: DecisionResult) -> list[str]:
    head = f"  decision {decision.name} ({decision.kind}, {decision.count} chosen): {decision.verdict.value}"
    if decision.verdict in (Verdict.MISSING, Verdict.EXTRA, Verdict.SHAPE):
        return [f"{head}; {decision.note}" if decision.note else head]
    return [
        f"{head}, {decision.flips} flips, {decision.uncertified} of them beyond noise",
        f"    needs a score tolerance of {decision.needed:.3g}, noise is {decision.noise:.3g}",
    ]
