"""Each top-k, threshold and limit: one less, the worst for the best, a threshold where there is none, other settings.

Planted in every case: which images and weights bind a limit is a matter of its records.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from parity.cases.base import LOSS
from parity.mutants.base import Mutant
from parity.mutants.edits import Edit, constant, keyword, last_for_first, settings_read
from parity.mutants.families import ddq_detr, ddq_fcn, ddq_rcnn, training
from parity.mutants.families.common import DETR_4, DETR_5, FCN_12, FCN_36, RCNN_12, RCNN_36, SWIN
from parity.mutants.plant import Plant, edited, result_of, set_attribute, wrapped
from parity.records.kinds import TRAINING
from parity.taps.stages import replaced

DETR, FCN, RCNN = (DETR_4, DETR_5, SWIN), (FCN_12, FCN_36), (RCNN_12, RCNN_36)

# What other detectors drop: mmdet's default of most, of some, and almost nothing.
THRESHOLDS = (0.05, 0.01, 1e-3)
# Every setting of mmcv's suppression but its overlap, which each family has: another value.
SETTINGS = {
    "type": ("soft_nms", "overlapping boxes scored lower for dropped"),
    "max_num": (899, "at most 899 that survive"),
    "offset": (1, "widths and heights of inclusive pixels"),
    "split_thr": (100, "suppressed in groups"),
    "class_agnostic": (True, "boxes not moved apart by class"),
}

PLAIN = "mmdet.models.task_modules.assigners.hungarian_assigner:HungarianAssigner.assign"
DENSE_OF_DETR = "mmdet.models.task_modules.assigners.topk_hungarian_assigner:TopkHungarianAssigner.assign"
WORST_PAIRS = keyword("linear_sum_assignment", "maximize", True)
WORST = keyword("topk", "largest", False)


def bugs(stage: str, prefix: str, cases: tuple[str, ...], *rows: tuple[Any, ...], kind: str = "") -> Iterator[Mutant]:
    """Yield the mutants of one stage, from rows of name, plant and why."""
    for name, plant, why in rows:
        yield Mutant(f"limit-{prefix}-{name}", stage, cases, plant, why, kind)


def above(threshold: float, found: Any) -> Any:
    """Return the detections of an image that score above a threshold."""
    return found[found.scores > threshold]


def thresholds(plant: Callable[[float], Plant], where: str) -> Iterator[tuple[Any, ...]]:
    """Yield a row for every usual threshold: there is none."""
    for threshold in THRESHOLDS:
        yield f"{where}-{threshold:g}", plant(threshold), f"a score threshold of {threshold:g}"


def of_results(target: str) -> Callable[[float], Plant]:
    """Return the plant of a threshold of a function's detections."""
    return lambda threshold: result_of(target, functools.partial(above, threshold))


def suppressions(plant: Callable[..., Plant]) -> Iterator[tuple[Any, ...]]:
    """Yield a row for every setting of the suppression, changed alone."""
    for setting, (value, why) in SETTINGS.items():
        yield setting.replace("_", "-"), plant(**{setting: value}), why


def worst(target: str, *counts: str) -> Plant:
    """Return a function whose slices up to some counts, in their order, take the last for the first."""
    edits: list[Edit] = [last_for_first(count, 0) for count in counts]
    return edited(target, *edits)


def in_training(**values: Any) -> Plant:
    """Return the dense head's selection with other attributes while it selects for training."""

    def wrap(original: Any) -> Any:
        @functools.wraps(original)
        def select(head: Any, *args: Any, **kwargs: Any) -> Any:
            (name, value), *_ = values.items()
            with replaced(head, name, value):
                return original(head, *args, **kwargs)

        return select

    return wrapped(f"{ddq_fcn.HEAD}.select_for_training", wrap)


def all_of_detr() -> Iterator[Mutant]:
    """Yield the mutants of DDQ DETR's selections."""
    selection, decoder = ddq_detr.SELECTION, f"{ddq_detr.DECODER}.select_distinct_queries"
    yield from bugs(
        "query_selection",
        "selection",
        DETR,
        ("899", set_attribute("", "num_queries", 899), "899 queries for 900"),
        ("worst", worst(selection, "topk", "topk", "topk"), "the worst 900 queries for the best"),
        *thresholds(lambda least: ddq_detr.suppression(score_threshold=least), "above"),
        *suppressions(ddq_detr.suppression),
    )
    yield from bugs(
        "query_selection",
        "dense",
        (DETR_5,),  # no record of the others has as many positions: see their limits
        ("1349", set_attribute("", "dense_topk_ratio", 1.4995), "1349 dense queries for 1350"),
        ("worst", worst(selection, *["dense_topk"] * 3), "the worst 1350 dense queries for the best"),
        kind=TRAINING,
    )
    yield from bugs(
        "decoder",
        "decoder",
        DETR,
        *thresholds(lambda least: edited(decoder, settings_read("dqs_cfg", score_threshold=least)), "above"),
        *suppressions(lambda **other: edited(decoder, settings_read("dqs_cfg", **other))),
    )


def results_and_matching_of_detr() -> Iterator[Mutant]:
    """Yield those of its detections, its matching and its denoising queries."""
    yield from bugs(
        "predict",
        "detr-results",
        DETR,
        ("299", set_attribute("bbox_head", "test_cfg", {"max_per_img": 299}), "299 detections for 300"),
        ("worst", edited(ddq_detr.RESULTS, keyword("topk", "largest", False, 0)), "the worst detections"),
        *thresholds(of_results(ddq_detr.RESULTS), "above"),
    )
    yield from bugs(
        LOSS,
        "detr-matched",
        DETR,
        ("3", training.dense_matching("topk", 3), "3 dense queries an object for 4"),
        ("worst", edited(PLAIN, WORST_PAIRS), "the dearest matching for the cheapest"),
        ("dense-worst", edited(DENSE_OF_DETR, WORST_PAIRS), "the same among the dense queries"),
        kind=TRAINING,
    )
    yield from bugs(
        "query_selection",
        "denoising",
        DETR,
        ("99", set_attribute("dn_query_generator", "num_dn_queries", 99), "99 denoising queries for 100"),
        kind=TRAINING,
    )


def all_of_dense(head: str, prefix: str, settings: Callable[..., Plant], cases: tuple[str, ...]) -> Iterator[Mutant]:
    """Yield the mutants of the dense head's selection and matching, in the cases of one family."""
    candidates = worst(ddq_fcn.FILTER, "num_topk", "num_topk")
    yield from bugs(
        "query_selection",
        f"{prefix}-candidates",
        cases,
        ("999", set_attribute(head, "nms_pre", 999), "999 candidates a level for 1000"),
        ("worst", candidates, "the worst 1000 candidates of a level for the best"),
        *thresholds(lambda least: edited(f"{ddq_fcn.QUERIES}:_best_of_level", constant(0, least)), "above"),
        *thresholds(lambda least: settings(score_threshold=least), "suppressed-above"),
        *suppressions(settings),
    )
    yield from bugs(
        "query_selection",
        f"{prefix}-training",
        cases,
        ("999", in_training(nms_pre=999), "999 candidates a level for 1000, in training"),
        ("worst", candidates, "the worst 1000 candidates of a level for the best, in training"),
        kind=TRAINING,
    )
    yield from bugs(
        LOSS,
        f"{prefix}-matched",
        cases,
        ("7", training.assigner(f"{head}.aux_loss", "topk", 7), "7 predictions an object for 8"),
        ("2", training.assigner(f"{head}.main_loss", "topk", 2), "2 predictions an object for 1"),
        (
            "worst",
            edited(f"{training.ASSIGNER}:DDQTopkAssigner.assign", WORST_PAIRS),
            "the dearest matching for the cheapest",
        ),
        kind=TRAINING,
    )


def all_of_fcn() -> Iterator[Mutant]:
    """Yield the mutants of DDQ FCN."""
    yield from all_of_dense("bbox_head", "fcn", ddq_fcn.settings, FCN)
    yield from bugs(
        "predict",
        "fcn-results",
        FCN,
        ("299", set_attribute("bbox_head", "num_distinct_queries", 299), "299 detections for 300"),
        ("worst", edited(ddq_fcn.PAIRS, WORST), "the worst detections"),
        *thresholds(of_results(ddq_fcn.PAIRS), "above"),
    )


def all_of_rcnn() -> Iterator[Mutant]:
    """Yield the mutants of DDQ R-CNN."""
    yield from all_of_dense("rpn_head", "rcnn", ddq_fcn.rpn_settings, RCNN)
    queries = f"{ddq_rcnn.CONTENTS}:DDQFCNRPN.build_queries"
    yield from bugs(
        "query_selection",
        "rcnn-queries",
        RCNN,
        ("299", set_attribute("rpn_head", "num_distinct_queries", 299), "299 queries for 300"),
        ("worst", worst(queries, "self.num_distinct_queries"), "the worst 300 queries for the best"),
    )
    yield from bugs(
        "predict",
        "rcnn-results",
        RCNN,
        ("299", set_attribute("roi_head", "test_cfg", {"max_per_img": 299}), "299 detections for 300"),
        ("worst", edited(ddq_rcnn.PAIRS, WORST), "the worst detections"),
        *thresholds(of_results(ddq_rcnn.PAIRS), "above"),
    )
    yield from bugs(
        LOSS,
        "rcnn-matched",
        RCNN,
        ("roi-worst", edited(PLAIN, WORST_PAIRS), "the dearest matching of the RoI stages for the cheapest"),
        kind=TRAINING,
    )


MUTANTS = (*all_of_detr(), *results_and_matching_of_detr(), *all_of_fcn(), *all_of_rcnn())
