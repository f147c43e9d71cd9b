"""A closer look at a comparison: maps, histograms, worst values, and the boxes of what was swapped."""

import base64
import json
import math

import pytest
import torch

from parity.compare.decisions import Choice
from parity.compare.detail import EXACT, HIGHEST, LOWEST, NOT_FINITE, NOTHING, detail, error_map, histogram
from parity.compare.swaps import swaps
from parity.compare.verdicts import Verdict
from parity.report.details import Element, Histogram, Swap
from parity.report.results import DecisionResult, Report, StageResult, TensorResult, read_report, to_json


def levels_of(drawn):
    return torch.tensor(list(base64.b64decode(drawn.levels))).view(drawn.rows, drawn.columns)


def look(actual, expected, side=64):
    return detail(actual, expected, of_shape=tuple(actual.shape), places=torch.arange(actual.numel()), side=side)


def test_worst_values_come_worst_first_and_equal_ones_not_at_all():
    expected = torch.zeros(2, 3)
    found = look(expected + torch.tensor([[0.0, 0.5, 0.0], [-2.0, 0.0, 0.25]]), expected)
    assert found.worst == (Element((1, 0), -2.0, 0.0), Element((0, 1), 0.5, 0.0), Element((1, 2), 0.25, 0.0))
    assert found.histogram == Histogram(3, 0, -1.0, (1, 1, 1))


def test_ten_worst_values_at_most():
    assert len(look(torch.ones(30), torch.zeros(30)).worst) == 10


def test_what_is_not_finite_is_the_worst_and_counted():
    found = look(torch.tensor([0.0, math.nan, math.inf, 1.0]), torch.zeros(4))
    assert [each.index for each in found.worst] == [(1,), (2,), (3,)]
    assert (found.histogram.exact, found.histogram.nonfinite) == (1, 2)
    assert levels_of(found.map)[0].tolist() == [EXACT, NOT_FINITE, NOT_FINITE, HIGHEST]


def test_a_map_keeps_the_greatest_error_of_each_bin():
    error = torch.zeros(8, 8)
    error[5, 6], error[5, 7], error[0, 0] = 1e-3, 1e-9, 1e-6
    drawn = look(error, torch.zeros(8, 8), side=4).map
    assert (drawn.rows, drawn.columns, drawn.low, drawn.high) == (4, 4, pytest.approx(1e-9), pytest.approx(1e-3))
    levels = levels_of(drawn)
    assert levels[2, 3] == HIGHEST
    assert levels[0, 0] == (LOWEST + HIGHEST) // 2
    assert (levels == EXACT).sum() == 14


def test_a_map_of_a_feature_map_is_height_by_width():
    error = torch.zeros(2, 16, 5, 7)
    error[1, 3, 4, 2] = 1.0
    drawn = look(error, torch.zeros_like(error)).map
    assert (drawn.down, drawn.across) == ("axis 2 (5)", "axis 3 (7)")
    assert levels_of(drawn)[4, 2] == HIGHEST


def test_places_that_were_not_kept_stay_empty():
    drawn = error_map(torch.tensor([1.0, 0.0]).double(), torch.tensor([0, 5]), (2, 3), side=64)
    assert levels_of(drawn).tolist() == [[HIGHEST, NOTHING, NOTHING], [NOTHING, NOTHING, EXACT]]


def test_a_sketch_has_no_map_and_a_number_neither():
    assert detail(torch.ones(4), torch.zeros(4), of_shape=(9, 9), places=None, side=64).map is None
    assert look(torch.tensor(1.0), torch.tensor(0.0)).map is None


def test_flags_and_integers_have_details_too():
    assert look(torch.tensor([True, False]), torch.tensor([True, True])).worst == (Element((1,), 0.0, 1.0),)


def test_no_error_at_all():
    assert histogram(torch.zeros(3).double()) == Histogram(3, 0, 0.0, ())
    assert look(torch.zeros(3), torch.zeros(3)).worst == ()


def choice(**rest):
    boxes = torch.tensor([[0.0, 0.0, 10.0, 20.0], [5.0, 5.0, 15.0, 25.0], [0.0, 0.0, 20.0, 40.0]])
    return Choice("nms", torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 2]), {"iou_threshold": 0.5}, 3, boxes, **rest)


def test_swaps_name_ranks_scores_and_boxes():
    found = swaps(torch.tensor([0, 1]), choice(), frame=(20.0, 40.0))
    assert [(swap.index, swap.expected_rank, swap.actual_rank) for swap in found] == [(1, None, 1), (2, 1, None)]
    assert found[0].score == pytest.approx(0.8)
    assert found[0].box == (0.25, 0.125, 0.75, 0.625)


def test_swaps_without_a_frame_have_no_box_and_those_of_an_equal_choice_are_none():
    assert swaps(torch.tensor([0, 1]), choice(), frame=None)[0].box is None
    assert swaps(torch.tensor([0, 2]), choice(), frame=None) == ()


def test_details_swaps_and_rows_survive_the_results_file(tmp_path):
    looked = look(torch.tensor([[0.0, math.nan], [1.0, 2.0]]), torch.zeros(2, 2))
    tensor = TensorResult(
        "a", Verdict.NONFINITE, (2, 2), nonfinite=1, detail=looked, rows=(("x", 1.5), ("y", math.inf))
    )
    decision = DecisionResult(
        "nms", "d", Verdict.CERTIFIED, swaps=(Swap(1, None, 2, 0.5, (0.0, 0.1, 0.2, 0.3)),), picture="data:"
    )
    result = StageResult("case", "r", "neck", "isolated", "fp64", "cpu", 1.0, (tensor,), (decision,))
    path = tmp_path / "results.json"
    path.write_text(to_json(Report({}, (result,), 12.5)))
    back = read_report(path)
    assert back.seconds == 12.5
    read = back.results[0]
    assert str(read.tensors[0].detail) == str(looked)  # as text, where one NaN is like another
    assert (read.tensors[0].rows, read.decisions) == (tensor.rows, (decision,))


def test_what_a_tensor_has_not_is_not_written():
    result = StageResult("case", "r", "neck", "isolated", "fp64", "cpu", 1.0, (TensorResult("a", Verdict.EQUAL),))
    (written,) = json.loads(to_json(Report({}, (result,))))["results"][0]["tensors"]
    assert not {"detail", "rows", "nonfinite"} & written.keys()
