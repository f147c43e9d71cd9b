"""What of a checkpoint a user has to know beside its weights, a line for each thing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from parity.text import shown
from parity.weights.averages import Average


def about_averages(places: list[Average], chosen: Average | None, *, option: str) -> Iterator[str]:
    """Say where averaged weights are, and which are taken of several.

    Args:
        option: what takes the averaged ones, such as ``--ema``.
    """
    names = [shown(average.place)[1:-1] for average in places]
    if chosen and len(names) > 1:
        others = ", ".join(name for name, average in zip(names, places, strict=True) if average is not chosen)
        where = f"averaged (EMA) weights are in {len(names)} places"
        yield f"{where}: those of {shown(chosen.place)[1:-1]} are taken; {option}-from takes {others}"
    if places and not chosen:
        several = f", {option}-from PLACE those of one place" if len(names) > 1 else ""
        yield f"the file has averaged (EMA) weights, too, in {', '.join(names)}: {option} takes them{several}"


def about_values(state: Mapping[str, Tensor]) -> Iterator[str]:
    """Say what of the values a float32 model does not expect."""
    by_dtype: dict[torch.dtype, list[str]] = {}
    for name, value in state.items():
        if _is_real(value) and value.dtype is not torch.float32:
            by_dtype.setdefault(value.dtype, []).append(name)
    for dtype, names in by_dtype.items():
        kind = str(dtype).removeprefix("torch.")
        yield f"{len(names)} of {len(state)} tensors are {kind}, such as {shown(names[0])}: they stay {kind}"
    wrong = {name: count for name, value in state.items() if (count := _not_finite(value))}
    if wrong:
        first = next(iter(wrong))
        of = f"{wrong[first]} of {state[first].numel()} values of {shown(first)}"
        yield f"{len(wrong)} tensors hold NaN or infinities, such as {of}: they stay so"


def _is_real(value: Tensor) -> bool:
    return value.is_floating_point() or value.is_complex()


def _not_finite(value: Tensor) -> int:
    """Return how many values are NaN or infinite."""
    if not _is_real(value):
        return 0
    narrow = value.dtype.itemsize == 1  # float8, which torch.isfinite does not take
    return value.numel() - int(torch.isfinite(value.to(torch.float32) if narrow else value).sum())
