"""A closer look at one comparison: where in the tensor the errors are, how they spread, and the worst values."""

from __future__ import annotations

import base64
import math

import torch
from torch import Tensor

from parity.compare.tensors import unravel
from parity.report.details import Detail, Element, ErrorMap, Histogram

WORST = 10
BINS_A_DECADE = 2
NOTHING, EXACT, LOWEST, HIGHEST, NOT_FINITE = 0, 1, 2, 254, 255  # levels of a map


def detail(actual: Tensor, expected: Tensor, *, of_shape: tuple[int, ...], places: Tensor | None, side: int) -> Detail:
    """Return a closer look at how ``actual`` differs from ``expected``, of one shape.

    Args:
        of_shape: the tensor that the values belong to.
        places: int64, the flat place of each value in it; ``None`` where the values have none, as in a sketch.
        side: a map has so many bins down and across at most.
    """
    ours, theirs = actual.reshape(-1).double(), expected.reshape(-1).double()
    error = (ours - theirs).abs()
    error[~(ours.isfinite() & theirs.isfinite())] = math.nan
    order = error.nan_to_num(nan=math.inf).argsort(descending=True, stable=True)[:WORST].tolist()
    shape = tuple(actual.shape) if places is None else of_shape
    at = order if places is None else places[order].tolist()
    elements = [
        Element(unravel(flat, shape), float(ours[row]), float(theirs[row]))
        for flat, row in zip(at, order, strict=True)
        if error[row] != 0.0
    ]
    drawn = None if places is None or math.prod(of_shape) < 2 else error_map(error, places, of_shape, side=side)
    return Detail(histogram(error), tuple(elements), drawn)


def histogram(error: Tensor) -> Histogram:
    """Return how many errors, float64 (N,) with NaN for what is not finite, lie in which half decade.

    >>> histogram(torch.tensor([0.0, 1.0, 2.0, 5.0, math.nan]))
    Histogram(exact=1, nonfinite=1, first=0.0, counts=(2, 1))
    """
    some = error[error > 0.0]
    exact, broken = int((error == 0.0).sum()), int(error.isnan().sum())
    if not len(some):
        return Histogram(exact, broken, 0.0, ())
    bins = (some.log10() * BINS_A_DECADE).floor().long()
    counts = torch.bincount(bins - bins.min())
    return Histogram(exact, broken, float(bins.min()) / BINS_A_DECADE, tuple(counts.tolist()))


def picture_axes(shape: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Return which axes of a tensor run down its picture and which across.

    The last one runs across, all others down. Of a feature map (N, C, H, W) the images are laid over one another:
    height runs down and width across; where it has fewer places than channels, channels run down and places across.

    >>> picture_axes((2, 256, 20, 30)), picture_axes((2, 256, 1, 3)), picture_axes((2, 900, 4)), picture_axes((7,))
    (([2], [3]), ([1], [2, 3]), ([0, 1], [2]), ([], [0]))
    """
    axes = list(range(len(shape)))
    if len(shape) < 4:
        return axes[:-1], axes[-1:]
    channels, height, width = axes[-3:]
    return ([height], [width]) if shape[height] * shape[width] >= shape[channels] else ([channels], [height, width])


def error_map(error: Tensor, places: Tensor, shape: tuple[int, ...], *, side: int) -> ErrorMap:
    """Return a picture of the errors, float64 (N,) with NaN for what is not finite, at flat ``places`` of a tensor."""
    down, across = picture_axes(shape)
    rows, columns = (math.prod(shape[axis] for axis in axes) for axes in (down, across))
    row, column = _position(places, shape, down), _position(places, shape, across)
    height, width = min(rows, side), min(columns, side)
    cell = (row * height // rows) * width + column * width // columns
    finite = error[error > 0.0]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    levels = torch.zeros(height * width, dtype=torch.int64)
    levels.scatter_reduce_(0, cell, _levels(error, low, high), "amax")
    encoded = base64.b64encode(bytes(levels.tolist())).decode()
    return ErrorMap(height, width, _named(down, shape), _named(across, shape), low, high, encoded)


def _position(places: Tensor, shape: tuple[int, ...], axes: list[int]) -> Tensor:
    """Return where flat places lie along the given axes of a tensor, these flattened to one."""
    position = torch.zeros_like(places)
    for axis in axes:
        step = math.prod(shape[axis + 1 :])
        position = position * shape[axis] + places // step % shape[axis]
    return position


def _levels(error: Tensor, low: float, high: float) -> Tensor:
    """Return the level of every error; see ``ErrorMap``."""
    span = math.log(high / low) if high > low else 0.0
    part = (error.clamp(min=low) / low).log() / span if span else torch.ones_like(error)
    levels = (LOWEST + part.nan_to_num() * (HIGHEST - LOWEST)).round().long().clamp(LOWEST, HIGHEST)
    levels[error == 0.0] = EXACT
    levels[error.isnan()] = NOT_FINITE
    return levels


def _named(axes: list[int], shape: tuple[int, ...]) -> str:
    numbers = ", ".join(str(axis) for axis in axes)
    return f"ax{'e' if len(axes) > 1 else 'i'}s {numbers} ({math.prod(shape[axis] for axis in axes)})" if axes else ""
