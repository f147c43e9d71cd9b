"""What the scripts of a run's page draw: every check with its tensors and decisions, compact, as JSON."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from parity.cases.registry import all_cases
from parity.records.kinds import INFERENCE
from parity.report.checks import Check
from parity.report.figures import index, tensor_name, values, word
from parity.report.order import rerun
from parity.report.results import WITHOUT_FIGURES, DecisionResult, TensorResult

# One list a tensor instead of one object: thousands of them repeat no names.
FIELDS = (
    *("name", "kind", "verdict", "passes", "word", "shape", "unit", "max", "allowed", "rms", "allowedRms", "relative"),
    *("needed", "budget", "used", "at", "actual", "expected", "over", "count", "note", "nonfinite", "detail", "rows"),
)
KINDS = {"samples": "sampled values", "projections": "sums over blocks", "sketch": "sketch", "row": "one row"}


def run_data(checks: Sequence[Check], located: Mapping[tuple[str, str], str]) -> Markup:
    """Return the checks as JSON that may stand inside a script element.

    Args:
        located: (case, stage) -> what ``parity locate`` told of it.
    """
    plain = {"fields": FIELDS, "checks": [_check(check, located) for check in checks]}
    dumps = partial(json.dumps, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return htmlsafe_json_dumps(plain, dumps=dumps)


def _check(check: Check, located: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    result = check.result
    return {
        "number": check.number,
        **{key: getattr(result, key) for key in ("case", "record", "stage", "mode", "dtype", "device", "seconds")},
        "kind": check.kind,
        "verdict": word(result.verdict),
        "passes": check.passes,
        "why": check.why,
        "share": check.share,
        "used": figure(result.used),
        "error": figure(check.error),
        "floor": figure(check.floor),
        "budget": figure(check.budget),
        "worst": "" if check.tensor is None else tensor_name(check.tensor),
        "rerun": rerun(result),
        "locate": locate_command(check),
        "located": located.get((result.case, result.stage), ""),
        "notes": list(result.notes),
        "tensors": [_tensor(tensor) for tensor in check.worst],
        "decisions": [_decision(decision) for decision in result.decisions],
    }


def _tensor(tensor: TensorResult) -> list[Any]:
    shows = tensor.verdict not in WITHOUT_FIGURES
    actual, expected = values(tensor)
    both = tensor.actual is not None or tensor.expected is not None
    row = (
        tensor_name(tensor),
        KINDS.get(tensor.kind, "" if tensor.kind == "whole" else tensor.kind),
        tensor.verdict.value,
        tensor.verdict.passes,
        word(tensor.verdict),
        list(tensor.shape),
        tensor.unit,
        figure(tensor.max_abs if shows else None),
        figure(tensor.budget * tensor.floor_max if shows else None),
        figure(tensor.rms if shows else None),
        figure(tensor.budget * tensor.floor_rms if shows else None),
        figure(tensor.rel_rms if shows else None),
        figure(tensor.minimum_budget if shows else None),
        figure(tensor.budget if shows else None),
        figure(tensor.used),
        index(tensor),
        actual if both else "",
        expected if both else "",
        tensor.over,
        tensor.count,
        tensor.remark,
        tensor.nonfinite,
        None if tensor.detail is None else _plain(asdict(tensor.detail)),
        [[name, figure(needed)] for name, needed in tensor.rows],
    )
    return list(row)


def _decision(decision: DecisionResult) -> dict[str, Any]:
    plain: dict[str, Any] = _plain(asdict(decision))
    return {**plain, "passes": decision.verdict.passes, "word": word(decision.verdict)}


def _plain(value: Any) -> Any:
    """Return a value with rounded figures, and text for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return figure(value, 9) if isinstance(value, float) else value


def figure(value: float | None, digits: int = 5) -> float | str | None:
    """Return a figure rounded to what a page shows; what is not finite as text.

    >>> figure(1.23456789), figure(math.inf), figure(None)
    (1.2346, 'inf', None)
    """
    if value is None:
        return None
    return float(f"{value:.{digits}g}") if math.isfinite(value) else str(value)


def locate_command(check: Check) -> str:
    """Return the command that looks inside the stage; nothing where it passed, or has no modules to look at."""
    result = check.result
    case = all_cases().get(result.case)
    inside = case is not None and result.stage in {stage.name for stage in case.stages}
    if check.passes or check.kind != INFERENCE or case is None or not inside:
        return ""
    record = f" --record {shlex.quote(result.record)}" if result.record in case.records else ""
    return f"parity locate {result.case} --stage {result.stage}{record} --legacy-root DIR"
