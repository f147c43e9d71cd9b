"""Discrete choices: what is the same, what is an honest tie, what is a bug."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from parity.compare.decisions import Choice, Tolerance, iou_with_slack, judge, margins

NONE = Tolerance(score=0.0)


def rows(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def indices(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def ranked(scores: Tensor, chosen: Tensor, *, kind: str = "topk", largest: bool = True) -> Choice:
    return Choice(kind, scores, chosen, {"largest": float(largest)}, scores.shape[-1])


def suppressed(boxes: Tensor, scores: Tensor, chosen: Tensor, *, threshold: float = 0.5) -> Choice:
    return Choice("nms", scores, chosen, {"iou_threshold": threshold}, len(scores), boxes=boxes)


def test_the_same_choice_has_no_flip() -> None:
    truth = ranked(rows(0.1, 0.9, 0.5), indices(1, 2))
    judged = judge(indices(1, 2), truth, tolerance=NONE)
    assert (judged.flips, judged.uncertified, judged.needed) == (0, 0, 0.0)


@pytest.mark.parametrize("kind", ["topk", "sort"])
def test_an_exact_tie_is_certified_without_any_tolerance(kind: str) -> None:
    truth = ranked(rows(0.9, 0.5, 0.5), indices(0, 1, 2), kind=kind)
    judged = judge(indices(0, 2, 1), truth, tolerance=NONE)
    assert (judged.flips, judged.uncertified, judged.needed) == (2, 0, 0.0)


def test_a_tie_at_the_end_of_a_topk_is_certified() -> None:
    truth = ranked(rows(0.9, 0.5, 0.5), indices(0, 1))
    judged = judge(indices(0, 2), truth, tolerance=NONE)
    assert (judged.flips, judged.uncertified) == (2, 0)


@pytest.mark.parametrize("kind", ["topk", "sort"])
@pytest.mark.parametrize(("tolerance", "uncertified"), [(0.011, False), (0.009, True)])
def test_a_near_tie_is_certified_within_the_tolerance_only(kind: str, tolerance: float, uncertified: bool) -> None:
    truth = ranked(rows(0.9, 0.51, 0.50), indices(0, 1, 2), kind=kind)
    judged = judge(indices(0, 2, 1), truth, tolerance=Tolerance(score=tolerance))
    assert judged.flips == 2
    assert bool(judged.uncertified) == uncertified
    assert judged.needed == pytest.approx(0.01)


def test_a_dropped_top_element_is_a_bug() -> None:
    truth = ranked(rows(0.9, 0.5, 0.4, 0.3), indices(0, 1))
    judged = judge(indices(1, 2), truth, tolerance=Tolerance(score=0.11))
    assert judged.uncertified >= 1
    assert judged.needed == pytest.approx(0.5)


def test_the_smallest_first_is_judged_the_other_way_round() -> None:
    truth = ranked(rows(0.3, 0.1, 0.2), indices(1, 2, 0), kind="sort", largest=False)
    assert judge(indices(1, 2, 0), truth, tolerance=NONE).flips == 0
    assert judge(indices(0, 2, 1), truth, tolerance=Tolerance(score=0.15)).uncertified > 0
    assert judge(indices(2, 1, 0), truth, tolerance=Tolerance(score=0.15)).uncertified == 0


def test_a_topk_of_another_length_is_never_certified() -> None:
    truth = ranked(rows(0.5, 0.5, 0.5), indices(0, 1))
    judged = judge(indices(0, 1, 2), truth, tolerance=Tolerance(score=1.0))
    assert judged.uncertified == judged.flips == 1
    assert judged.needed == math.inf


def test_an_index_beyond_the_candidates_is_never_certified() -> None:
    truth = ranked(rows(0.5, 0.5), indices(0, 1))
    judged = judge(indices(0, 7), truth, tolerance=Tolerance(score=9.0))
    assert judged.uncertified == judged.flips == 2


@pytest.mark.parametrize("actual", [(0, 0), (1, 1)])
def test_an_index_chosen_twice_is_never_certified(actual: tuple[int, int]) -> None:
    truth = ranked(rows(0.5, 0.5, 0.1), indices(0, 1))
    assert judge(indices(*actual), truth, tolerance=Tolerance(score=0.01)).uncertified > 0


def test_an_empty_choice_for_a_full_one_is_a_bug() -> None:
    truth = ranked(rows(0.5, 0.4), indices(0))
    assert judge(indices(), truth, tolerance=Tolerance(score=9.0)).uncertified == 1


def test_a_negative_index_is_never_certified() -> None:
    truth = ranked(rows(0.5, 0.4, 0.4), indices(0, 1))
    assert judge(indices(0, -1), truth, tolerance=NONE).uncertified > 0


def test_every_row_is_judged_by_itself() -> None:
    scores = torch.stack([rows(0.9, 0.5, 0.5), rows(0.9, 0.5, 0.1)])
    truth = ranked(scores, torch.stack([indices(0, 1), indices(0, 1)]))
    judged = judge(torch.stack([indices(0, 2), indices(0, 2)]), truth, tolerance=NONE)
    assert (judged.flips, judged.uncertified) == (4, 1)
    assert judged.needed == pytest.approx(0.4)


def test_rows_that_differ_in_number_are_refused() -> None:
    truth = ranked(torch.zeros(2, 3), torch.zeros(2, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"rows differ: \(1,\) and \(2,\)"):
        judge(torch.zeros(1, 1, dtype=torch.int64), truth, tolerance=NONE)


def test_a_candidate_that_was_not_stored_is_hopeless() -> None:
    truth = Choice("topk", rows(0.9, 0.5), indices(4), {"largest": 1.0}, 10, candidates=indices(4, 7))
    assert judge(indices(7), truth, tolerance=Tolerance(score=0.5)).uncertified == 0
    judged = judge(indices(3), truth, tolerance=Tolerance(score=0.5))
    assert judged.uncertified > 0
    assert judged.needed == math.inf


# Two boxes of IoU 0.6 at the left, one by itself at the right.
BOXES = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 6], [20, 20, 30, 30]], dtype=torch.float64)


def test_the_same_boxes_kept_have_no_flip() -> None:
    truth = suppressed(BOXES, rows(0.9, 0.8, 0.7), indices(0, 2))
    assert judge(indices(0, 2), truth, tolerance=NONE).flips == 0


def test_kept_boxes_of_one_score_may_come_in_either_order() -> None:
    truth = suppressed(BOXES, rows(0.9, 0.8, 0.9), indices(0, 2))
    judged = judge(indices(2, 0), truth, tolerance=NONE)
    assert (judged.flips, judged.uncertified) == (2, 0)


@pytest.mark.parametrize(("gap", "uncertified"), [(0.0, False), (0.01, False), (0.03, True)])
def test_either_of_two_overlapping_boxes_may_win_a_tie(gap: float, uncertified: bool) -> None:
    truth = suppressed(BOXES, rows(0.8 + gap, 0.8, 0.7), indices(0, 2))
    judged = judge(indices(1, 2), truth, tolerance=Tolerance(score=0.02))
    assert judged.flips == 2
    assert bool(judged.uncertified) == uncertified
    assert judged.needed == pytest.approx(gap, abs=1e-12)


def test_keeping_a_suppressed_box_is_a_bug_whatever_the_scores() -> None:
    truth = suppressed(BOXES, rows(0.9, 0.8, 0.7), indices(0, 2))
    judged = judge(indices(0, 1, 2), truth, tolerance=Tolerance(score=9.0))
    assert judged.uncertified > 0
    assert judged.needed == math.inf


def test_dropping_a_box_that_nothing_overlaps_is_a_bug() -> None:
    truth = suppressed(BOXES, rows(0.9, 0.8, 0.7), indices(0, 2))
    judged = judge(indices(0), truth, tolerance=Tolerance(score=9.0))
    assert judged.uncertified > 0
    assert judged.needed == math.inf


def test_keeping_nothing_is_a_bug() -> None:
    truth = suppressed(BOXES, rows(0.9, 0.8, 0.7), indices(0, 2))
    assert judge(indices(), truth, tolerance=Tolerance(score=9.0)).uncertified > 0


@pytest.mark.parametrize(("height", "uncertified"), [(5.0 + 1e-9, False), (5.1, True)])
def test_an_overlap_near_the_threshold_may_be_kept_from_above(height: float, uncertified: bool) -> None:
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, height]], dtype=torch.float64)
    truth = suppressed(boxes, rows(0.9, 0.8), indices(0))
    assert bool(judge(indices(0, 1), truth, tolerance=Tolerance(0.0, box=1e-6)).uncertified) == uncertified


@pytest.mark.parametrize(("height", "uncertified"), [(5.0 - 1e-9, False), (4.9, True)])
def test_an_overlap_near_the_threshold_may_be_dropped_from_below(height: float, uncertified: bool) -> None:
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, height]], dtype=torch.float64)
    truth = suppressed(boxes, rows(0.9, 0.8), indices(0, 1))
    assert bool(judge(indices(0), truth, tolerance=Tolerance(0.0, box=1e-6)).uncertified) == uncertified


@given(st.floats(1e-9, 1e-4), st.integers(0, 2**31))
def test_the_slack_covers_every_move_of_the_coordinates(noise: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    boxes = random_boxes(6, generator=generator)
    moved = boxes + noise * uniform((6, 4), generator=generator)
    before, slack = iou_with_slack(boxes, boxes, noise)
    after, _ = iou_with_slack(moved, moved, 0.0)
    assert bool(((after - before).abs() <= slack * (1 + 1e-3)).all())


def uniform(shape: tuple[int, ...], *, generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, dtype=torch.float64) * 2.0 - 1.0


def random_boxes(count: int, *, generator: torch.Generator) -> Tensor:
    corner = torch.rand((count, 2), generator=generator, dtype=torch.float64) * 2.0
    side = torch.rand((count, 2), generator=generator, dtype=torch.float64) * 3.0 + 1.0
    return torch.cat([corner, corner + side], -1)


def brute_force_nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    kept: list[int] = []
    for index in scores.argsort(descending=True, stable=True).tolist():
        if all(iou(boxes[index], boxes[other]) <= threshold for other in kept):
            kept.append(index)
    return torch.tensor(kept, dtype=torch.int64)


def iou(first: Tensor, second: Tensor) -> float:
    sides = (torch.minimum(first[2:], second[2:]) - torch.maximum(first[:2], second[:2])).clamp(min=0)
    overlap = float(sides.prod())
    area = [float((box[2:] - box[:2]).prod()) for box in (first, second)]
    return overlap / (sum(area) - overlap)


def tied_scores(count: int, *, noise: float, generator: torch.Generator) -> Tensor:
    """Scores on a grid as coarse as the noise, so that ties and near-ties are the rule."""
    steps = torch.randint(0, 6, (count,), generator=generator)
    return 0.5 + steps.double() * noise * 0.7


@given(st.integers(1, 14), st.floats(1e-6, 1e-2), st.integers(0, 2**31))
def test_a_topk_of_perturbed_scores_is_always_certified(count: int, noise: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = tied_scores(count, noise=noise, generator=generator)
    k = int(torch.randint(1, count + 1, (1,), generator=generator))
    truth = ranked(scores, scores.topk(k).indices)
    actual = (scores + noise * uniform((count,), generator=generator)).topk(k).indices
    assert judge(actual, truth, tolerance=Tolerance(score=2.0 * noise)).uncertified == 0


@given(st.integers(1, 14), st.floats(1e-6, 1e-2), st.integers(0, 2**31))
def test_an_nms_of_perturbed_inputs_is_always_certified(count: int, noise: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = tied_scores(count, noise=noise, generator=generator)
    boxes = random_boxes(count, generator=generator)
    truth = suppressed(boxes, scores, brute_force_nms(boxes, scores, 0.5))
    moved_boxes = boxes + noise * 0.01 * uniform((count, 4), generator=generator)
    moved_scores = scores + noise * uniform((count,), generator=generator)
    actual = brute_force_nms(moved_boxes, moved_scores, 0.5)
    judged = judge(actual, truth, tolerance=Tolerance(score=2.0 * noise, box=2.0 * noise * 0.01))
    assert judged.uncertified == 0


@given(st.integers(4, 14), st.integers(0, 2**31))
def test_a_random_other_topk_is_not_certified(count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randperm(count, generator=generator).double()
    truth = ranked(scores, scores.topk(count // 2).indices)
    actual = torch.randperm(count, generator=generator)[: count // 2]
    assume(bool((actual != truth.chosen).any()))
    judged = judge(actual, truth, tolerance=Tolerance(score=0.5))
    assert judged.uncertified >= 1
    assert judged.needed >= 1.0


@given(st.integers(4, 12), st.integers(0, 2**31))
def test_a_random_other_nms_is_not_certified(count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores, boxes = torch.randperm(count, generator=generator).double(), random_boxes(count, generator=generator)
    kept = brute_force_nms(boxes, scores, 0.5)
    actual = torch.randperm(count, generator=generator)[: len(kept)]
    assume(bool((actual != kept).any()))
    assert judge(actual, suppressed(boxes, scores, kept), tolerance=Tolerance(score=0.5)).uncertified >= 1


@given(st.integers(2, 14), st.integers(0, 2**31), st.floats(0.0, 1.0))
def test_needed_is_the_tolerance_that_certifies(count: int, seed: int, share: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(count, generator=generator, dtype=torch.float64)
    truth = ranked(scores, scores.topk(count // 2).indices)
    actual = torch.randperm(count, generator=generator)[: count // 2]
    needed = judge(actual, truth, tolerance=NONE).needed
    assume(needed > 0.0)
    assert judge(actual, truth, tolerance=Tolerance(score=needed)).uncertified == 0
    assert judge(actual, truth, tolerance=Tolerance(score=needed * share * 0.999)).uncertified > 0


def test_margins_of_a_topk_are_its_smallest_gap() -> None:
    assert margins(ranked(rows(0.9, 0.5, 0.45, 0.1), indices(0, 1))).score == pytest.approx(0.05)
    assert margins(ranked(rows(0.9, 0.88, 0.5, 0.1), indices(0, 1))).score == pytest.approx(0.02)


def test_margins_of_a_topk_of_everything_are_gaps_within() -> None:
    assert margins(ranked(rows(0.9, 0.5), indices(0, 1))).score == pytest.approx(0.4)
    assert margins(ranked(rows(0.9), indices(0))).score == math.inf


def test_margins_of_an_nms_tell_the_nearest_iou() -> None:
    found = margins(suppressed(BOXES, rows(0.9, 0.8, 0.7), indices(0, 2)))
    assert found.iou == pytest.approx(0.1)
    assert found.score == pytest.approx(0.2)


def test_the_order_of_an_unsorted_topk_is_no_part_of_the_choice() -> None:
    scores = torch.tensor([0.9, 0.7, 0.5, 0.1], dtype=torch.float64)
    unsorted = Choice("topk", scores, torch.tensor([2, 0, 1]), {"largest": 1.0}, 4, ordered=False)
    assert judge(torch.tensor([1, 2, 0]), unsorted, tolerance=Tolerance(0.0)).flips == 0
    wrong = judge(torch.tensor([1, 3, 0]), unsorted, tolerance=Tolerance(0.0))
    assert (wrong.flips, wrong.uncertified) == (2, 1)
    assert wrong.needed == pytest.approx(0.4)
    tie = judge(torch.tensor([1, 3, 0]), unsorted, tolerance=Tolerance(0.41))
    assert (tie.flips, tie.uncertified) == (2, 0)


def test_the_order_of_a_sorted_topk_is() -> None:
    scores = torch.tensor([0.9, 0.7, 0.5, 0.1], dtype=torch.float64)
    ranked = Choice("topk", scores, torch.tensor([0, 1, 2]), {"largest": 1.0}, 4)
    assert judge(torch.tensor([1, 2, 0]), ranked, tolerance=Tolerance(0.0)).uncertified > 0


@pytest.mark.parametrize(("tolerance", "uncertified"), [(0.021, 0), (0.019, 1)])
def test_a_score_at_a_threshold_flips_within_the_tolerance_only(tolerance: float, uncertified: int) -> None:
    truth = Choice("threshold", rows(0.9, 0.51, 0.2), indices(0, 1), {"threshold": 0.5}, 3, ordered=False)
    judged = judge(indices(0), truth, tolerance=Tolerance(score=tolerance))
    assert (judged.flips, judged.uncertified) == (1, uncertified)
    assert judged.needed == pytest.approx(0.02)  # either of two scores may be off; here only one can
    assert margins(truth).score == pytest.approx(0.01)


def test_a_score_far_from_the_threshold_that_was_not_stored_is_never_certified() -> None:
    truth = Choice("threshold", rows(0.51), indices(1), {"threshold": 0.5}, 3, candidates=indices(1), ordered=False)
    judged = judge(indices(1, 2), truth, tolerance=Tolerance(score=100.0))
    assert (judged.flips, judged.uncertified, judged.needed) == (1, 1, math.inf)
