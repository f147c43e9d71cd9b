"""What a check found, as plain data: the one thing that the command line, pytest and the report share."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import msgspec

from parity.compare.verdicts import Verdict, worst
from parity.errors import DAMAGE, ParityError
from parity.report.details import Detail, Swap, detail_from_json, swap_from_json

SCHEMA = 2  # 2: when, commit and driver in the environment, more of each tensor; 1 is still read
RESULTS = "results.json"  # what it is called in the folder of a run
KNOWN_DEVIATION = "known deviation"  # how a result says that it is one; earlier versions wrote it into the note
WITHOUT_FIGURES = (Verdict.INCONCLUSIVE, Verdict.SHAPE, Verdict.DTYPE, Verdict.EXTRA, Verdict.MISSING)


@dataclass(frozen=True)
class TensorResult:
    """One compared array; errors are absolute, in the tensor's unit.

    Attributes:
        budget: the multiple of the noise floor that is allowed; ``floor_*`` is that floor.
        minimum_budget: the smallest multiple that would have passed.
        over: elements beyond the allowance.
        actual, expected: the two values at ``worst_index``, where the tensor diverged or is one number.
        nonfinite: values that are a NaN or an infinity in either engine.
        rows: of a table, (row, smallest multiple that would have passed) for every one.
        detail: a closer look, at what diverged and at the worst of what passed.
        deviation: reason and link of the known deviation by which alone it passes; empty where there is none.
    """

    name: str
    verdict: Verdict
    shape: tuple[int, ...] = ()
    max_abs: float = 0.0
    rms: float = 0.0
    rel_rms: float = 0.0
    budget: float = 0.0
    minimum_budget: float = 0.0
    worst_index: tuple[int, ...] = ()
    count: int = 0
    over: int = 0
    floor_max: float = 0.0
    floor_rms: float = 0.0
    expected_rms: float = 0.0
    unit: str = ""
    kind: str = "whole"
    actual: float | None = None
    expected: float | None = None
    note: str = ""
    nonfinite: int = 0
    rows: tuple[tuple[str, float], ...] = ()
    detail: Detail | None = None
    deviation: str = ""

    @property
    def remark(self) -> str:
        """What is to be said of it: its note, and the known deviation."""
        known = f"{KNOWN_DEVIATION}: {self.deviation}" if self.deviation else ""
        return "; ".join(filter(None, (known, self.note)))

    @property
    def used(self) -> float:
        """How much of its budget it used, 1 being all of it; infinite where a failure has no such figure."""
        if self.verdict in (*WITHOUT_FIGURES, Verdict.NONFINITE) or math.isnan(self.minimum_budget):
            return math.inf
        if self.minimum_budget == 0.0:
            return 0.0
        return self.minimum_budget / self.budget if self.budget else math.inf

    @property
    def severity(self) -> tuple[bool, float, int, bool]:
        """The sorting key of what to look at: failures, then budget used, then the graver verdict."""
        return not self.verdict.passes, self.used, list(Verdict).index(self.verdict), self.budget > 0.0


@dataclass(frozen=True)
class DecisionResult:
    """One judged choice; margins and noise are differences of scores.

    Attributes:
        count: how many indices the truth chose.
        smallest_margin: how close the truth's own choice was (scores).
        smallest_iou_margin: the same for the IoU threshold of an NMS.
        noise: by how much noise may move a score difference here.
        needed: the tolerance that would have certified every flip.
        note: a cliff, or why the frozen choice could not be forced.
        swaps: the flipped indices, ten at most; ``picture`` is the image that their boxes lie on, a data URI.
    """

    kind: str
    name: str
    verdict: Verdict
    count: int = 0
    flips: int = 0
    certified: int = 0
    uncertified: int = 0
    smallest_margin: float | None = None
    smallest_iou_margin: float | None = None
    noise: float = 0.0
    needed: float = 0.0
    note: str = ""
    swaps: tuple[Swap, ...] = ()
    picture: str = ""


@dataclass(frozen=True)
class StageResult:
    """One stage of one record in one mode, dtype and device.

    ``error`` says why it could not be run at all; there are no tensors then, and it does not pass. ``inconclusive``
    says why there was nothing to run: a record that is missing.
    """

    case: str
    record: str
    stage: str
    mode: str
    dtype: str
    device: str
    seconds: float
    tensors: tuple[TensorResult, ...]
    decisions: tuple[DecisionResult, ...] = ()
    notes: tuple[str, ...] = ()
    error: str = ""
    inconclusive: str = ""

    @property
    def verdict(self) -> Verdict:
        """The worst of its tensors and decisions; ``missing`` where no tensor was compared."""
        if self.inconclusive:
            return Verdict.INCONCLUSIVE
        if self.error or not self.tensors:
            return Verdict.MISSING
        return worst([*(t.verdict for t in self.tensors), *(d.verdict for d in self.decisions)])

    @property
    def used(self) -> float:
        """The greatest share of its budget that a tensor used, 1 being all; infinite where there is no such figure."""
        return max((tensor.used for tensor in self.tensors), default=math.inf)

    @property
    def id(self) -> str:
        """The pytest id: ``case-record-stage-mode-dtype-device``."""
        return "-".join((self.case, self.record, self.stage, self.mode, self.dtype, self.device))

    def worst_tensors(self) -> list[TensorResult]:
        """Return the tensors in the order to look at them, worst first."""
        return sorted(self.tensors, key=lambda tensor: tensor.severity, reverse=True)


@dataclass(frozen=True)
class Report:
    """All results of one run, with both engines' environments; ``seconds`` is its wall time, 0 where unknown."""

    environment: Mapping[str, Any]
    results: Sequence[StageResult] = field(default_factory=tuple)
    seconds: float = 0.0

    @property
    def verdict(self) -> Verdict:
        """The worst of all stages; ``missing`` where nothing was compared."""
        return worst(result.verdict for result in self.results)


def to_json(report: Report) -> str:
    """Return the report as JSON; an infinite figure is written as the string ``"inf"``."""
    results = [stage_to_json(result) for result in report.results]
    environment = _writable(dict(report.environment))
    whole = {"schema": SCHEMA, "environment": environment, "seconds": report.seconds, "results": results}
    return json.dumps(whole, indent=1, allow_nan=False) + "\n"


def _writable(value: Any) -> Any:
    """Return the value with floats that JSON lacks as strings."""
    if isinstance(value, dict):
        return {key: _writable(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_writable(inner) for inner in value]
    if isinstance(value, Verdict):  # a plain string: xdist carries nothing else
        return value.value
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def stage_from_json(plain: Mapping[str, Any]) -> StageResult:
    """Return one stage's result from its JSON object."""
    known = _known(StageResult, plain)
    known["tensors"] = tuple(TensorResult(**_known(TensorResult, _read(tensor))) for tensor in plain["tensors"])
    known["decisions"] = tuple(DecisionResult(**_known(DecisionResult, _read(one))) for one in plain["decisions"])
    known["notes"] = tuple(plain.get("notes", ()))
    return StageResult(**known)


def _known(kind: type[Any], plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return what this version knows of an object: a later one may add properties without a new schema number."""
    names = {each.name for each in fields(kind)}
    return {name: value for name, value in plain.items() if name in names}


def stage_to_json(result: StageResult) -> dict[str, Any]:
    """Return one stage's result as a JSON object."""
    plain: dict[str, Any] = _writable({**asdict(result), "verdict": result.verdict})
    for part in (*plain["tensors"], *plain["decisions"]):
        for key in [key for key in _ONLY_IF_ANY if key in part and not part[key]]:
            del part[key]
    return plain


_TEXTS = ("name", "note", "unit", "deviation")
# What few tensors and decisions have: left out where there is nothing of it.
_ONLY_IF_ANY = ("nonfinite", "rows", "detail", "deviation", "swaps", "picture")


def _read(plain: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {
        key: float(value) if value in ("inf", "-inf", "nan") and key not in _TEXTS else value
        for key, value in plain.items()
    }
    values["verdict"] = Verdict(values["verdict"])
    note = values.get("note", "")
    if "shape" in values and "deviation" not in values and note.startswith(f"{KNOWN_DEVIATION}: "):
        values["deviation"], values["note"] = note.removeprefix(f"{KNOWN_DEVIATION}: "), ""
    for key in ("shape", "worst_index"):
        if key in values:
            values[key] = tuple(values[key])
    if "rows" in values:
        values["rows"] = tuple((str(name), float(needed)) for name, needed in values["rows"])
    if "detail" in values:
        values["detail"] = detail_from_json(values["detail"])
    if "swaps" in values:
        values["swaps"] = tuple(swap_from_json(swap) for swap in values["swaps"])
    return values


def read_report(path: Path) -> Report:
    """Return the report written in ``path``, a results file of this schema or an earlier one, or a run's folder.

    Raises:
        ParityError: it is missing, cut short, or of a newer schema.
    """
    path = path / RESULTS if path.is_dir() else path
    try:
        plain = json.loads(path.read_text("utf-8"))
        schema = plain["schema"]
    except DAMAGE as error:
        raise ParityError(f"{path} is no results file ({error}): `parity check --json FILE` writes one") from None
    if schema not in range(1, SCHEMA + 1):
        newer = isinstance(schema, int) and schema > SCHEMA
        what = "update parity, it was written by a newer one" if newer else "run `parity check` again"
        raise ParityError(f"{path} has schema {schema!r}, this version reads 1 to {SCHEMA}: {what}")
    try:
        results = tuple(stage_from_json(result) for result in plain["results"])
        msgspec.convert(msgspec.to_builtins(results), tuple[StageResult, ...])  # names are text, figures numbers
        environment = msgspec.convert(plain["environment"], dict[str, Any])
        report = Report(environment, results, float(plain.get("seconds", 0.0)))
        if not all(math.isfinite(seconds) for seconds in (report.seconds, *(result.seconds for result in results))):
            raise ValueError("a time is not finite")
        return report
    except (*DAMAGE, msgspec.ValidationError) as error:
        raise ParityError(f"{path} is damaged ({type(error).__name__}: {error}): run `parity check` again") from None
