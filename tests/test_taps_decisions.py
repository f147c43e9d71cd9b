"""Decisions are recorded with what they chose from, and forced where that can be."""

from __future__ import annotations

import importlib
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from parity.taps.decisions import DecisionTaps


def decisions_of(stage: str | None = "head", **forced: Tensor) -> DecisionTaps:
    return DecisionTaps(lambda: stage, {name.replace("_", "."): value for name, value in forced.items()})


SCORES = torch.tensor([0.1, 0.7, 0.4])


def test_every_way_of_choosing_is_recorded_by_kind_and_count() -> None:
    with decisions_of() as taps:
        SCORES.topk(2)
        torch.topk(SCORES, 1)
        SCORES.sort(descending=True)
        torch.sort(SCORES, -1, True)
        SCORES.argsort()
        torch.argsort(SCORES, descending=True)
    kinds = ["topk.0", "topk.1", "sort.0", "sort.1", "sort.2", "sort.3"]
    assert list(taps.decisions) == [f"head.{kind}" for kind in kinds]
    chosen = [decision.chosen.tolist() for decision in taps.decisions.values()]
    assert chosen == [[1, 2], [1], [1, 2, 0], [1, 2, 0], [0, 2, 1], [1, 2, 0]]


def test_counts_go_by_stage() -> None:
    stage = "first"
    with DecisionTaps(lambda: stage) as taps:
        SCORES.topk(1)
        stage = "second"
        SCORES.topk(1)
    assert list(taps.decisions) == ["first.topk.0", "second.topk.0"]


def test_the_direction_is_recorded() -> None:
    with decisions_of() as taps:
        SCORES.topk(1, largest=False)
        SCORES.sort()
    assert [decision.settings for decision in taps.decisions.values()] == [{"largest": 0.0}] * 2


def test_what_was_ranked_is_kept_as_it_was() -> None:
    scores = SCORES.clone()
    with decisions_of() as taps:
        scores.topk(2)
        scores.zero_()
    assert taps.decisions["head.topk.0"].scores.tolist() == SCORES.tolist()


def test_integers_and_calls_outside_of_stages_are_no_decisions() -> None:
    with decisions_of() as taps:
        torch.tensor([3, 1]).sort()
    with decisions_of(None) as outside:
        SCORES.topk(2)
    assert not taps.decisions
    assert not outside.decisions


def test_results_are_those_of_torch() -> None:
    plain = (SCORES.topk(2), SCORES.sort(), SCORES.argsort())
    with decisions_of():
        tapped = (SCORES.topk(2), SCORES.sort(), SCORES.argsort())
    assert type(tapped[0]) is type(plain[0])
    assert tapped[0].values.tolist() == plain[0].values.tolist()
    assert tapped[1].indices.tolist() == plain[1].indices.tolist()
    assert tapped[2].tolist() == plain[2].tolist()


@pytest.mark.parametrize("keywords", [{"stable": True}, {"stable": True, "descending": True}, {"dim": 0}])
def test_keywords_reach_torch(keywords: dict[str, Any]) -> None:
    expected = torch.sort(SCORES, **keywords)
    with decisions_of() as taps:
        found = torch.sort(SCORES, **keywords)
    assert found.indices.tolist() == expected.indices.tolist()
    assert list(taps.decisions) == ["head.sort.0"]


def test_a_forced_choice_is_gone_on_with_and_the_own_one_recorded() -> None:
    with decisions_of(head_topk_0=torch.tensor([2, 0])) as taps:
        values, indices = SCORES.topk(2)
    assert indices.tolist() == [2, 0]
    assert values.tolist() == SCORES[[2, 0]].tolist()
    assert taps.decisions["head.topk.0"].chosen.tolist() == [1, 2]
    assert taps.decisions["head.topk.0"].refused == ""


def test_a_forced_order_is_used_by_sort_and_argsort() -> None:
    order = torch.tensor([2, 1, 0])
    with decisions_of(head_sort_0=order, head_sort_1=order):
        assert SCORES.sort().values.tolist() == SCORES[order].tolist()
        assert SCORES.argsort().tolist() == order.tolist()


@pytest.mark.parametrize(
    ("forced", "why"),
    [
        (torch.tensor([[0, 1]]), r"the frozen choice has shape \(1, 2\), here it is \(2,\)"),
        (torch.tensor([0, 3]), r"the frozen choice picks index 3 of only 3"),
    ],
)
def test_a_choice_that_cannot_be_forced_is_refused_with_the_reason(forced: Tensor, why: str) -> None:
    with decisions_of(head_topk_0=forced) as taps:
        assert SCORES.topk(2).indices.tolist() == [1, 2]
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(taps.decisions["head.topk.0"].refused)


# mmcv's NMS, where mmcv is there

BOXES = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [20.0, 20.0, 30.0, 30.0]])


@pytest.fixture
def mmcv_ops() -> Any:
    pytest.importorskip("mmcv", reason="mmcv is missing; `parity env mmdet3` installs it")
    return importlib.import_module("mmcv.ops")


def test_an_nms_is_one_decision_and_its_own_sort_is_none(mmcv_ops: Any) -> None:
    with decisions_of() as taps:
        kept, keep = mmcv_ops.batched_nms(
            BOXES, SCORES, torch.zeros(3).long(), {"type": "nms", "iou_threshold": 0.5}, True
        )
    assert list(taps.decisions) == ["head.nms.0"]
    assert keep.tolist() == [1, 2]
    assert kept.shape == (2, 5)
    recorded = taps.decisions["head.nms.0"]
    assert recorded.settings["iou_threshold"] == 0.5
    assert recorded.boxes is not None
    assert recorded.boxes.tolist() == BOXES.tolist()


DEFAULTS = {
    **{"iou_threshold": 0.5, "score_threshold": 0.0, "max_num": -1.0, "offset": 0.0},
    **{"split_thr": 10000.0, "class_agnostic": 0.0},
}


@pytest.mark.parametrize(
    "said",
    [{}, {"score_threshold": 0.2}, {"max_num": 1}, {"offset": 1}, {"split_thr": 2}, {"class_agnostic": True}],
    ids=lambda said: "".join(said) or "none",
)
def test_every_setting_of_an_nms_is_recorded(mmcv_ops: Any, said: dict[str, Any]) -> None:
    config = {"type": "nms", "iou_threshold": 0.5, **said}
    with decisions_of() as taps:
        mmcv_ops.batched_nms(BOXES, SCORES, torch.zeros(3).long(), config)
    assert taps.decisions["head.nms.0"].settings == {**DEFAULTS, **{key: float(said[key]) for key in said}}


def test_a_call_says_whether_classes_are_kept_apart_unless_the_config_does(mmcv_ops: Any) -> None:
    config = {"type": "nms", "iou_threshold": 0.5}
    with decisions_of() as taps:
        mmcv_ops.batched_nms(BOXES, SCORES, torch.arange(3), config, True)
        mmcv_ops.batched_nms(BOXES, SCORES, torch.arange(3), config)
        mmcv_ops.batched_nms(BOXES, SCORES, torch.arange(3), {**config, "class_agnostic": False}, True)
    recorded = [decision.settings for decision in taps.decisions.values()]
    assert [settings["class_agnostic"] for settings in recorded] == [1.0, 0.0, 0.0]
    assert ["shifted" in settings for settings in recorded] == [False, True, True]


def test_an_nms_goes_on_with_the_forced_boxes(mmcv_ops: Any) -> None:
    config = {"type": "nms", "iou_threshold": 0.5}
    with decisions_of(head_nms_0=torch.tensor([0])) as taps:
        kept, keep = mmcv_ops.batched_nms(BOXES.double(), SCORES.double(), torch.zeros(3).long(), config, True)
    assert keep.tolist() == [0]
    assert kept.dtype is torch.float64
    assert kept[0, :4].tolist() == BOXES[0].tolist()
    assert taps.decisions["head.nms.0"].chosen.tolist() == [1, 2]


def test_modules_that_imported_the_nms_by_name_get_it_back(mmcv_ops: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    original = mmcv_ops.batched_nms
    importer = SimpleNamespace(batched_nms=original)
    monkeypatch.setitem(sys.modules, "a_module_of_a_user", importer)
    with decisions_of():
        assert importer.batched_nms is not original
        assert mmcv_ops.batched_nms is not original
    assert importer.batched_nms is original
    assert mmcv_ops.batched_nms is original


def filter_scores_and_topk(scores: Tensor, threshold: float) -> Tensor:
    """Stand in for mmdet's function of that name, the only place in which a comparison is a decision."""
    return scores[scores > threshold]


def test_what_scores_above_a_threshold_is_a_decision_that_can_be_forced() -> None:
    scores = torch.tensor([[0.1, 0.7], [0.4, 0.6]])
    with decisions_of(head_threshold_0=torch.tensor([1, 2])) as taps:
        assert filter_scores_and_topk(scores, 0.5).tolist() == scores.flatten()[[1, 2]].tolist()
        assert bool((scores > 0.5).any())  # elsewhere it is just a comparison
    assert list(taps.decisions) == ["head.threshold.0"]
    decision = taps.decisions["head.threshold.0"]
    assert (decision.chosen.tolist(), decision.settings, decision.ordered) == ([1, 3], {"threshold": 0.5}, False)
    assert "__gt__" not in vars(torch.Tensor) or torch.Tensor.__gt__(scores, 0.5).sum() == 2
