"""Which iterations of a schedule matter, and where two schedules differ, in words."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

NEIGHBOURS = 2  # iterations kept on either side of one that matters
SHOWN = 5  # ranges named in a note


def iterations_that_matter(rates: Tensor, epoch_length: int) -> Tensor:
    """Return int64 (R,): where a rate changes, epochs begin and end, the last, and two neighbours of each.

    Args:
        rates: float64 (iterations, groups).
        epoch_length: iterations of one epoch.

    >>> iterations_that_matter(torch.tensor([[1.0]] * 15 + [[0.1]] * 15), 15).tolist()
    [0, 1, 2, 12, 13, 14, 15, 16, 17, 27, 28, 29]
    """
    count = len(rates)
    changes = 1 + (rates[1:] != rates[:-1]).any(1).nonzero()[:, 0]
    begins = torch.arange(0, count, epoch_length)
    places = torch.cat([changes, changes - 1, begins, begins - 1, torch.tensor([count - 1])])
    around = (places[:, None] + torch.arange(-NEIGHBOURS, NEIGHBOURS + 1)).reshape(-1)
    chosen: Tensor = torch.unique(around[(around >= 0) & (around < count)])
    return chosen


def differences(actual: Tensor, expected: Tensor, iterations: Tensor, *, allowance: float) -> tuple[str, ...]:
    """Say at which of the kept iterations the rates differ, and by what at the first and last of each range.

    Args:
        actual, expected: float64 (R, groups), the rates at ``iterations``.
        iterations: int64 (R,).
        allowance: what a rate may be off.
    """
    wrong = ((actual - expected).abs() > allowance).any(1)
    found = list(_ranges(wrong))
    lines = []
    for first, last in found[:SHOWN]:
        pairs = [f"actual {_rates(actual[row])}, expected {_rates(expected[row])}" for row in (first, last)]
        begin, end = int(iterations[first]), int(iterations[last])
        where = f"iterations {begin} to {end}: at {begin} {pairs[0]}; at {end} {pairs[1]}"
        lines.append(f"the learning rate differs at {where if first != last else f'iteration {begin}: {pairs[0]}'}")
    if len(found) > SHOWN:
        lines.append(f"… and in {len(found) - SHOWN} more ranges of iterations")
    return tuple(lines)


def _ranges(wrong: Tensor) -> Iterator[tuple[int, int]]:
    """Yield the first and last row of every run of rows that are wrong."""
    padded = torch.nn.functional.pad(wrong.to(torch.int8), (1, 1)).diff()
    yield from zip((padded == 1).nonzero()[:, 0].tolist(), ((padded == -1).nonzero()[:, 0] - 1).tolist(), strict=True)


def _rates(row: Tensor) -> str:
    return " and ".join(f"{float(rate):.10g}" for rate in row)
