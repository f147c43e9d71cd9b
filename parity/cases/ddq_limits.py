"""Every top-k, threshold and upper bound of the DDQ detectors, and where each shows."""

from __future__ import annotations

from dataclasses import replace
from typing import Mapping, Tuple

from parity.cases.base import CASCADE, LOSS, Batch, Fill, Limit, TrainingBatch

ASSIGNMENTS = "loss.assignment.*"


def both(legacy: str, key: str) -> Mapping[str, str]:
    """Return the key of both engines' configs."""
    return {legacy: key, "mmdet3": key}


def detr(key: str) -> Mapping[str, str]:
    return both("ddq_mmdet3rc", key)


DETR = (
    Limit("queries", "first", 900, "query_selection.nms.*", detr("model.num_queries")),
    Limit(
        "dense queries",
        "first",
        1350,
        "query_selection.sort.*",
        {"mmdet3": "model.dense_topk_ratio"},
        said=1.5,
        training=True,
    ),
    Limit("overlap of distinct queries", "overlap", 0.8, "*.nms.*", detr("model.dqs_cfg.iou_threshold")),
    Limit("no score threshold among proposals", "unfiltered", 0, "query_selection.nms.*"),
    Limit("no score threshold among queries", "unfiltered", 0, "decoder.nms.*"),
    Limit("detections of an image", "topk", 300, "predict.topk.*", detr("model.test_cfg.max_per_img")),
    Limit("no score threshold among detections", "unfiltered", 0, "predict.topk.*"),
    Limit("dense queries matched with an object", "per_object", 4, ASSIGNMENTS, training=True),
    Limit("queries matched with an object", "per_object", 1, ASSIGNMENTS, training=True),
    Limit(
        "denoising queries",
        "setting",
        100,
        keys=detr("model.dn_cfg.group_cfg.num_dn_queries"),
        training=True,
        reason=(
            "it chooses among nothing: so many are made, in groups of twice the objects; what train-two-sizes draws"
            " shows it, as 5 objects give 20 groups (99 // 5 are 19)"
        ),
    ),
)

DETR_4SCALE = tuple(
    replace(
        limit,
        reason=(
            "the same code reads it from the same key as in ddq_detr_5scale_r50_12e, whose record train-limits binds"
            " it; a training step with so many queries takes some 7 GB"
        ),
    )
    if limit.name == "dense queries"
    else limit
    for limit in DETR
)

ZERO = (
    "it is 0: what it drops is a probability of exactly 0, in float64 that of a logit below -745, and what is no number"
)


def dense(candidates: Mapping[str, str], overlap: Mapping[str, str]) -> Tuple[Limit, ...]:
    """Return the limits of the dense head and its selection of distinct queries."""
    return (
        Limit("candidates of a level", "first", 1000, "query_selection.threshold.*", candidates),
        Limit("candidates of a level in training", "first", 1000, "query_selection.threshold.*", training=True),
        Limit("score threshold of candidates", "threshold", 0, "query_selection.threshold.*", reason=ZERO),
        Limit("overlap of distinct queries", "overlap", 0.7, "query_selection.nms.*", overlap),
        Limit("no score threshold among candidates", "unfiltered", 0, "query_selection.nms.*"),
        Limit("predictions matched with an object, auxiliary", "per_object", 8, ASSIGNMENTS, training=True),
        Limit("predictions matched with an object", "per_object", 1, ASSIGNMENTS, training=True),
        Limit("no score threshold among detections", "unfiltered", 0, "predict.topk.*"),
    )


FCN = (
    *dense(
        both("ddq_mmdet2", "model.bbox_head.dqs_cfg.nms_pre"),
        both("ddq_mmdet2", "model.bbox_head.dqs_cfg.iou_threshold"),
    ),
    Limit("detections of an image", "topk", 300, "predict.topk.*"),
)
RCNN = (
    *dense(
        {"mmdet3": "model.rpn_head.dqs_cfg.nms_pre"},
        {"mmdet3": "model.rpn_head.dqs_cfg.iou_threshold"},
    ),
    Limit(
        "queries",
        "first",
        300,
        "query_selection.nms.*",
        both("ddq_mmdet2", "model.rpn_head.num_distinct_queries"),
    ),
    Limit(
        "detections of an image", "topk", 300, "predict.topk.*", both("ddq_mmdet2", "model.test_cfg.rcnn.max_per_img")
    ),
    Limit("classes that count as right", "topk", 1, "loss.topk.*", training=True),
)

# What binds them: more positions than queries or candidates, of small boxes that hardly overlap, scored from almost
# nothing up to a tenth. Compared in cascade alone: no stage has to be fed, so that large maps need not be kept whole.
LOW_SCORES_OF_DETR = (
    Fill("bbox_head.cls_branches.*.weight", spread=8.0, per_fan_in=True),
    Fill("bbox_head.cls_branches.6.bias", centre=-27.0, spread=0.3),
    Fill("bbox_head.reg_branches.6.4.bias", spread=0.1),
)
LOW_SCORES = (
    Fill("bbox_head.*conv_cls.bias", centre=-39.0, spread=0.3),
    Fill("rpn_head.*conv_cls.bias", centre=-33.0, spread=0.3),
    Fill("*_head.*conv_cls.weight", spread=12.0, per_fan_in=True),
    Fill("*fc_cls.bias", centre=-20.1, spread=0.3),
    Fill("*fc_cls.weight", spread=8.5, per_fan_in=True),
)
SMALL_BOXES = (Fill("*_head.*conv_reg.bias", centre=0.1, spread=0.3),)


def detr_batch(seed: int, side: int, *, score: float) -> Batch:
    """Return a batch of one square image, whose last class logits lie about ``score``."""
    bias = Fill("bbox_head.cls_branches.*.bias", centre=score, spread=0.3)
    return Batch(seed, sizes=((side, side),), fills=(*LOW_SCORES_OF_DETR, bias), modes=(CASCADE,))


def dense_batch(seed: int) -> Batch:
    return Batch(seed, sizes=((256, 256),), fills=(*LOW_SCORES, *SMALL_BOXES), modes=(CASCADE,))


def training_batch(seed: int, side: int) -> TrainingBatch:
    """Return a batch with more positions than dense queries or candidates of a level.

    Its record is of the stages that have limits; the other batches prove gradients and updates. In float64 those
    agree here, too; in float32 6 of 331 parameters of DDQ FCN 36e need up to 13 noise floors after the step: it is
    large beside these weights, and gradients jump by 1e-3 of their size where a ReLU's input is zero within noise
    (the budgets' row "gradient" allows that, the row "update" knows nothing of it).
    """
    return TrainingBatch(seed, sizes=((side, side),), objects=(2,), stages=("query_selection", LOSS))
