"""Compare a table: one row a parameter, each judged by itself.

A row of a gradient's sketch is as far off, relative to its size, as the gradient itself (see
``taps.sketch``), so a row is judged as any tensor is: against its own size and its own noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from parity.compare.budgets import Noise, allowance
from parity.compare.tensors import measure
from parity.compare.values import judge_values
from parity.compare.verdicts import Verdict, worst
from parity.records.store import family
from parity.report.results import TensorResult

SHOWN = 5  # worst rows that are listed though they pass
SHOWN_FAILED = 50


@dataclass(frozen=True)
class Table:
    """A table of the truth.

    Attributes:
        values: (P, W), one row each of ``rows``.
        noise: (P, 2), the greatest and the RMS float32 error of every row; ``None`` for exact ones.
    """

    name: str
    rows: Sequence[str]
    values: Tensor
    noise: Tensor | None
    unit: str = ""


def compare_table(
    actual: Tensor, actual_rows: Sequence[str], truth: Table, *, dtype: str, mode: str, stage: str
) -> list[TensorResult]:
    """Judge every row; return one result for the whole table, then those of its worst rows.

    The table's own result has the figures of its worst row, ``count`` rows and ``over`` of them that fail.
    """
    found = dict(zip(actual_rows, actual, strict=True))
    noise = _pooled_noise(truth)
    judged = [
        _judge_row(truth, index, found.get(row), noise[index], dtype=dtype, mode=mode, stage=stage)
        for index, row in enumerate(truth.rows)
    ]
    judged += [
        TensorResult(f"{truth.name}[{row}]", Verdict.EXTRA, kind="row", note="the legacy engine has no such row")
        for row in sorted(set(actual_rows) - set(truth.rows))
    ]
    judged.sort(key=lambda result: result.severity, reverse=True)
    failed = [result for result in judged if not result.verdict.passes]
    return [_summary(truth, judged, len(failed)), *(failed[:SHOWN_FAILED] or judged[:SHOWN])]


def _summary(truth: Table, judged: Sequence[TensorResult], failed: int) -> TensorResult:
    if not judged:
        return TensorResult(
            truth.name, Verdict.MISSING, kind="table", note="the table has no rows: nothing was compared"
        )
    return replace(
        judged[0],
        name=truth.name,
        verdict=worst(result.verdict for result in judged),
        shape=tuple(truth.values.shape),
        kind="table",
        rows=tuple((row_of(result), result.minimum_budget) for result in judged),
        count=len(judged),
        over=failed,
        note=f"worst row: {judged[0].name}" + (f"; {judged[0].note}" if judged[0].note else ""),
    )


def row_of(result: TensorResult) -> str:
    """Return which row of its table a result is of.

    >>> row_of(TensorResult("gradients[neck.bias]", Verdict.EQUAL))
    'neck.bias'
    """
    return result.name.partition("[")[2].removesuffix("]")


def _judge_row(
    truth: Table, index: int, actual: Tensor | None, noise: Noise, *, dtype: str, mode: str, stage: str
) -> TensorResult:
    expected = truth.values[index]
    blank = TensorResult(
        f"{truth.name}[{truth.rows[index]}]", Verdict.MISSING, tuple(expected.shape), unit=truth.unit, kind="row"
    )
    if actual is None:
        return replace(blank, note="the new engine has no such row")
    if actual.shape != expected.shape:
        return replace(blank, verdict=Verdict.SHAPE, note=f"shape {tuple(actual.shape)}")
    size = measure(torch.zeros_like(expected), expected)
    allowed = allowance(
        dtype, mode, stage=stage, expected_max=size.expected_max, expected_rms=size.expected_rms, measured=noise
    )
    return judge_values(blank, actual.double(), expected.double(), allowed=allowed, expected_rms=size.expected_rms)


def _pooled_noise(truth: Table) -> list[Noise]:
    """Return the noise of every row: the greatest, relative to its size, of all rows that differ in numbers only.

    A floor is as good as its sample, and four float32 runs of a parameter with one element are few: so the
    layers and levels of one parameter share theirs.
    """
    if truth.noise is None:
        return [Noise(0.0, 0.0)] * len(truth.rows)
    values = truth.values.double()
    sizes = torch.stack([values.abs().amax(1), values.square().mean(1).sqrt()], 1)
    shares = torch.where(sizes > 0.0, truth.noise.double() / sizes, torch.zeros_like(sizes))
    pooled: dict[str, Tensor] = {}
    for row, share in zip(truth.rows, shares, strict=True):
        pooled[family(row)] = torch.maximum(share, pooled.get(family(row), share))
    floors = []
    for row, size, own in zip(truth.rows, sizes, truth.noise.double(), strict=True):
        floor = torch.maximum(pooled[family(row)] * size, own)
        floors.append(Noise(float(floor[0]), float(floor[1])))
    return floors
