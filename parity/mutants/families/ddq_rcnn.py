"""DDQ R-CNN: the contents of its queries, the RoI stages, post-processing."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu

from parity.mutants.base import Mutant
from parity.mutants.benign import channels_last, placed, spread_out
from parity.mutants.edits import (
    constant,
    keyword,
    operator,
    without_call,
)
from parity.mutants.families.common import RCNN_12, RCNN_36, through_half
from parity.mutants.plant import (
    Plant,
    called_with,
    config,
    edited,
    output_of,
    parameter,
    result_of,
    set_attribute,
    swap,
    swap_modules,
)

CONTENTS = "parity.ports.rpn_head"
STAGE = "parity.ports.roi_head:DDQRoIHead.forward_stage"
PAIRS = "parity.ports.roi_head:DDQRoIHead._best_pairs"
LEVELS = "mmdet.models.roi_heads.roi_extractors.single_level_roi_extractor:SingleRoIExtractor.map_roi_levels"
HEAD = "mmdet.models.roi_heads.bbox_heads.dii_head:DIIHead.forward"
DYNAMIC = "mmdet.models.layers.transformer.utils:DynamicConv.forward"
DELTAS = "mmdet.models.task_modules.coders.delta_xywh_bbox_coder:delta2bbox"
FIRST, SECOND = "roi_head.bbox_head.0", "roi_head.bbox_head.1"


def bugs(stage: str, prefix: str, *rows: tuple[Any, ...]) -> tuple[Mutant, ...]:
    """Return the mutants of one stage, from rows of name, plant, why and cases (the first one's by default)."""
    return tuple(Mutant(f"{prefix}-{row[0]}", stage, row[3:] or (RCNN_12,), row[1], row[2]) for row in rows)


def changed(found: Any, **changes: Any) -> Any:
    """Return the detections of an image with some of their tensors changed."""
    for field, change in changes.items():
        setattr(found, field, change(getattr(found, field)))
    return found


def coder(**values: Any) -> Plant:
    """Return the decoding of box deltas with other settings."""
    return called_with(DELTAS, **values)


def clipped_pairs(found: Any) -> Any:
    """Return the detections of an image without negative coordinates."""
    return changed(found, bboxes=functools.partial(torch.clamp, min=0))


def swapped_halves(weight: Tensor) -> Tensor:
    """Return a weight with the halves of its inputs exchanged."""
    return weight.roll(weight.shape[1] // 2, 1)


def swap_parts(bias: Tensor) -> Tensor:
    """Return the bias of a dynamic layer with the halves for its two products exchanged."""
    return bias.roll(bias.shape[0] // 2)


def hundredths(boxes: Tensor) -> Tensor:
    """Return boxes with two decimals."""
    return (boxes * 100).round() / 100


def adaptive_sampling(content: Any) -> None:
    """Let the config's RoIAlign choose how many samples it takes."""
    content.model.roi_head.bbox_roi_extractor.roi_layer.update(sampling_ratio=0)


CONTENT = bugs(
    "query_selection",
    "contents",
    ("concatenation", parameter("rpn_head.compress.weight", swapped_halves), "box before class features"),
    ("no-order", edited(f"{CONTENTS}:DDQFCNRPN.build_queries", constant(True, False, 0)), "worst queries first"),
    ("fewer", set_attribute("rpn_head", "num_distinct_queries", 20), "fewer queries", RCNN_36),
    ("bias", parameter("rpn_head.compress.bias", lambda bias: bias + 1e-7), "a bias off by 1e-7"),
    ("half", output_of("rpn_head.compress", through_half), "contents in half precision", RCNN_36),
    ("rows", edited(f"{CONTENTS}:_flat_levels", without_call("transpose")), "channels for positions"),
    ("padding", edited(f"{CONTENTS}:DDQFCNRPN.build_queries", keyword("pad_sequence", "padding_value", 1.0)), "ones"),
)

FIRST_STAGE = bugs(
    "roi_stage_0",
    "roi",
    ("finest-scale", set_attribute("roi_head.bbox_roi_extractor.[01]", "finest_scale", 28), "levels off by one"),
    ("finest-scale-drift", set_attribute("roi_head.bbox_roi_extractor.[01]", "finest_scale", 60), "60 for 56", RCNN_36),
    ("level-rounding", edited(LEVELS, constant(1e-6, 0.5)), "levels rounded, not cut"),
    ("level-eps", edited(LEVELS, constant(1e-6, 0.0)), "no eps in the choice of a level"),
    ("level-top", edited(LEVELS, operator("-", "+", 0)), "a box's extent taken from a sum", RCNN_36),
    ("not-aligned", set_attribute("roi_head.bbox_roi_extractor.*.roi_layers.*", "aligned", False), "RoIAlign v1"),
    ("samples", set_attribute("roi_head.bbox_roi_extractor.*.roi_layers.*", "sampling_ratio", 1), "1 sample for 2"),
    (
        "samples-0",
        set_attribute("roi_head.bbox_roi_extractor.*.roi_layers.*", "sampling_ratio", 0),
        "adaptive",
        RCNN_36,
    ),
    ("pool-max", set_attribute("roi_head.bbox_roi_extractor.*.roi_layers.*", "pool_mode", "max"), "another pooling"),
    (
        "roi-stride",
        set_attribute("roi_head.bbox_roi_extractor.0.roi_layers.1", "spatial_scale", 1 / 4),
        "the scale of a level: an index that is off",
    ),
    ("deviations", coder(stds=(1.0, 1.0, 1.0, 1.0)), "deltas not divided", RCNN_36),
    ("deviations-rcnn", coder(stds=(0.1, 0.1, 0.2, 0.2)), "R-CNN's deviations for Sparse R-CNN's"),
    ("means", coder(means=(0.0, 0.0, 1e-6, 0.0)), "a mean of 1e-6"),
    ("delta-order", coder(deltas=lambda deltas: deltas[:, [1, 0, 2, 3]]), "dy before dx", RCNN_36),
    ("ratio-clip", coder(wh_ratio_clip=0.9), "another bound of size changes"),
    ("centre-clamp", coder(add_ctr_clamp=True, ctr_clamp=1), "YOLOF's clamp of centres", RCNN_36),
    ("norm-eps", set_attribute("roi_head.bbox_head.*_norm", "eps", 1e-6), "another eps of layer norm"),
    ("dynamic-norm-eps", set_attribute(f"{FIRST}.*.norm_in", "eps", 1e-6), "another eps in one norm", RCNN_36),
    ("dynamic-order", parameter(f"{FIRST}.instance_interactive_conv.dynamic_layer.bias", swap_parts), "in for out"),
    ("dynamic-activation", edited(DYNAMIC, without_call("activation", 0)), "an activation left out"),
    ("dynamic-last-activation", edited(DYNAMIC, without_call("activation", 2)), "one left out", RCNN_36),
    ("no-attention-norm", edited(HEAD, without_call("attention_norm")), "a norm left out"),
    ("no-residual", set_attribute(f"{FIRST}.ffn", "add_identity", False), "no residual path", RCNN_36),
    ("heads", set_attribute(f"{FIRST}.attention.attn", "num_heads", 16), "16 heads for 8"),
    ("gelu", output_of(f"{FIRST}.ffn.layers.0.0", gelu), "another activation", RCNN_36),
    ("norms-swapped", swap(f"{FIRST}.attention_norm.weight", f"{FIRST}.ffn_norm.weight"), "two scales of one shape"),
    ("stages-swapped", swap_modules("roi_head.bbox_head", 0, 1), "the stages in the other order"),
    ("half-regions", output_of("roi_head.bbox_roi_extractor.0", through_half), "regions in half precision", RCNN_36),
    ("half-deltas", output_of(f"{FIRST}.fc_reg", through_half), "deltas in half precision"),
    ("class-drift", parameter(f"{FIRST}.fc_cls.bias", lambda bias: bias + 1e-6), "logits off by 1e-6", RCNN_36),
    ("channels-last", placed(channels_last), "maps laid out channels last, which mmcv's RoIAlign does not see"),
    ("strided", placed(spread_out), "maps that are not contiguous, which mmcv's RoIAlign does not see", RCNN_36),
    ("built-samples", config(adaptive_sampling), "mmdet's default sampling left in the config", RCNN_36),
)

SECOND_STAGE = bugs(
    "roi_stage_1",
    "roi-1",
    ("one-norm-eps", set_attribute(f"{SECOND}.ffn_norm", "eps", 1e-12), "BERT's eps in one norm"),
    ("not-loaded", parameter(f"{SECOND}.cls_fcs.1.weight", torch.ones_like), "a scale that no rule converts", RCNN_36),
    ("layers-swapped", swap(f"{SECOND}.reg_fcs.0.weight", f"{SECOND}.reg_fcs.3.weight"), "two layers' weights"),
    ("samples", set_attribute("roi_head.bbox_roi_extractor.1.roi_layers.*", "sampling_ratio", 1), "1 sample", RCNN_36),
    ("half", output_of(f"{SECOND}.instance_interactive_conv", through_half), "one layer in half precision"),
    ("no-class-activation", output_of(f"{SECOND}.cls_fcs.1", torch.abs), "another activation", RCNN_36),
    ("box-drift", parameter(f"{SECOND}.fc_reg.bias", lambda bias: bias + 1e-7), "deltas off by 1e-7"),
)

PREDICTION = bugs(
    "predict",
    "rcnn-predict",
    ("no-sigmoid", edited("parity.ports.roi_head:DDQRoIHead.predict_by_stage", without_call("sigmoid")), "logits"),
    ("clipped", result_of(PAIRS, clipped_pairs), "boxes clipped, which the original leaves"),
    ("label-modulus", edited(PAIRS, operator("%", "//")), "the query's index for the class's", RCNN_36),
    ("box-modulus", edited(PAIRS, operator("//", "%")), "the class's index for the query's"),
    (
        "label-offset",
        result_of(PAIRS, lambda found: changed(found, labels=lambda it: it + 1)),
        "classes from 1",
        RCNN_36,
    ),
    ("top-299", set_attribute("roi_head", "test_cfg", {"max_per_img": 299}), "299 detections for 300"),
    (
        "hundredths",
        result_of(PAIRS, lambda found: changed(found, bboxes=hundredths)),
        "boxes with two decimals",
        RCNN_36,
    ),
    ("half-scores", result_of(PAIRS, lambda found: changed(found, scores=through_half)), "scores in half precision"),
    ("rescaled-up", edited(PAIRS, operator("/", "*")), "boxes multiplied by the resize factor", RCNN_36),
)

MUTANTS = (*CONTENT, *FIRST_STAGE, *SECOND_STAGE, *PREDICTION)
