"""ResNet-50, the backbone of six of the seven detectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from parity.mutants.base import Mutant
from parity.mutants.edits import without_call
from parity.mutants.families.common import (
    DETR_4,
    DETR_5,
    FCN_12,
    FCN_36,
    RCNN_12,
    RCNN_36,
    ones,
    through_half,
    zeros,
)
from parity.mutants.plant import (
    Plant,
    edited,
    modules_of,
    on_model,
    output_of,
    parameter,
    set_attribute,
    swap,
    swap_modules,
    together,
)

BOTTLENECK = "mmdet.models.backbones.resnet:Bottleneck.forward"
ALL_NORMS = "backbone.*bn[0-9]"


def bug(name: str, plant: Plant, why: str, *cases: str) -> Mutant:
    """Return a mutant of this stage."""
    return Mutant(f"resnet-{name}", "backbone", cases, plant, why)


def train_mode(pattern: str) -> Plant:
    """Return batch norms that use the batch's own statistics; the running ones stay as they are."""

    @contextmanager
    def edit(model: Any) -> Iterator[None]:
        norms = [module for module in modules_of(model, pattern) if isinstance(module, nn.BatchNorm2d)]
        kept = [(norm, {name: value.clone() for name, value in norm.named_buffers()}) for norm in norms]
        for norm in norms:
            norm.train()
        try:
            yield
        finally:
            for norm, buffers in kept:
                norm.eval()
                for name, value in buffers.items():
                    getattr(norm, name).copy_(value)

    return on_model(edit)


def norm_eps(pattern: str, value: float | Callable[[float], float]) -> Plant:
    """Return norms with another eps."""
    return set_attribute(pattern, "eps", value)


MUTANTS = (
    bug("norm-eps-1e-3", norm_eps(ALL_NORMS, 1e-3), "TensorFlow's eps of batch norm", FCN_12, DETR_5),
    bug("norm-eps-0", norm_eps(ALL_NORMS, 0.0), "FrozenBN without eps (vision#2940)", DETR_4, RCNN_36),
    bug("norm-eps-1e-6", norm_eps(ALL_NORMS, 1e-6), "another framework's eps of batch norm", RCNN_12),
    bug("one-norm-eps", norm_eps("backbone.layer4.2.bn3", 2e-5), "one norm built with its own eps", FCN_36),
    bug("norm-train", train_mode("backbone.layer3.*"), "batch norm not frozen", RCNN_12),
    bug("norm-train-all", train_mode("backbone.*"), "batch norm in training mode", FCN_12),
    bug(
        "deviation-for-variance",
        parameter("backbone.layer2.1.bn2.running_var", torch.sqrt),
        "a deviation loaded as a variance",
        DETR_4,
    ),
    bug(
        "mean-not-loaded",
        parameter("backbone.layer1.0.bn1.running_mean", zeros),
        "a running mean that no rule converts",
        FCN_36,
    ),
    bug(
        "variance-not-loaded",
        parameter("backbone.layer4.1.bn1.running_var", ones),
        "a running variance that no rule converts",
        RCNN_36,
    ),
    bug("norm-bias-mean", swap("backbone.bn1.bias", "backbone.bn1.running_mean"), "two of a norm's vectors", DETR_5),
    bug(
        "caffe-style",
        together(
            set_attribute("backbone.layer[234].0.conv1", "stride", (2, 2)),
            set_attribute("backbone.layer[234].0.conv2", "stride", (1, 1)),
        ),
        "the stride in the first convolution of a block: style='caffe'",
        DETR_4,
        RCNN_12,
    ),
    bug("pool-ceil", set_attribute("backbone.maxpool", "ceil_mode", True), "Caffe's rounding of pooling", DETR_4),
    bug("pool-average", set_attribute("backbone.maxpool", "padding", 0), "pooling without padding", FCN_12),
    bug("reflect", set_attribute("backbone.conv1", "padding_mode", "reflect"), "another padding of the stem", RCNN_36),
    bug(
        "dilated",
        together(
            set_attribute("backbone.layer4.2.conv2", "dilation", (2, 2)),
            set_attribute("backbone.layer4.2.conv2", "padding", (2, 2)),
        ),
        "the dilation of DC5 left in one block",
        DETR_5,
    ),
    bug("no-last-relu", edited(BOTTLENECK, without_call("relu", 2)), "the sum of a block not rectified", FCN_12),
    bug("no-second-relu", edited(BOTTLENECK, without_call("relu", 1)), "an activation left out", DETR_4),
    bug(
        "leaky",
        set_attribute("backbone.layer4.2", "relu", lambda _: nn.LeakyReLU(1e-4)),
        "another activation in the last block",
        RCNN_12,
    ),
    bug("silu", set_attribute("backbone.layer2.3", "relu", lambda _: nn.SiLU()), "another activation", FCN_36),
    bug("blocks", swap_modules("backbone.layer3", 3, 4), "blocks in another order: an index that is off", DETR_4),
    bug(
        "convolutions",
        swap("backbone.layer3.2.conv2.weight", "backbone.layer3.4.conv2.weight"),
        "two weights of one shape in each other's place",
        FCN_12,
    ),
    bug(
        "transposed",
        parameter("backbone.layer2.2.conv2.weight", lambda weight: weight.transpose(2, 3)),
        "a kernel with height and width exchanged",
        RCNN_12,
    ),
    bug(
        "flipped",
        parameter("backbone.layer4.1.conv2.weight", lambda weight: weight.flip(2, 3)),
        "convolution for cross-correlation",
        DETR_5,
    ),
    bug(
        "half-weights",
        parameter("backbone.layer4.2.conv3.weight", through_half),
        "one weight stored in half precision",
        DETR_4,
        FCN_12,
        RCNN_36,
    ),
    bug("half-block", output_of("backbone.layer3.5", through_half), "one block in half precision", DETR_5, RCNN_12),
    bug(
        "stem-bgr",
        parameter("backbone.conv1.weight", lambda weight: weight.flip(1)),
        "the stem's channels turned on top of the image's",
        RCNN_36,
    ),
    bug(
        "scale-drift",
        parameter("backbone.layer1.2.bn3.weight", lambda weight: weight * (1 + 1e-6)),
        "weights averaged once more on their way",
        FCN_36,
    ),
    bug(
        "momentum-folded",
        parameter("backbone.layer3.1.bn2.running_var", lambda value: value * (1 - math.ldexp(1.0, -12))),
        "a biased for an unbiased variance of 4096 values",
        DETR_4,
    ),
)
