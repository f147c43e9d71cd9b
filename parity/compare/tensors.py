"""Measure how far two tensors lie apart, in one pass over pieces that fit into the cache."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 1 << 17  # elements: the pieces and their difference stay within the caches of a usual CPU


@dataclass(frozen=True)
class Difference:
    """How ``actual`` differs from ``expected``; every error is absolute, in the tensors' own unit.

    Attributes:
        max_abs, rms: greatest and root-mean-square error.
        expected_max, expected_rms: size of the expected values, that errors are relative to.
        over: how many elements are off by more than the allowance.
        worst_index: where the greatest error is, or the first value that is not finite; empty if there are
            no elements.
        finite: false where either tensor holds a NaN or an infinity; the figures then cover the rest.
        nonfinite: how many such places there are.
    """

    count: int
    max_abs: float
    rms: float
    expected_max: float
    expected_rms: float
    over: int
    worst_index: tuple[int, ...]
    finite: bool
    nonfinite: int = 0

    @property
    def rel_rms(self) -> float:
        """RMS error over the RMS of the expected values."""
        return relative(self.rms, self.expected_rms)


def relative(error: float, size: float) -> float:
    """Return ``error / size``; no error is 0 whatever the size, an error where all is zero is infinite."""
    if error == 0.0:
        return 0.0
    return error / size if size else math.inf


def measure(actual: Tensor, expected: Tensor, *, allowance: float = math.inf) -> Difference:
    """Compare two tensors of one shape, of any dtype and device-independent (both on the CPU).

    Floating tensors of one dtype are subtracted in it (exact where they are close); all else in float64.

    Raises:
        ValueError: the shapes differ.

    >>> measure(torch.tensor([1.0, 2.5]), torch.tensor([1.0, 2.0])).max_abs
    0.5
    """
    if actual.shape != expected.shape:
        raise ValueError(f"shapes differ: {tuple(actual.shape)} and {tuple(expected.shape)}")
    same_floats = actual.dtype == expected.dtype and actual.dtype in (torch.float32, torch.float64)
    dtype = actual.dtype if same_floats else torch.float64
    total = _Sums()
    flat_actual, flat_expected = actual.reshape(-1), expected.reshape(-1)
    buffer = torch.empty(min(CHUNK, flat_actual.numel()), dtype=dtype)
    scratch = buffer if same_floats else torch.empty_like(buffer)
    for start in range(0, flat_actual.numel(), CHUNK):
        stop = min(start + CHUNK, flat_actual.numel())
        error = buffer[: stop - start]
        piece = flat_expected[start:stop]
        if same_floats:
            torch.sub(flat_actual[start:stop], piece, out=error)
        else:
            piece = scratch[: stop - start].copy_(piece)
            error.copy_(flat_actual[start:stop]).sub_(piece)
        total.add(error, piece, start, allowance)
    return total.difference(actual.shape)


class _Sums:
    """What accumulates over the pieces."""

    def __init__(self) -> None:
        self.count = 0
        self.squares = 0.0
        self.expected_squares = 0.0
        self.max_abs = 0.0
        self.expected_max = 0.0
        self.over = 0
        self.worst = -1
        self.finite = True
        self.nonfinite = 0

    def add(self, error: Tensor, expected: Tensor, start: int, allowance: float) -> None:
        self.count += error.numel()
        low, high = (float(x) for x in torch.aminmax(error))
        expected_low, expected_high = (float(x) for x in torch.aminmax(expected))
        squares = float(torch.dot(error, error))
        expected_squares = float(torch.dot(expected, expected))
        too_small = (squares == 0.0 < max(-low, high)) or (expected_squares == 0.0 < max(-expected_low, expected_high))
        if too_small or not math.isfinite(squares + expected_squares):  # NaN, infinity, a square beyond float32
            error, expected = self._finite_part(error, expected, start)
            low, high = float(error.min()), float(error.max())
            expected_low, expected_high = float(expected.min()), float(expected.max())
            squares, expected_squares = float(error @ error), float(expected @ expected)
        self.squares += squares
        self.expected_squares += expected_squares
        self.expected_max = max(self.expected_max, -expected_low, expected_high)
        greatest = max(-low, high)
        if self.finite and (greatest > self.max_abs or self.worst < 0):
            self.worst = start + int(error.abs().argmax())
        self.max_abs = max(self.max_abs, greatest)
        if greatest > allowance:
            self.over += int((error.abs() > allowance).sum())

    def _finite_part(self, error: Tensor, expected: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Return both with zeros where either is not finite; the first such place becomes the worst one."""
        keep = error.isfinite() & expected.isfinite()
        self.nonfinite += int((~keep).sum())
        if self.finite and not bool(keep.all()):
            self.finite = False
            self.worst = start + int((~keep).nonzero()[0])
        return error.double().where(keep, 0.0), expected.double().where(keep, 0.0)

    def difference(self, shape: torch.Size) -> Difference:
        return Difference(
            count=self.count,
            max_abs=self.max_abs,
            rms=math.sqrt(self.squares / self.count) if self.count else 0.0,
            expected_max=self.expected_max,
            expected_rms=math.sqrt(self.expected_squares / self.count) if self.count else 0.0,
            over=self.over,
            worst_index=unravel(self.worst, tuple(shape)) if self.count else (),
            finite=self.finite,
            nonfinite=self.nonfinite,
        )


def unravel(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the index of the ``flat``-th element of a tensor.

    >>> unravel(5, (2, 3))
    (1, 2)
    """
    index: list[int] = []
    for size in reversed(shape):
        index.append(flat % size)
        flat //= size
    return tuple(reversed(index))
