"""What the built-in mutants share: case ids and small functions of tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

DETR_4, DETR_5, SWIN = "ddq_detr_4scale_r50_12e", "ddq_detr_5scale_r50_12e", "ddq_detr_4scale_swinl_30e"
FCN_12, FCN_36 = "ddq_fcn_r50_12e", "ddq_fcn_r50_36e"
RCNN_12, RCNN_36 = "ddq_rcnn_r50_12e", "ddq_rcnn_r50_36e"


def through_half(value: Any) -> Any:
    """Return a tensor, or each of a tuple, rounded to half precision and back."""
    if isinstance(value, tuple):
        return tuple(through_half(element) for element in value)
    # Not .to(float32): in a float64 run that would be lifted as an island.
    return value.to(torch.float16).to(value.dtype)


def reversed_channels(value: Tensor) -> Tensor:
    """Return a tensor with its first axis reversed."""
    return value.flip(0)


def zeros(value: Tensor) -> Tensor:
    """Return zeros: a parameter that was never loaded."""
    return torch.zeros_like(value)


def ones(value: Tensor) -> Tensor:
    """Return ones: a scale that was never loaded."""
    return torch.ones_like(value)
