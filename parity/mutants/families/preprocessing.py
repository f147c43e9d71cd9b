"""From the encoded image to the batch: decoding, resizing, normalising, padding, metas."""

from __future__ import annotations

from typing import Any

import torch

from parity.mutants.base import Mutant
from parity.mutants.edits import constant, first_operand
from parity.mutants.families.common import (
    DETR_4,
    DETR_5,
    FCN_12,
    FCN_36,
    RCNN_12,
    RCNN_36,
    reversed_channels,
    through_half,
)
from parity.mutants.plant import Plant, config, edited, result_of, set_attribute

BATCHING = "mmengine.model.base_model.data_preprocessor:ImgDataPreprocessor.forward"
PADDING = "mmengine.model.utils:stack_batch"
NORMALISER = "data_preprocessor"


def bug(name: str, plant: Plant, why: str, *cases: str) -> Mutant:
    """Return a mutant of this stage."""
    return Mutant(f"preprocess-{name}", "preprocess", cases, plant, why)


def test_step(kind: str, **settings: Any) -> Plant:
    """Return the test pipeline with other settings of one step."""

    def change(content: Any) -> None:
        for step in content.test_dataloader.dataset.pipeline:
            if step.type == kind:
                step.update(settings)

    return Plant(config(change).make)  # the pipeline is made for every batch


def extra_step(step: dict[str, Any], after: str) -> Plant:
    """Return the test pipeline with one more step."""

    def change(content: Any) -> None:
        steps = content.test_dataloader.dataset.pipeline
        place = next(i for i, other in enumerate(steps) if other.type == after)
        steps.insert(place + 1, type(steps[0])(step))

    return Plant(config(change).make)


def attribute(name: str, value: Any) -> Plant:
    """Return the normaliser with another setting."""
    return set_attribute(NORMALISER, name, value)


MUTANTS = (
    bug("bgr", attribute("_channel_conversion", False), "channels in the file reader's order (mmdet#9111)", FCN_12),
    bug("mean-bgr", attribute("mean", reversed_channels), "the mean of each channel in BGR order", DETR_4),
    bug("std-bgr", attribute("std", reversed_channels), "the deviations in BGR order: 1.7 % off", RCNN_12),
    bug("std-one", attribute("std", torch.ones_like), "Caffe's deviations of 1", DETR_5),
    bug("mean-rounded", attribute("mean", torch.round), "mean 124, 116, 104", FCN_36),
    bug("mean-no-decimals", attribute("mean", lambda m: (m * 10).round() / 10), "123.7 for 123.675", RCNN_36),
    bug("std-eps", attribute("std", lambda std: std + 1e-5), "an eps added to the deviations", FCN_12),
    bug("no-normalise", attribute("_enable_normalize", False), "normalisation left to a pipeline without it", RCNN_36),
    bug("pad-value", attribute("pad_value", 1.0), "padding that is not black after normalising", FCN_12),
    bug("pad-grey", attribute("pad_value", -0.01), "padding with a mean that was rounded", DETR_5),
    bug("pad-divisor-32", attribute("pad_size_divisor", 32), "a batch padded to multiples of 32", DETR_4),
    bug("pad-divisor-1", attribute("pad_size_divisor", 1), "no padding to multiples of 32 (DETR's setting)", RCNN_12),
    bug("pad-left", edited(PADDING, constant(1, 0, 2)), "the padding on the left and above", DETR_4),
    bug(
        "pad-before-normalise",
        edited(BATCHING, first_operand("-", 0)),
        "the mean not taken off before padding (mmdet#7571)",
        FCN_36,
    ),
    bug(
        "image-half",
        result_of(BATCHING, lambda data: {**data, "inputs": through_half(data["inputs"])}),
        "the batch handed on in half precision",
        DETR_4,
    ),
    bug(
        "linear-nearest",
        test_step("Resize", interpolation="nearest"),
        "another interpolation in resizing (fast-reid#363)",
        FCN_36,
    ),
    bug("linear-area", test_step("Resize", interpolation="area"), "area interpolation in resizing", DETR_4),
    bug(
        "pillow-resize", test_step("Resize", backend="pillow"), "another image library resizes (mmpretrain#94)", DETR_4
    ),
    bug("no-ratio", test_step("Resize", keep_ratio=False), "the image's ratio is not kept", DETR_4),
    bug(
        "shape-after-pad",
        extra_step({"type": "Pad", "size_divisor": 32}, "Resize"),
        "img_shape is that of the padded image",
        RCNN_12,
    ),
)
