"""The order in which people look at results: as the detector runs, the sharper check first."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from parity.cases.registry import all_cases
from parity.records.kinds import DTYPES, MODES
from parity.report.results import StageResult


def stage_order(results: Sequence[StageResult]) -> list[str]:
    """Return the stages in the order of the detector: as its case declares them, else as they came."""
    known = all_cases()
    order: list[str] = []
    for case in unique(result.case for result in results):
        came = [result.stage for result in results if result.case == case]
        names = unique([*(known[case].stage_names() if case in known else ()), *came])
        for before, name in zip([None, *names], names, strict=False):
            if name not in order:  # a stage that other cases lack goes right behind the one before it
                order.insert(order.index(before) + 1 if before else 0, name)
    return [stage for stage in order if any(result.stage == stage for result in results)]


def in_order(results: Sequence[StageResult]) -> list[StageResult]:
    """Return the results by case and stage, float64 before float32, isolated before cascade.

    Workers of a parallel run hand theirs in as they end: the first that diverged is not the first that came.
    """
    stages, cases = stage_order(results), unique(result.case for result in results)
    return sorted(results, key=lambda r: (cases.index(r.case), *place(r, stages)))


def place(result: StageResult, stages: Sequence[str]) -> tuple[int, int, int]:
    """Return the sorting key: by stage, float64 before float32, isolated before cascade."""
    return stages.index(result.stage), rank(result.dtype, DTYPES), rank(result.mode, MODES)


def rank(name: str, known: Sequence[str]) -> int:
    """Return the place of a name among the known ones; others come last."""
    return known.index(name) if name in known else len(known)


def rerun(result: StageResult) -> str:
    """Return the command that runs just this check again.

    >>> rerun(StageResult("ddq", "padded", "decoder", "isolated", "fp64", "cpu", 1.0, ()))
    'pytest parity -k "ddq-padded-decoder-isolated-fp64-cpu"'
    """
    quoted = f'"{result.id}"' if shlex.quote(result.id) == result.id else shlex.quote(result.id)
    return f"pytest parity -k {quoted}" + ("" if result.device == "cpu" else f" --device {shlex.quote(result.device)}")


def unique(names: Iterable[str]) -> list[str]:
    """Return each name once, in the order in which they came."""
    return list(dict.fromkeys(names))
