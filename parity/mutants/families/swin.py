"""Swin-L, the backbone of the largest DDQ DETR."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu

from parity.mutants.base import Mutant
from parity.mutants.edits import constant, first_operand
from parity.mutants.families.common import SWIN, through_half, zeros
from parity.mutants.plant import Plant, edited, output_of, parameter, set_attribute, swap

WINDOWS = "mmdet.models.backbones.swin:WindowMSA.forward"
SHIFTED = "mmdet.models.backbones.swin:ShiftWindowMSA.forward"


def bug(label: str, plant: Plant, why: str) -> Mutant:
    """Return a mutant of this backbone."""
    return Mutant(f"swin-{label}", "backbone", (SWIN,), plant, why)


def original_order(weight: Tensor) -> Tensor:
    """Return the weight of a patch merging in the order of the original repository: unfolded by patch first."""
    out, inside = weight.shape
    return weight.view(out, inside // 4, 4)[..., [0, 2, 1, 3]].transpose(1, 2).reshape(out, inside)


def reversed_shift(size: int) -> int:
    """Return another shift of the windows."""
    return max(0, size - 1)


def tanh(value: Any) -> Tensor:
    """Return the difference that GELU's approximation makes, added before the exact one."""
    return torch.as_tensor(value + (gelu(value, approximate="tanh") - gelu(value)))


MUTANTS = (
    bug("no-relative-bias", edited(WINDOWS, first_operand("+", 0)), "no relative position bias"),
    bug("mask-weak", edited(SHIFTED, constant(100.0, 10.0)), "masked pairs at -10 for -100"),
    bug(
        "shift",
        set_attribute("backbone.stages.*.blocks.1.attn", "shift_size", reversed_shift),
        "windows shifted by less",
    ),
    bug(
        "scale",
        set_attribute("backbone.stages.2.blocks.7.attn.w_msa", "scale", lambda s: s * (1 + 1e-6)),
        "a scale off",
    ),
    bug("norm-eps", set_attribute("backbone.norm?", "eps", 1e-6), "timm's eps of layer norm"),
    bug("block-norm-eps", set_attribute("backbone.stages.2.blocks.17.norm1", "eps", 1e-6), "timm's eps in one block"),
    bug("tanh", output_of("backbone.stages.0.blocks.0.ffn.layers.0.0", tanh), "GELU's approximation in one block"),
    bug(
        "merging-order",
        parameter("backbone.stages.1.downsample.reduction.weight", original_order),
        "the original's order of patches (swin_converter)",
    ),
    bug(
        "norms-swapped",
        swap("backbone.stages.3.blocks.0.norm1.weight", "backbone.stages.3.blocks.0.norm2.weight"),
        "two scales of one shape in each other's place",
    ),
    bug("key-bias", parameter("backbone.stages.2.blocks.3.attn.w_msa.qkv.bias", zeros), "qkv without bias"),
    bug("half", output_of("backbone.stages.2.blocks.10", through_half), "one block in half precision"),
)
