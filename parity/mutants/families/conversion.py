"""Slips in carrying the weights over: the whole state dict, as a converter writes it."""

from __future__ import annotations

import torch
from torch import Tensor

from parity.mutants.base import Mutant
from parity.mutants.families.common import DETR_4, FCN_12, RCNN_12
from parity.mutants.plant import converted

State = dict[str, Tensor]


def half_state(state: State) -> State:
    """Return every weight rounded to half precision: a checkpoint saved small."""
    return {name: value.half().to(value.dtype) if value.is_floating_point() else value for name, value in state.items()}


def without_biases(state: State) -> State:
    """Return convolutions of the neck without their biases."""
    return {name: torch.zeros_like(value) if _is_neck_bias(name) else value for name, value in state.items()}


def _is_neck_bias(name: str) -> bool:
    return name.startswith("neck.") and name.endswith("conv.bias")


def averaged(state: State) -> State:
    """Return weights as an average with a thousandth of something else: EMA for the trained ones."""
    return {name: value * 0.999 if name.startswith("encoder.") else value for name, value in state.items()}


def shared_branches(state: State) -> State:
    """Return all box branches as copies of the first: a detector without box refinement."""
    first = "bbox_head.reg_branches.0."
    return {
        name: state[first + name.split(".", 3)[3]] if name.startswith("bbox_head.reg_branches.") else value
        for name, value in state.items()
    }


def class_offset(state: State) -> State:
    """Return class weights moved by one: background first."""
    return {name: value.roll(1, 0) if ".fc_cls." in name else value for name, value in state.items()}


MUTANTS = (
    Mutant("conversion-half", "backbone", (FCN_12,), converted(half_state), "a checkpoint saved in half precision"),
    Mutant("conversion-neck-bias", "neck", (FCN_12,), converted(without_biases), "biases that no rule carries over"),
    Mutant(
        "conversion-averaged", "encoder", (DETR_4,), converted(averaged), "averaged for trained weights (detrex#201)"
    ),
    Mutant("conversion-shared", "query_selection", (DETR_4,), converted(shared_branches), "one branch for all layers"),
    Mutant("conversion-classes", "roi_stage_0", (RCNN_12,), converted(class_offset), "background first (mmdet#1299)"),
)
