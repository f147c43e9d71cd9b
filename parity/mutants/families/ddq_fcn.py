"""The dense head of DDQ FCN and DDQ R-CNN, their selection of distinct queries, DDQ FCN's post-processing."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from parity.mutants.base import Mutant
from parity.mutants.edits import constant, first_operand, name, operator, swapped_elements, without_call
from parity.mutants.families.common import FCN_12, FCN_36, RCNN_12, RCNN_36, through_half
from parity.mutants.plant import (
    Plant,
    called_with,
    edited,
    output_of,
    parameter,
    result_of,
    set_attribute,
    swap,
    swap_modules,
)

HEAD = "parity.ports.fcn_head:DDQFCNHead"
SHUFFLE = "parity.ports.shuffle"
QUERIES = "parity.ports.queries"
FILTER = "mmdet.models.utils.misc:filter_scores_and_topk"
DECODING = "mmdet.structures.bbox.transforms:distance2bbox"
PAIRS = f"{HEAD}._best_pairs"


def bugs(stage: str, prefix: str, *rows: tuple[Any, ...]) -> tuple[Mutant, ...]:
    """Return the mutants of one stage, from rows of name, plant, why and cases (DDQ FCN's first by default)."""
    return tuple(Mutant(f"{prefix}-{row[0]}", stage, row[3:] or (FCN_12,), row[1], row[2]) for row in rows)


def product(parts: Any) -> Any:
    """Return a head's results with scores squared: a product of two probabilities, not its root."""
    return with_scores(parts, torch.square)


def with_scores(parts: Any, change: Any) -> Any:
    """Return a head's results with other scores."""
    main, auxiliary = parts
    return {**main, "cls_scores_list": [change(level) for level in main["cls_scores_list"]]}, auxiliary


def settings(**values: Any) -> Plant:
    """Return the suppression of distinct queries with other settings."""
    return set_attribute("bbox_head", "dqs_cfg", lambda present: {**present, **values})


def rpn_settings(**values: Any) -> Plant:
    """Return the same for DDQ R-CNN."""
    return set_attribute("rpn_head", "dqs_cfg", lambda present: {**present, **values})


def generator(head: str, name: str, value: Any) -> Plant:
    """Return a head whose points are generated with another setting."""

    def change(points: Any) -> Any:
        changed = copy.copy(points)
        setattr(changed, name, value(getattr(points, name)))
        return changed

    return set_attribute(head, "prior_generator", change)


def clipped(boxes: Tensor) -> Tensor:
    """Return boxes without negative coordinates."""
    return boxes.clamp(min=0)


def hundredth_wider(boxes: Tensor) -> Tensor:
    """Return boxes whose right border is 0.01 pixels further out."""
    return boxes + boxes.new_tensor([0.0, 0.0, 0.01, 0.0])


def changed(found: Any, **changes: Any) -> Any:
    """Return the detections of an image with some of their tensors changed."""
    for field, change in changes.items():
        setattr(found, field, change(getattr(found, field)))
    return found


def padded_shape(meta: dict[str, Any]) -> dict[str, Any]:
    """Return an image's metas with the padded batch's size for the image's."""
    return {**meta, "img_shape": meta["batch_input_shape"]}


def dense(stage: str, head: str, prefix: str, first: str, second: str) -> tuple[Mutant, ...]:
    """Return the mutants of the dense head, in the cases of one family."""
    return bugs(
        stage,
        prefix,
        ("product", result_of(f"{HEAD}.forward", product), "the product of two scores, not its root", first),
        ("norm-eps", set_attribute(f"{head}.*_convs.*.gn", "eps", 1e-6), "another eps of group norm", first),
        ("one-norm-eps", set_attribute(f"{head}.reg_convs.3.gn", "eps", 2e-5), "one norm with its own eps", second),
        ("groups", set_attribute(f"{head}.cls_convs.*.gn", "num_groups", 16), "16 groups for 32", second),
        ("corners", edited(f"{SHUFFLE}:_resized", constant(True, False)), "align_corners=False in the shuffle", first),
        ("shuffle-order", edited(f"{SHUFFLE}:shuffle_levels", swapped_elements(1, 2, size=3)), "finer first", first),
        ("shuffle-channels", set_attribute(head, "shuffle_channels", 32), "32 channels for 64", second),
        ("shuffle-layers", set_attribute(head, "cls_shuffles", (1, 2)), "layers counted from 1", first),
        ("shuffle-both", set_attribute(head, "reg_shuffles", (2, 3)), "both towers shuffled alike", second),
        ("shuffle-neighbour", edited(f"{SHUFFLE}:shuffle_levels", operator("+", "-", 0)), "a level off", first),
        (
            "shuffle-wraps",
            edited(f"{SHUFFLE}:shuffle_levels", constant(0, -9, 1)),
            "the finest level's neighbour",
            second,
        ),
        ("scale-index", swap_modules(f"{head}.scales", 1, 2), "scales of two levels: an index that is off", first),
        ("no-exponential", edited(f"{HEAD}._predict", without_call("exp")), "distances not exponentiated", second),
        (
            "towers",
            edited(f"{HEAD}.forward", name("cls_feats", "reg_feats", 0)),
            "objectness from the other tower",
            first,
        ),
        ("no-objectness", output_of(f"{head}.objectness", torch.zeros_like), "objectness left out", second),
        ("objectness-half", output_of(f"{head}.objectness", through_half), "objectness in half precision", first),
        (
            "auxiliary-weights",
            swap(f"{head}.conv_reg.weight", f"{head}.aux_conv_reg.weight"),
            "main and auxiliary branch loaded into each other (mmdet's AnchorFreeHead)",
            first,
        ),
        (
            "auxiliary-bias",
            swap(f"{head}.conv_cls.bias", f"{head}.aux_conv_cls.bias"),
            "a bias of the auxiliary branch",
            second,
        ),
        ("class-drift", parameter(f"{head}.conv_cls.bias", lambda bias: bias + 1e-6), "logits off by 1e-6", second),
        ("class-order", parameter(f"{head}.conv_cls.bias", lambda bias: bias.roll(1)), "classes off by one", first),
        (
            "side-order",
            parameter(f"{head}.conv_reg.bias", lambda bias: bias[[1, 0, 3, 2]]),
            "top, left, bottom, right for left, top, right, bottom",
            first,
        ),
        ("half-weights", parameter(f"{head}.cls_convs.0.conv.weight", through_half), "a weight in half", second),
        ("score-clamp", result_of(f"{HEAD}.forward", clamped), "scores kept away from 0 and 1 by 1e-3", first),
    )


def clamped(parts: Any) -> Any:
    """Return a head's results with scores clamped."""
    return with_scores(parts, lambda scores: scores.clamp(1e-3, 1 - 1e-3))


def selection(head: str, prefix: str, settings: Any, first: str, second: str) -> tuple[Mutant, ...]:
    """Return the mutants of the selection of distinct queries, in the cases of one family."""
    return bugs(
        "query_selection",
        prefix,
        ("offset", generator(head, "offset", lambda _: 0.0), "points at the corners of cells", first),
        ("offset-drift", generator(head, "offset", lambda offset: offset + 1e-6), "points off by 1e-6", second),
        ("strides", generator(head, "strides", lambda s: [s[0], *s[:-1]]), "points of the finer level", second),
        ("pre-nms", set_attribute(head, "nms_pre", 20), "fewer candidates a level", first),
        ("pre-nms-999", set_attribute(head, "nms_pre", 999), "999 candidates a level for 1000", first),
        ("threshold", settings(iou_threshold=0.6), "an IoU threshold of 0.6 for 0.7", second),
        ("threshold-drift", settings(iou_threshold=0.69999), "an IoU threshold that is off by 1e-5", first),
        ("minimum", edited(f"{QUERIES}:_best_of_level", constant(0, 0.05)), "a score threshold", first),
        ("no-stride", edited(f"{QUERIES}:select_candidates", first_operand("*")), "distances left in strides", second),
        ("last-stride", set_attribute(head, "strides", (8, 16, 32, 64, 64)), "a stride of the last level", second),
        ("order", edited(FILTER, constant(True, False)), "candidates worst first", first),
        ("clipped", result_of(DECODING, clipped), "candidates clipped to the image before suppression", first),
        ("sides", called_with(DECODING, distance=lambda d: d[:, [1, 0, 3, 2]]), "top before left", second),
        ("half", result_of(DECODING, through_half), "boxes in half precision", second),
    )


PREDICTION = bugs(
    "predict",
    "fcn-predict",
    ("label-modulus", edited(PAIRS, operator("//", "%")), "the class's index for the query's"),
    (
        "label-offset",
        result_of(PAIRS, lambda found: changed(found, labels=lambda it: it + 1)),
        "classes from 1",
        FCN_36,
    ),
    ("no-clamp", edited(PAIRS, without_call("clamp")), "negative coordinates kept"),
    ("padded-size", called_with(PAIRS, img_meta=padded_shape), "boxes clipped to the padded batch"),
    ("size-swapped", edited(PAIRS, swapped_elements(0, 1)), "width and height exchanged in clipping", FCN_12),
    ("rescaled-up", edited(PAIRS, operator("/", "*")), "boxes multiplied by the resize factor", FCN_36),
    ("no-rescale", edited(PAIRS, first_operand("/")), "boxes left in pixels of the resized image", FCN_36),
    ("top-299", set_attribute("bbox_head", "num_distinct_queries", 299), "299 detections for 300"),
    ("wider", result_of(PAIRS, lambda found: changed(found, bboxes=hundredth_wider)), "boxes wider by 0.01 pixels"),
    ("int-labels", result_of(PAIRS, lambda found: changed(found, labels=Tensor.int)), "labels of 32 bits", FCN_36),
    ("half-scores", result_of(PAIRS, lambda found: changed(found, scores=through_half)), "scores in half precision"),
)

MUTANTS = (
    *dense("fcn_head", "bbox_head", "dense", FCN_12, FCN_36),
    *dense("rpn_head", "rpn_head", "rpn", RCNN_12, RCNN_36),
    *selection("bbox_head", "dense-selection", settings, FCN_12, FCN_36),
    *selection("rpn_head", "rpn-selection", rpn_settings, RCNN_12, RCNN_36),
    *PREDICTION,
)
