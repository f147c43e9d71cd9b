"""A few numbers that stand for a whole tensor: signed sums over seeded signs.

Every element enters exactly one of ``WIDTH`` sums with a seeded sign (a count sketch). The sum of their
squared differences is an unbiased estimate of the squared difference of the tensors themselves, so a
relative error of a sketch *is* the relative error of the tensor, give or take; one element alone that
is wrong shows in full.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch

WIDTH = 64


def generator(name: str, purpose: str) -> np.random.Philox:
    """Return the seeded stream that belongs to a tensor's name and a purpose."""
    digest = hashlib.sha256(f"{purpose}/{name}".encode()).digest()
    return np.random.Philox(key=int.from_bytes(digest[:16], "little"))


def signs(name: str, count: int) -> torch.Tensor:
    """Return ``count`` seeded signs, float64, one a bit of Philox's stream."""
    words = generator(name, "projections").random_raw(-(-count // 64))
    bits = np.unpackbits(words.astype("<u8").view(np.uint8), count=count, bitorder="little")
    return torch.from_numpy(bits.astype(np.float64) * 2.0 - 1.0)


def sketch(name: str, tensor: torch.Tensor, width: int = WIDTH) -> torch.Tensor:
    """Return (width,) float64 sums of every ``width``-th element times its sign, of the elements' own size.

    Divided by the root of the number of summands, independent elements leave a sum as large as each of them is.
    """
    count = tensor.numel()
    rows = max(1, -(-count // width))
    flat = torch.zeros(rows * width, dtype=torch.float64)
    flat[:count] = tensor.detach().reshape(-1).cpu()
    flat[:count] *= signs(name, count)
    sums: torch.Tensor = flat.view(rows, width).sum(0) / rows**0.5
    return sums
