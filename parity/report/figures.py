"""Figures as people read them."""

from __future__ import annotations

import math

from parity.compare.verdicts import Verdict
from parity.records.locate import BLOCK
from parity.report.results import TensorResult

NO_FIGURE, TIMES = "\N{EN DASH}", "\N{MULTIPLICATION SIGN}"
VERDICT_WORDS = {Verdict.SHAPE: "wrong shape", Verdict.DTYPE: "wrong dtype", Verdict.NONFINITE: "not finite"}


def number(value: float | None, digits: int = 3) -> str:
    """Return a figure for people.

    >>> [number(x) for x in (0.0, 5.748, 9000.0, 0.00001234, math.inf)]
    ['0', '5.75', '9,000', '1.23e-5', '∞']
    """
    if value is None:
        return NO_FIGURE
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "∞" if value > 0 else "-∞"
    if value == 0.0 or 1e-3 <= abs(value) < 10.0**digits:
        return f"{value:.{digits}g}"
    if 1e-3 <= abs(value) < 1e6:
        return f"{value:,.0f}"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def index(tensor: TensorResult) -> str:
    """Return where the greatest error is; of block sums, the range of the tensor's flattened elements."""
    if not tensor.worst_index:
        return NO_FIGURE
    if tensor.kind == "projections":
        first = tensor.worst_index[0] * BLOCK
        return f"flat {first:,} to {first + BLOCK - 1:,}"
    return f"[{', '.join(map(str, tensor.worst_index))}]"


def values(tensor: TensorResult) -> tuple[str, str]:
    """Return actual and expected with as many digits as it takes to tell them apart, six at least.

    >>> values(TensorResult("x", Verdict.DIVERGED, actual=0.30000000001, expected=0.3))
    ('0.30000000001', '0.30000000000')
    """
    actual, expected = tensor.actual, tensor.expected
    if actual is None or expected is None or actual == expected or not math.isfinite(actual + expected):
        return number(actual, 6), number(expected, 6)
    for digits in range(6, 18):
        pair = f"{actual:#.{digits}g}", f"{expected:#.{digits}g}"
        if pair[0] != pair[1]:
            break
    return pair[0].removesuffix("."), pair[1].removesuffix(".")


def word(verdict: Verdict) -> str:
    """Return a verdict as people say it."""
    return VERDICT_WORDS.get(verdict, verdict.value.replace("_", " "))


def duration(seconds: float) -> str:
    """Return a time for people.

    >>> duration(0.0123), duration(75.2)
    ('0.012 s', '1 min 15 s')
    """
    if seconds < 60.0:
        return f"{seconds:.2g} s" if seconds < 10.0 else f"{seconds:.0f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def tensor_name(tensor: TensorResult) -> str:
    """Return a tensor's name without the suffix that says how it was kept."""
    return tensor.name.removesuffix(f"#{tensor.kind}")
