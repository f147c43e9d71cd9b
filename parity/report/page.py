"""The page of a report: one HTML file that needs nothing else, and the same results as JSON beside it."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from parity.cases.registry import all_cases
from parity.compare.verdicts import Verdict
from parity.report.figures import TIMES, duration, index, number, tensor_name, values, word
from parity.report.results import WITHOUT_FIGURES, DecisionResult, Report, StageResult, TensorResult, to_json

WORST_SHOWN = 10
KNOWN_DEVIATION = "known deviation"
MODES = ("isolated", "cascade")
DTYPES = ("fp64", "fp32")
ENGINE_WORDS = {
    "python": "Python",
    "blas": "BLAS",
    "cpu": "CPU",
    "cv2": "OpenCV",
    "vector_instructions": "vector instructions",
}
_ENGINE_ROWS = ("python", "torch", "mmcv", "mmdet", "mmengine", "numpy", "cv2", "blas", "cpu")


@dataclass(frozen=True)
class Check:
    """One stage result, with what the page shows of it at a glance.

    Attributes:
        tensor: the one that the bar shows: it used most of its budget; ``None`` where none has figures.
        error, floor, budget: relative to the truth's RMS; ``None`` where there is no such figure.
    """

    anchor: str
    result: StageResult
    tensor: TensorResult | None
    error: float | None
    floor: float | None
    budget: float | None

    @property
    def passes(self) -> bool:
        """Whether the engines are the same here."""
        return self.result.verdict.passes

    @property
    def worst(self) -> list[TensorResult]:
        """The tensors to look at first, worst first."""
        return self.result.worst_tensors()[:WORST_SHOWN]

    @property
    def shows_values(self) -> bool:
        """Whether the values of both engines are known for any of the worst tensors."""
        return any(tensor.actual is not None or tensor.expected is not None for tensor in self.worst)

    @property
    def why(self) -> str:
        """What did not pass, counted."""
        tensors = [tensor for tensor in self.result.tensors if not tensor.verdict.passes]
        decisions = [decision for decision in self.result.decisions if not decision.verdict.passes]
        parts = [] if self.result.tensors else [self.result.error or "no tensor was compared"]
        parts += [f"{len(tensors)} of {_counted(len(self.result.tensors), 'tensor')}"] if tensors else []
        parts += [f"{len(decisions)} of {_counted(len(self.result.decisions), 'decision')}"] if decisions else []
        return " and ".join(parts) + (" not the same" if tensors or decisions else "")


@dataclass(frozen=True)
class Axis:
    """A logarithmic axis of whole decades, ``low`` and ``high`` being powers of ten."""

    low: int
    high: int

    def place(self, value: float | None) -> float:
        """Return where a value lies, in percent of the axis; what lies beyond an end is put there."""
        if value is None or not value > 0.0:
            return 0.0
        if math.isinf(value):
            return 100.0
        part = (math.log10(value) - self.low) / (self.high - self.low)
        return round(100.0 * min(max(part, 0.0), 1.0), 2)

    @property
    def ticks(self) -> list[int]:
        """The powers of ten to label: six at most."""
        return list(range(self.low, self.high + 1, -(-(self.high - self.low) // 5)))


@dataclass(frozen=True)
class Panel:
    """One chart: a record in one dtype on one device; ``rows`` are stages with their checks."""

    dtype: str
    device: str
    axis: Axis
    rows: Sequence[tuple[str, Sequence[Check]]]


@dataclass(frozen=True)
class Cell:
    """How many of a record's checks of one stage passed, and where to read about the first.

    ``belongs`` is false where the case has no such stage, so that there is nothing to run.
    """

    passed: int
    ran: int
    anchor: str
    belongs: bool


@dataclass(frozen=True)
class Group:
    """Everything about one record of one case."""

    case: str
    record: str
    checks: Sequence[Check]
    panels: Sequence[Panel]
    decisions: Sequence[tuple[Check, DecisionResult]]
    cells: Sequence[Cell]

    @property
    def failing(self) -> list[Check]:
        """The checks that did not pass, first in the order of the detector."""
        return [check for check in self.checks if not check.passes]

    @property
    def passing(self) -> list[Check]:
        """The checks that passed."""
        return [check for check in self.checks if check.passes]


@dataclass(frozen=True)
class Engines:
    """A table of both engines' versions: rows of (what, legacy, new, whether both are known and differ)."""

    records: Sequence[str]
    legacy: str
    new: str
    rows: Sequence[tuple[str, str, str, bool]]


def write_report(report: Report, folder: Path) -> Path:
    """Write ``results.json`` and the self-contained ``index.html`` into ``folder``; return the page's path.

    Each file is written beside its place and then renamed, so that none is ever half there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "results.json", to_json(report))
    return _write(folder / "index.html", render(report))


def _write(path: Path, text: str) -> Path:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def render(report: Report) -> str:
    """Return the page as HTML. All names and notes are escaped; nothing is loaded from anywhere."""
    jinja = Environment(
        loader=PackageLoader("parity.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (number, share, index, values, word, duration, tensor_name)
    jinja.filters.update({function.__name__: function for function in filters})
    return jinja.get_template("report.html.j2").render(_view(report))


def _view(report: Report) -> dict[str, Any]:
    """Return everything that the template asks for."""
    stages = stage_order(report.results)
    checks = [_check(at, result) for at, result in enumerate(report.results)]
    checks.sort(key=lambda check: _place(check.result, stages))
    failing = [check for check in checks if not check.passes]
    groups = _groups(checks, stages, places=list(dict.fromkeys((r.case, r.record) for r in report.results)))
    return {
        "verdict": report.verdict,
        "checks": checks,
        "failing": failing,
        "first": failing[0] if failing else None,
        "rerun": rerun(failing[0].result) if failing else "",
        "seconds": sum(result.seconds for result in report.results),
        "stages": stages,
        "groups": groups,
        "not_run": _not_run(groups),
        "cases": _unique(group.case for group in groups),
        "dtypes": _unique(check.result.dtype for check in checks),
        "modes": _unique(check.result.mode for check in checks),
        "devices": _unique(check.result.device for check in checks),
        "engines": engines(report.environment),
        "parity_version": str(report.environment.get("parity", "")),
        "causes": _causes(checks),
        "deviations": _deviations(checks),
    }


def stage_order(results: Sequence[StageResult]) -> list[str]:
    """Return the stages in the order of the detector: as its case declares them, else as they came."""
    known = all_cases()
    order: list[str] = []
    for case in _unique(result.case for result in results):
        came = [result.stage for result in results if result.case == case]
        names = _unique([*(known[case].stage_names() if case in known else ()), *came])
        for before, name in zip([None, *names], names, strict=False):
            if name not in order:  # a stage that other cases lack goes right behind the one before it
                order.insert(order.index(before) + 1 if before else 0, name)
    return [stage for stage in order if any(result.stage == stage for result in results)]


def rerun(result: StageResult) -> str:
    """Return the command that runs just this check again.

    >>> rerun(StageResult("ddq", "padded", "decoder", "isolated", "fp64", "cpu", 1.0, ()))
    'pytest parity -k "ddq-padded-decoder-isolated-fp64-cpu"'
    """
    quoted = f'"{result.id}"' if shlex.quote(result.id) == result.id else shlex.quote(result.id)
    return f"pytest parity -k {quoted}" + ("" if result.device == "cpu" else f" --device {shlex.quote(result.device)}")


def _place(result: StageResult, stages: Sequence[str]) -> tuple[int, int, int]:
    """Return the sorting key: by stage, float64 before float32, isolated before cascade."""
    return stages.index(result.stage), _rank(result.dtype, DTYPES), _rank(result.mode, MODES)


def _rank(name: str, known: Sequence[str]) -> int:
    return known.index(name) if name in known else len(known)


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _by(checks: Iterable[Check], key: Callable[[StageResult], Any]) -> dict[Any, list[Check]]:
    found: dict[Any, list[Check]] = {}
    for check in checks:
        found.setdefault(key(check.result), []).append(check)
    return found


def _check(at: int, result: StageResult) -> Check:
    anchor = f"check-{at}"
    measured = [tensor for tensor in result.tensors if tensor.verdict not in WITHOUT_FIGURES]
    if not measured:
        return Check(anchor, result, None, None, None, None)
    worst = max(measured, key=lambda tensor: tensor.severity)
    if worst.verdict is Verdict.NONFINITE or not math.isfinite(worst.rms):
        error = math.inf
    else:
        error = worst.rms / worst.expected_rms if worst.expected_rms else worst.rel_rms
    floor = worst.floor_rms / worst.expected_rms if worst.expected_rms else 0.0
    return Check(anchor, result, worst, error, floor or None, worst.budget * floor or None)


def _groups(checks: Sequence[Check], stages: Sequence[str], *, places: Sequence[tuple[str, str]]) -> list[Group]:
    axes = {key: _axis(found) for key, found in _by(checks, lambda r: (r.dtype, r.device)).items()}
    found = _by(checks, lambda r: (r.case, r.record))
    return [_group(case, record, found[case, record], stages, axes) for case, record in places]


def _group(
    case: str, record: str, checks: Sequence[Check], stages: Sequence[str], axes: Mapping[tuple[str, str], Axis]
) -> Group:
    panels = []
    runs = _by(checks, lambda r: (r.dtype, r.device))
    for dtype, device in sorted(runs, key=lambda run: _rank(run[0], DTYPES)):
        rows = tuple(_by(runs[dtype, device], lambda r: r.stage).items())
        panels.append(Panel(dtype, device, axes[dtype, device], rows))
    decisions = [(check, decision) for check in checks for decision in check.result.decisions]
    by_stage = _by(checks, lambda r: r.stage)
    return Group(
        case,
        record,
        checks,
        panels,
        decisions,
        [_cell(by_stage.get(stage, []), belongs=_has_stage(case, stage)) for stage in stages],
    )


def _has_stage(case: str, stage: str) -> bool:
    known = all_cases().get(case)
    return known is None or stage in known.stage_names()


def _cell(checks: Sequence[Check], *, belongs: bool) -> Cell:
    worst_first = sorted(checks, key=lambda check: check.passes)
    return Cell(sum(check.passes for check in checks), len(checks), worst_first[0].anchor if checks else "", belongs)


def _not_run(groups: Sequence[Group]) -> int:
    """Return how many checks are lacking: a stage of a case that was run in one way but not in another."""
    cases = _by((check for group in groups for check in group.checks), lambda r: r.case)
    stages = {case: len(_by(found, lambda r: r.stage)) for case, found in cases.items()}
    runs = [len(_by(group.checks, lambda r: (r.mode, r.dtype, r.device))) for group in groups]
    return sum(
        ways * stages[group.case] - len(_by(group.checks, lambda r: r.id))
        for ways, group in zip(runs, groups, strict=True)
    )


def _axis(checks: Sequence[Check]) -> Axis:
    """Return the axis that holds every figure; errors far below every noise floor do not stretch it."""
    shown = [value for check in checks for value in (check.error, check.floor, check.budget) if value]
    finite = [value for value in shown if math.isfinite(value)]
    if not finite:
        return Axis(-17, 0)
    floors = [check.floor for check in checks if check.floor]
    low = max(min(finite), min(floors, default=0.0) / 1e3)
    return Axis(math.floor(math.log10(low) - 0.3), math.ceil(math.log10(max(finite)) + 0.3))


def engines(environment: Mapping[str, Any]) -> list[Engines]:
    """Return a table for every legacy environment among the records; usually that is one."""
    new = _plain(environment.get("new"))
    legacies: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for record, both in _mapping(environment.get("records")).items():
        legacy = _plain(_mapping(both).get("legacy"))
        legacies.setdefault(tuple(legacy.items()), []).append(str(record))
    return [_engine_table(records, dict(legacy), new) for legacy, records in (legacies or {(): []}).items()]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _plain(value: Any) -> dict[str, str]:
    return {str(key): str(inner) for key, inner in sorted(_mapping(value).items())}


def _engine_table(records: Sequence[str], legacy: Mapping[str, str], new: Mapping[str, str]) -> Engines:
    keys = [key for key in _unique([*_ENGINE_ROWS, *legacy, *new]) if key != "engine" and (key in legacy or key in new)]
    rows = [(ENGINE_WORDS.get(key, key), legacy.get(key, ""), new.get(key, "")) for key in keys]
    marked = [(what, old, now, bool(old and now and old != now)) for what, old, now in rows]
    return Engines(records, legacy.get("engine", ""), new.get("engine", ""), marked)


def _causes(checks: Sequence[Check]) -> list[tuple[str, str, list[str]]]:
    """Return (stage, note, records) of what explains a difference."""
    found: dict[tuple[str, str], list[str]] = {}
    for check in checks:
        for note in check.result.notes:
            found.setdefault((check.result.stage, note), []).append(check.result.record)
    return [(stage, note, _unique(records)) for (stage, note), records in found.items()]


def _deviations(checks: Sequence[Check]) -> list[tuple[str, str, list[str], int]]:
    """Return (tensor, reason, where, how often) of what is known to differ and does no harm."""
    found: dict[tuple[str, str], list[str]] = {}
    for check in checks:
        for tensor in check.result.tensors:
            if tensor.note.startswith(KNOWN_DEVIATION):
                reason = tensor.note.removeprefix(KNOWN_DEVIATION).removeprefix(":").strip()
                found.setdefault((tensor.name, reason), []).append(f"{check.result.record}, {check.result.stage}")
    return [(name, reason, _unique(where), len(where)) for (name, reason), where in found.items()]


def share(check: Check) -> str:
    """Return how much of its budget the tensor behind the bar used: a percentage, or how many times all of it."""
    used = check.tensor.used if check.tensor else 0.0
    if used == 0.0 or math.isinf(used):
        return ""
    return f"{number(used, 2)}{TIMES}" if used > 1.0 else "<1 %" if used < 0.01 else f"{100.0 * used:.0f} %"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
