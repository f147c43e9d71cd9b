"""Judge the values of one array against what it is allowed: a whole tensor, a digest of it, or a row of a table."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from parity.compare.budgets import Allowance
from parity.compare.tensors import measure, relative
from parity.compare.verdicts import Verdict
from parity.report.results import TensorResult


def judge_values(
    blank: TensorResult,
    actual: Tensor,
    expected: Tensor,
    *,
    allowed: Allowance,
    expected_rms: float,
    exact: bool = False,
) -> TensorResult:
    """Return the result with its verdict and all figures; both values are shown of a number, and of what fails.

    Args:
        blank: what is known before the values are.
        expected_rms: of the whole tensor, where ``expected`` is a digest.
        exact: nothing is allowed, whatever ``allowed`` says: indices, masks and words.
    """
    found = measure(actual, expected, allowance=0.0 if exact else allowed.max)
    needed = found.max_abs if exact else allowed.needed(max_abs=found.max_abs, rms=found.rms)
    if not found.finite:
        verdict = Verdict.NONFINITE
    elif found.max_abs == 0.0:
        verdict = Verdict.EQUAL
    elif not exact and needed <= allowed.multiple:
        verdict = Verdict.WITHIN_BUDGET
    else:
        verdict = Verdict.DIVERGED
    show = found.count == 1 or (not verdict.passes and found.worst_index)
    return replace(
        blank,
        verdict=verdict,
        max_abs=found.max_abs,
        rms=found.rms,
        rel_rms=relative(found.rms, expected_rms),
        budget=0.0 if exact else allowed.multiple,
        minimum_budget=needed,
        worst_index=found.worst_index,
        count=found.count,
        over=found.over,
        floor_max=allowed.floor.max,
        floor_rms=allowed.floor.rms,
        expected_rms=expected_rms,
        actual=float(actual[found.worst_index]) if show else None,
        expected=float(expected[found.worst_index]) if show else None,
        nonfinite=found.nonfinite,
    )
