"""The loss of dense queries: quality focal loss towards soft scores, GIoU loss weighted by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.utils import reduce_mean
from mmengine.structures import InstanceData
from torch import Tensor, nn


class Targets(NamedTuple):
    """What the predictions of one image are trained towards.

    Attributes:
        labels: (N,) int64, the number of classes for background.
        weights: (N,) weights of the class loss.
        soft_scores: (N,) in [0, 1], 0 for background.
        matched: (M,) int64, the predictions that have a ground truth.
        matched_boxes: (M, 4), the boxes of these ground truths, pixels xyxy.
    """

    labels: Tensor
    weights: Tensor
    soft_scores: Tensor
    matched: Tensor
    matched_boxes: Tensor


@MODELS.register_module()
class DDQDenseLoss(nn.Module):
    """Loss of one set of predictors.

    Every image gives its own summed loss; all are divided by the sum of soft scores of the whole batch
    (mean over processes, at least 1). Sums are taken with ``reduction="sum"``: with an ``avg_factor``
    of 1, mmdet 3.x divides by 1 + 1.2e-7.

    Args:
        assigner: config of the matching.
        loss_cls: config of a loss that takes probabilities and (label, score) targets.
        loss_bbox: config of the box loss.
    """

    def __init__(
        self,
        assigner: dict[str, Any] | None = None,
        loss_cls: dict[str, Any] | None = None,
        loss_bbox: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        quality_focal = {
            "type": "QualityFocalLoss",
            "use_sigmoid": True,
            "activated": True,
            "beta": 2.0,
            "loss_weight": 1.0,
        }
        self.assigner = TASK_UTILS.build(assigner or {"type": "DDQTopkAssigner", "topk": 8})
        self.loss_cls = MODELS.build(loss_cls or quality_focal)
        self.loss_bbox = MODELS.build(loss_bbox or {"type": "GIoULoss", "loss_weight": 2.0})

    def forward(
        self,
        scores: Sequence[Tensor],
        boxes: Sequence[Tensor],
        batch_gt_instances: Sequence[InstanceData],
        batch_img_metas: Sequence[dict[str, Any]],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return the class losses and the box losses, one scalar an image each.

        Args:
            scores: (N, C) probabilities an image.
            boxes: (N, 4) pixels xyxy an image.
        """
        arguments = zip(scores, boxes, batch_gt_instances, batch_img_metas, strict=True)
        targets = [self.targets(*image) for image in arguments]
        divisor = _divisor(targets)
        class_losses = [self._class_loss(*image) / divisor for image in zip(scores, targets, strict=True)]
        box_losses = [self._box_loss(*image) / divisor for image in zip(boxes, targets, strict=True)]
        return class_losses, box_losses

    @torch.no_grad()
    def targets(self, scores: Tensor, boxes: Tensor, gt_instances: InstanceData, img_meta: dict[str, Any]) -> Targets:
        """Return the targets of one image; see ``forward`` for the arguments."""
        gt_boxes, gt_labels = gt_instances.bboxes.to(boxes.dtype), gt_instances.labels
        labels = gt_labels.new_full((len(scores),), scores.shape[-1])
        # An image without ground truth does not train its background: kept from the legacy engine.
        weights = scores.new_full((len(scores),), float(len(gt_labels) > 0))
        soft_scores = scores.new_zeros(len(scores))
        matches = self.assigner.assign(scores, boxes, gt_boxes, gt_labels, img_meta)
        labels[matches.predictions] = gt_labels[matches.ground_truths]
        soft_scores[matches.predictions] = matches.soft_scores
        return Targets(labels, weights, soft_scores, matches.predictions, gt_boxes[matches.ground_truths])

    def _class_loss(self, scores: Tensor, targets: Targets) -> Tensor:
        wanted = (targets.labels, targets.soft_scores)
        loss: Tensor = self.loss_cls(scores, wanted, targets.weights, reduction_override="sum")
        return loss

    def _box_loss(self, boxes: Tensor, targets: Targets) -> Tensor:
        if not len(targets.matched):
            return boxes.sum() * 0
        weights = targets.soft_scores[targets.matched]
        loss: Tensor = self.loss_bbox(boxes[targets.matched], targets.matched_boxes, weights, reduction_override="sum")
        return loss


def _divisor(targets: Sequence[Targets]) -> float:
    """Return the sum of soft scores of the batch, mean over processes, at least 1; no gradient flows through it."""
    total = torch.stack([image.soft_scores.sum() for image in targets]).sum()
    return float(reduce_mean(total).clamp(min=1).item())
