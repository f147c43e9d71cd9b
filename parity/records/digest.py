"""What is kept of a tensor that no stage needs as an input: entries, and sums that cover all the others.

``samples`` are entries at seeded places. ``projections`` are one signed sum for every block of 64
consecutive elements, signs seeded, so each element enters exactly one: an error in a single element
moves its block's sum by just as much, and one spread over many elements moves many sums. A ``sketch``
(see ``taps.sketch``) is 64 such sums for all of a tensor.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from parity.records.locate import BLOCK
from parity.taps.sketch import WIDTH, generator, signs, sketch

SAMPLES = 2048
ISLAND_SAMPLES = 256
WHOLE_UP_TO = 16384  # elements: a smaller tensor is kept whole


def sample_indices(name: str, count: int) -> Tensor:
    """Return the flat places, int64 (SAMPLES,), that are kept of a tensor of ``count`` elements."""
    raw = generator(name, "samples").random_raw(SAMPLES)
    return torch.from_numpy((raw % np.uint64(count)).astype(np.int64))


def samples(name: str, tensor: Tensor) -> Tensor:
    """Return (SAMPLES,) entries of ``tensor``, in its own dtype."""
    return tensor.reshape(-1)[sample_indices(name, tensor.numel())]


def island_samples(name: str, tensor: Tensor) -> Tensor:
    """Return the first ISLAND_SAMPLES of the samples, float64: enough to tell islands apart."""
    return samples(name, tensor)[:ISLAND_SAMPLES].double()


def projections(name: str, tensor: Tensor) -> Tensor:
    """Return (ceil(elements / BLOCK),) float64 signed block sums, over the root of the block's length.

    With that factor independent errors leave a sum as large as each of them is.
    """
    flat = tensor.reshape(-1).double() * signs(name, tensor.numel())
    padded = torch.nn.functional.pad(flat, (0, -flat.numel() % BLOCK))
    sums: Tensor = padded.view(-1, BLOCK).sum(1) / BLOCK**0.5
    return sums


KINDS = {"samples": samples, "projections": projections, "sketch": sketch}


def kinds_for(tensor: Tensor, *, needed_whole: bool, small: bool = False) -> tuple[str, ...]:
    """Return how a tensor is kept: ``whole``, or ``samples`` and ``projections``.

    With ``small`` a ``sketch`` stands for the projections, of which there is one for every BLOCK elements. In float64
    it tells a wrong element all the same: divided among thousands an error is still far above what is allowed.
    """
    if needed_whole or tensor.numel() <= WHOLE_UP_TO or not tensor.is_floating_point():
        return ("whole",)
    return ("samples", "sketch" if small else "projections")


def kept(kind: str, name: str, tensor: Tensor) -> Tensor:
    """Return what a record keeps of ``tensor`` under ``kind``."""
    return tensor if kind == "whole" else KINDS[kind](name, tensor)


def sketch_or_whole(tensor: Tensor) -> tuple[str, ...]:
    """Return how a training record keeps a tensor: no stage is replayed from it, so a sketch is enough."""
    return ("sketch",) if tensor.is_floating_point() and tensor.numel() > WIDTH else ("whole",)
