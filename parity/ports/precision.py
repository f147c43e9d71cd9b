"""Where half precision would not do: one rule for autocast and for models in half."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return a half or bfloat16 tensor as float32, any other as it is: float64 stays float64.

    >>> at_least_float32(torch.ones(1, dtype=torch.float16)).dtype
    torch.float32
    >>> at_least_float32(torch.ones(1, dtype=torch.float64)).dtype
    torch.float64
    """
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def no_autocast(tensor: Tensor) -> torch.autocast:
    """Return a block without autocast: binary cross entropy on probabilities refuses to run under it."""
    return torch.autocast(tensor.device.type, enabled=False)
