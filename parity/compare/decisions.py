"""Judge a discrete choice: the same, an honest tie, or a bug.

A flip is certified when the other choice is one that the *truth's own* scores and boxes allow, once
each is moved by no more than the noise. For NMS that means: the kept come in descending score, no kept
pair overlaps beyond the threshold, and everything dropped overlaps something kept that scores at least
as high; each of the three up to the tolerance. Nothing is assumed about which queries ought to swap. For a
threshold it means that what flips lies within the tolerance of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

# mmcv's batched_nms shifts boxes by (greatest coordinate + 1) before it compares them in float32.
_FLOAT32_ROUNDOFF = 2.0**-24


@dataclass(frozen=True)
class Choice:
    """What there was to choose from, in the truth, and what was chosen.

    Attributes:
        kind: ``nms``, ``topk``, ``sort``, ``threshold`` or ``assignment`` (whose scores are a flat cost matrix).
        scores: (..., N) float64; with ``candidates`` only those of the stored candidates (..., M).
        chosen: (..., K) indices, best first.
        boxes: (N, 4) float64, only for ``nms``.
        settings: those of the suppression, ``threshold``, ``largest``, or the ``columns`` of a cost matrix.
        size: N.
        ordered: whether the order of the chosen counts, beside which they are.
        candidates: (..., M) indices that ``scores`` belong to; ``None`` where all are stored.
    """

    kind: str
    scores: Tensor
    chosen: Tensor
    settings: Mapping[str, float]
    size: int
    boxes: Tensor | None = None
    candidates: Tensor | None = None
    ordered: bool = True


def other_settings(actual: Mapping[str, float], expected: Mapping[str, float]) -> str:
    """Return which settings of a decision differ, with both values; nothing where none does.

    Early records hold the ``iou_threshold`` of a suppression alone: its other settings are then not compared.

    >>> other_settings({"iou_threshold": 0.7, "max_num": 99.0}, {"iou_threshold": 0.7, "max_num": -1.0})
    'max_num 99, expected -1'
    >>> other_settings({"iou_threshold": 0.7, "max_num": 99.0}, {"iou_threshold": 0.7})
    ''
    """
    early = set(expected) - {"shifted"} == {"iou_threshold"}
    names = {"iou_threshold", "shifted"} if early else {*actual, *expected}
    different = [name for name in sorted(names) if actual.get(name) != expected.get(name)]
    return ", ".join(f"{name} {_said(actual, name)}, expected {_said(expected, name)}" for name in different)


def _said(settings: Mapping[str, float], name: str) -> str:
    return f"{settings[name]:g}" if name in settings else "not set"


@dataclass(frozen=True)
class Tolerance:
    """How far noise may move a score, and a box coordinate, each in its own unit."""

    score: float
    box: float = 0.0


@dataclass(frozen=True)
class Margins:
    """How close the truth's own choice was: smallest score gap, smallest distance of an IoU to the threshold."""

    score: float
    iou: float


@dataclass(frozen=True)
class Judgement:
    """How one choice compares.

    Attributes:
        flips: indices that are only in one of the two choices, or in both at another rank.
        uncertified: how many of them no noise explains.
        needed: the score tolerance that would have certified all; infinite where none would.
    """

    flips: int
    uncertified: int
    needed: float


def judge(actual: Tensor, truth: Choice, *, tolerance: Tolerance) -> Judgement:
    """Judge ``actual`` (..., K) indices against the truth's choice.

    Raises:
        ValueError: the number of ranked rows differs.
    """
    if actual.shape[:-1] != truth.chosen.shape[:-1]:
        raise ValueError(f"rows differ: {tuple(actual.shape[:-1])} and {tuple(truth.chosen.shape[:-1])}")
    rows = [
        _judge_row(row_actual, row_truth, tolerance)
        for row_actual, row_truth in zip(_rows(actual), _choice_rows(truth), strict=True)
    ]
    return Judgement(
        sum(row.flips for row in rows),
        sum(row.uncertified for row in rows),
        max((row.needed for row in rows), default=0.0),
    )


def _rows(tensor: Tensor) -> list[Tensor]:
    return list(tensor.reshape(-1, tensor.shape[-1])) if tensor.dim() > 1 else [tensor]


def _choice_rows(choice: Choice) -> list[Choice]:
    candidates = [None] * len(_rows(choice.chosen)) if choice.candidates is None else _rows(choice.candidates)
    return [
        Choice(choice.kind, scores, chosen, choice.settings, choice.size, choice.boxes, candidate, choice.ordered)
        for scores, chosen, candidate in zip(_rows(choice.scores), _rows(choice.chosen), candidates, strict=True)
    ]


def _judge_row(actual: Tensor, truth: Choice, tolerance: Tolerance) -> Judgement:
    if not _is_possible(actual, truth.size):
        wrong = max(1, len(set(actual.tolist()) ^ set(truth.chosen.tolist())))
        return Judgement(wrong, wrong, math.inf)
    if truth.kind == "threshold":
        return _judge_threshold(actual, truth, tolerance.score)
    flipped = flipped_indices(actual, truth.chosen)
    if not truth.ordered:
        actual = _best_first(actual, truth)
        flipped = set(actual.tolist()) ^ set(truth.chosen.tolist())
    if not flipped:
        return Judgement(0, 0, 0.0)
    scores = _all_scores(truth)
    if truth.kind == "assignment":
        bad, needed = _assignment_violations(actual, truth, tolerance.score)
    elif truth.kind == "nms":
        bad, needed = _nms_violations(actual, scores, truth, tolerance)
    else:
        bad, needed = _rank_violations(actual, scores, tolerance.score)
        if len(actual) != len(truth.chosen):
            bad, needed = flipped, math.inf
    return Judgement(len(flipped), len(bad & flipped) or min(len(bad), len(flipped)), needed)


def _judge_threshold(actual: Tensor, truth: Choice, tolerance: float) -> Judgement:
    """Judge what lies above a threshold; the tolerance is that of a difference of two scores, here only one moves."""
    flipped = sorted(set(actual.tolist()) ^ set(truth.chosen.tolist()))
    distances = (_all_scores(truth)[flipped] - truth.settings["threshold"]).abs()
    needed = 2.0 * float(distances.max()) if flipped else 0.0
    return Judgement(len(flipped), int((2.0 * distances > tolerance).sum()), needed)


def is_best_first(choice: Choice) -> bool:
    """Whether what was chosen comes in the order of its scores, ties in any order.

    >>> scores = torch.tensor([0.9, 0.7, 0.5])
    >>> [is_best_first(Choice("topk", scores, torch.tensor(c), {}, 3)) for c in ([0, 2], [2, 0])]
    [True, False]
    """
    return not any(bool((scores[1:] > scores[:-1]).any()) for scores in chosen_scores(choice))


def chosen_scores(choice: Choice) -> list[Tensor]:
    """Return the scores (K,) of what each row chose, in its order, best high: of costs their negative."""
    return [_all_scores(row)[row.chosen] for row in _choice_rows(choice)]


def nearest_overlaps(truth: Choice) -> tuple[float, float]:
    """Return the greatest IoU up to the threshold of a suppression, and the least beyond it.

    Of the pairs of a box that was kept and one that scores no higher; infinite where there is no such pair.

    >>> boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 6], [0, 0, 10, 4]])
    >>> scores = torch.tensor([0.9, 0.8, 0.7])
    >>> nearest_overlaps(Choice("nms", scores, torch.tensor([0, 2]), {"iou_threshold": 0.5}, 3, boxes))
    (0.4, 0.6)
    """
    overlap, ranked = _ranked_overlaps(truth)
    return _nearest(overlap[ranked], truth.settings["iou_threshold"])


def nearest_scores(truth: Choice) -> tuple[float, float]:
    """Return the greatest score up to a threshold, and the least above it; infinite where there is none."""
    return _nearest(torch.cat([_all_scores(row) for row in _choice_rows(truth)]), truth.settings["threshold"])


def _nearest(values: Tensor, threshold: float) -> tuple[float, float]:
    below, above = values[values <= threshold], values[values > threshold]
    return (
        float(below.max()) if below.numel() else -math.inf,
        float(above.min()) if above.numel() else math.inf,
    )


def _ranked_overlaps(truth: Choice) -> tuple[Tensor, Tensor]:
    """Return the IoU (K, N) of what was kept with all, and for which of these pairs it could have decided."""
    assert truth.boxes is not None
    scores = _all_scores(truth)
    kept = scores[truth.chosen]
    overlap, _ = iou_with_slack(truth.boxes.double()[truth.chosen], truth.boxes.double(), 0.0)
    overlap[torch.arange(len(truth.chosen)), truth.chosen] = -math.inf
    return overlap, kept[:, None] >= scores[None]


def _best_first(chosen: Tensor, truth: Choice) -> Tensor:
    """Return the chosen in the order of the truth's scores."""
    return chosen[_all_scores(truth)[chosen].argsort(descending=True)]


def _is_possible(actual: Tensor, size: int) -> bool:
    """Whether a choice names each index once, and only ones that exist."""
    chosen = actual.tolist()
    return len(set(chosen)) == len(chosen) and all(0 <= index < size for index in chosen)


def flipped_indices(actual: Tensor, expected: Tensor) -> set[int]:
    """Return the indices that only one holds, and those in both whose rank among the common ones differs.

    >>> flipped_indices(torch.tensor([0, 2, 1, 5]), torch.tensor([0, 1, 2, 4]))
    {1, 2, 4, 5}
    """
    if actual.shape == expected.shape and not bool((actual != expected).any()):
        return set()
    first, second = actual.tolist(), expected.tolist()
    only = set(first) ^ set(second)
    common_first = [index for index in first if index not in only]
    common_second = [index for index in second if index not in only]
    return only | {index for a, b in zip(common_first, common_second, strict=True) if a != b for index in (a, b)}


def _all_scores(truth: Choice) -> Tensor:
    """Return (N,) float64 scores, best high; a candidate that was not stored counts as hopeless."""
    highest_is_best = truth.kind != "assignment" and truth.settings.get("largest", 1.0)
    sign = 1.0 if highest_is_best else -1.0
    scores = truth.scores.double() * sign
    if truth.candidates is None:
        return scores
    full = torch.full((truth.size,), -math.inf, dtype=torch.float64)
    full[truth.candidates] = scores
    return full


def _order_gaps(scores: Tensor) -> Tensor:
    """Return by how much each score exceeds the smallest one before it: 0 where the order descends.

    Infinite beside a score that is no number: nothing orders that.
    """
    if len(scores) < 2:
        return torch.zeros_like(scores)
    gaps = scores[1:] - scores.cummin(0).values[:-1]
    gaps = gaps.nan_to_num(nan=math.inf, posinf=math.inf)
    return torch.cat([torch.zeros(1, dtype=scores.dtype), gaps.clamp(min=0.0)])


def _rank_violations(actual: Tensor, scores: Tensor, tolerance: float) -> tuple[set[int], float]:
    gaps = _order_gaps(scores[actual])
    bad = set(actual[gaps > tolerance].tolist())
    needed = float(gaps.max()) if len(gaps) else 0.0
    left = torch.ones(len(scores), dtype=torch.bool)
    left[actual] = False
    if bool(left.any()) and len(actual):
        beyond = scores[left] - scores[actual].min()
        beyond = beyond.nan_to_num(nan=math.inf, posinf=math.inf)  # a chosen candidate that was not stored is hopeless
        bad |= set(left.nonzero().flatten()[beyond > tolerance].tolist())
        needed = max(needed, float(beyond.max()))
    return bad, needed


def _assignment_violations(actual: Tensor, truth: Choice, tolerance: float) -> tuple[set[int], float]:
    """Judge a matching by what it costs in the truth's own costs, spread over the pairs that differ.

    The truth's is the cheapest; one that costs more than noise can explain is no matching of these costs.
    """
    columns = int(truth.settings["columns"])
    costs = -_all_scores(truth)  # of a pair that was not kept: infinite
    flipped = set(actual.tolist()) ^ set(truth.chosen.tolist())
    rows = (actual // columns).tolist()
    uses_alike = torch.bincount(actual % columns, minlength=columns).tolist()
    same_columns = uses_alike == torch.bincount(truth.chosen % columns, minlength=columns).tolist()
    if len(set(rows)) != len(rows) or not same_columns:
        return flipped, math.inf
    excess = float(costs[actual].sum() - costs[truth.chosen].sum())
    needed = excess / max(1, len(flipped))
    return (flipped if not needed <= tolerance else set()), max(needed, 0.0)


def _assignment_margin(truth: Choice) -> float:
    """Return by how much the cheapest single change of a matching costs more: one other row, or two rows swapped."""
    columns = int(truth.settings["columns"])
    costs = (-_all_scores(truth)).view(-1, columns)
    rows, chosen = truth.chosen // columns, truth.chosen % columns
    pairs = costs[rows, chosen]
    free = torch.ones(len(costs), dtype=torch.bool)
    free[rows] = False
    gaps = [costs[free].amin(0)[chosen] - pairs] if bool(free.any()) else []
    crossed = costs[rows[:, None], chosen[None]]
    swaps = crossed + crossed.T - pairs[:, None] - pairs[None]
    gaps.append(swaps[chosen[:, None] != chosen[None]])
    return min((float(gap.min()) for gap in gaps if gap.numel()), default=math.inf)


def _nms_violations(actual: Tensor, scores: Tensor, truth: Choice, tolerance: Tolerance) -> tuple[set[int], float]:
    if not len(actual):
        return set(range(len(scores))), math.inf
    kept = scores[actual]
    gaps = _order_gaps(kept)
    bad = set(actual[gaps > tolerance.score].tolist())
    needed = float(gaps.max()) if len(gaps) else 0.0
    assert truth.boxes is not None
    boxes, threshold = truth.boxes.double(), truth.settings["iou_threshold"]
    overlap, slack = iou_with_slack(boxes[actual], boxes, tolerance.box, shifted="shifted" in truth.settings)
    overlap[torch.arange(len(actual)), actual] = -math.inf  # a box does not suppress itself
    among_kept = overlap[:, actual] > threshold + slack[:, actual]
    bad |= set(actual[among_kept.any(0)].tolist())
    suppressed = torch.ones(len(scores), dtype=torch.bool)
    suppressed[actual] = False
    near = overlap[:, suppressed] >= threshold - slack[:, suppressed]
    lead = torch.where(near, scores[suppressed] - kept[:, None], torch.tensor(math.inf).double())
    if lead.numel():
        smallest = lead.min(0).values  # how much too low the best explanation of each suppression scores
        bad |= set(suppressed.nonzero().flatten()[smallest > tolerance.score].tolist())
        needed = max(needed, float(smallest.max()))
    return bad, math.inf if bool(among_kept.any()) else needed


def iou_with_slack(first: Tensor, second: Tensor, box_noise: float, *, shifted: bool = False) -> tuple[Tensor, Tensor]:
    """Return the IoU (M, N) of two sets of xyxy boxes, and how far noise in the coordinates can move it.

    Each coordinate may be off by ``box_noise`` plus mmcv's shift (half a float32 ulp of the shifted
    value); ``shifted`` says that these are the shifted boxes already. To first order an edge of length w
    then changes by 2d, an intersection by 2d(w + h), and the quotient accordingly.
    """
    noise = box_noise + _FLOAT32_ROUNDOFF * _greatest_coordinate(first, second, shifted)
    size = (torch.minimum(first[:, None, 2:], second[None, :, 2:])) - torch.maximum(
        first[:, None, :2], second[None, :, :2]
    )
    size = size.clamp(min=0.0)
    overlap = size.prod(-1)
    sides_first, sides_second = first[:, 2:] - first[:, :2], second[:, 2:] - second[:, :2]
    union = sides_first.prod(-1)[:, None] + sides_second.prod(-1)[None] - overlap
    union = union.clamp(min=torch.finfo(torch.float64).tiny)
    iou = overlap / union
    moved_overlap = 2.0 * noise * size.sum(-1)
    moved_union = 2.0 * noise * (sides_first.sum(-1)[:, None] + sides_second.sum(-1)[None]) + moved_overlap
    return iou, (moved_overlap + iou * moved_union) / union


def _greatest_coordinate(first: Tensor, second: Tensor, shifted: bool) -> Tensor:
    """Return the size of the coordinates that are compared: of all boxes alike, or of each pair."""
    if shifted:
        return torch.maximum(first.abs().max(-1).values[:, None], second.abs().max(-1).values[None])
    return torch.tensor(abs(2.0 * float(second.max()) + 1.0) if second.numel() else 1.0).double()


def margins(truth: Choice) -> Margins:
    """Return how close the truth's own choice was, over all its rows."""
    score, iou = math.inf, math.inf
    if truth.kind == "assignment":
        return Margins(_assignment_margin(truth), math.inf)
    for row in _choice_rows(truth):
        scores = _all_scores(row)
        if row.kind == "threshold":
            score = min([score, *(scores - row.settings["threshold"]).abs().tolist()])
            continue
        chosen = scores[row.chosen if row.ordered else _best_first(row.chosen, row)]
        gaps = (chosen[:-1] - chosen[1:]).abs()
        if row.kind == "nms":
            overlap, ranked = _ranked_overlaps(row)
            distance = (overlap - row.settings["iou_threshold"]).abs()[ranked]
            iou = min([iou, *distance.min(-1).values.reshape(-1).tolist()] if distance.numel() else [iou])
        else:
            left = torch.ones(len(scores), dtype=torch.bool)
            left[row.chosen] = False
            if bool(left.any()) and len(chosen):
                gaps = torch.cat([gaps, (chosen.min() - scores[left].max()).reshape(1)])
        score = min([score, *gaps.tolist()])
    return Margins(score, iou)
