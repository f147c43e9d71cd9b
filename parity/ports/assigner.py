"""One-to-many and one-to-one matching of dense predictions, and the soft scores that come with it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from mmdet.models.layers import inverse_sigmoid
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor


class Matches(NamedTuple):
    """Matched pairs of one image, in ascending order of predictions.

    Attributes:
        predictions: (M,) int64.
        ground_truths: (M,) int64; every ground truth has the same number of predictions.
        soft_scores: (M,) what the score of its class is trained towards, dtype of the scores.
    """

    predictions: Tensor
    ground_truths: Tensor
    soft_scores: Tensor


@TASK_UTILS.register_module()
class DDQTopkAssigner:
    """Hungarian matching in which every ground truth takes ``topk`` predictions (DDQ; alignment as in TOOD).

    mmdet's ``TopkHungarianAssigner`` reads probabilities as if they were logits; the legacy engine of DDQ
    FCN and DDQ R-CNN turns them back into logits first, so the two match differently.

    Args:
        topk: predictions a ground truth; fewer where there are not enough of them.
        alpha, beta: exponents of score and overlap in the alignment metric.
        cls_cost, reg_cost, iou_cost: configs of mmdet match costs.
    """

    def __init__(
        self,
        topk: int = 8,
        alpha: float = 1,
        beta: float = 6,
        cls_cost: dict[str, Any] | None = None,
        reg_cost: dict[str, Any] | None = None,
        iou_cost: dict[str, Any] | None = None,
    ) -> None:
        self.topk = topk
        self.alpha = alpha
        self.beta = beta
        self.cls_cost = TASK_UTILS.build(cls_cost or {"type": "FocalLossCost", "weight": 2.0})
        self.reg_cost = TASK_UTILS.build(reg_cost or {"type": "BBoxL1Cost", "weight": 5.0, "box_format": "xyxy"})
        self.iou_cost = TASK_UTILS.build(iou_cost or {"type": "IoUCost", "iou_mode": "giou", "weight": 2.0})

    @torch.no_grad()
    def assign(
        self, scores: Tensor, boxes: Tensor, gt_boxes: Tensor, gt_labels: Tensor, img_meta: dict[str, Any]
    ) -> Matches:
        """Match the predictions of one image.

        Args:
            scores: (N, C) probabilities.
            boxes: (N, 4) pixels xyxy.
            gt_boxes: (G, 4) pixels xyxy.
            gt_labels: (G,) int64.
            img_meta: needs ``img_shape``.

        Returns:
            ``min(topk, N // G)`` predictions a ground truth: none at all where G is 0 or greater than N.
        """
        copies = min(self.topk, len(boxes) // len(gt_boxes)) if len(gt_boxes) else 0
        if not copies:
            nothing = gt_labels.new_zeros(0)
            return Matches(nothing, nothing, scores.new_zeros(0))
        cost = self._cost(scores, boxes, gt_boxes, gt_labels, img_meta)
        # Copies of a ground truth are neighbours: which of several equal matchings scipy finds depends on it.
        rows, columns = linear_sum_assignment(cost.repeat_interleave(copies, dim=1).cpu().numpy())
        predictions = torch.from_numpy(rows).to(scores.device)
        ground_truths = torch.from_numpy(columns).to(scores.device) // copies
        overlaps = bbox_overlaps(boxes[predictions], gt_boxes[ground_truths], is_aligned=True)
        alignment = scores[predictions, gt_labels[ground_truths]] ** self.alpha * overlaps**self.beta
        return Matches(predictions, ground_truths, _soft_scores(alignment, overlaps, ground_truths))

    def _cost(
        self, scores: Tensor, boxes: Tensor, gt_boxes: Tensor, gt_labels: Tensor, img_meta: dict[str, Any]
    ) -> Tensor:
        """Return the (N, G) matching cost."""
        predicted = InstanceData(bboxes=boxes, scores=inverse_sigmoid(scores))
        wanted = InstanceData(bboxes=gt_boxes, labels=gt_labels)
        kinds = (self.cls_cost, self.reg_cost, self.iou_cost)
        costs: list[Tensor] = [kind(predicted, wanted, img_meta) for kind in kinds]
        return costs[0] + costs[1] + costs[2]


def _soft_scores(alignment: Tensor, overlaps: Tensor, ground_truths: Tensor) -> Tensor:
    """Scale the alignment of each ground truth's predictions so that its best one gets its best overlap.

    >>> one = torch.tensor([0, 0])
    >>> [round(score, 4) for score in _soft_scores(torch.tensor([0.1, 0.2]), torch.tensor([0.5, 0.8]), one).tolist()]
    [0.4, 0.8]
    """
    count = int(ground_truths.max()) + 1
    best_alignment = alignment.new_zeros(count).scatter_reduce(0, ground_truths, alignment, "amax")
    best_overlap = overlaps.new_zeros(count).scatter_reduce(0, ground_truths, overlaps, "amax")
    # 10e-8, not 1e-8: the legacy engine's value.
    return alignment / (best_alignment[ground_truths] + 10e-8) * best_overlap[ground_truths]
