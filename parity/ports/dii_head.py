"""One RoI stage of DDQ R-CNN: mmdet's DIIHead with the legacy engine's loss normalisation."""

from __future__ import annotations

from typing import Any

from mmdet.models.losses import accuracy
from mmdet.models.roi_heads.bbox_heads import DIIHead
from mmdet.models.task_modules.samplers import SamplingResult
from mmdet.registry import MODELS
from mmdet.utils import reduce_mean
from torch import Tensor


@MODELS.register_module()
class DDQDIIHead(DIIHead):
    """mmdet's ``DIIHead``, its losses divided by exactly the number of positives.

    mmdet 3.x divides by that number plus 1.2e-7. Where a batch has no positive at all, its class loss is
    huge, that of the legacy engine is infinite.

    Args:
        min_positives: lower bound of the divisor. 0 is the legacy engine's loss, which is infinite for
            a batch without any ground truth on any process; 1 makes such a batch harmless.
    """

    def __init__(self, min_positives: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.min_positives = min_positives

    def loss_and_target(
        self,
        cls_score: Tensor,
        bbox_pred: Tensor,
        sampling_results: list[SamplingResult],
        rcnn_train_cfg: Any,
        imgs_whwh: Tensor,
        concat: bool = True,
        reduction_override: str | None = None,
    ) -> dict[str, Any]:
        """Return the losses of a batch and the targets they are made with.

        Args:
            cls_score: (B * Q, C) logits.
            bbox_pred: (B * Q, 4) refined boxes, pixels xyxy.
            sampling_results: matches, one an image.
            imgs_whwh: (B, Q, 4) width, height, width, height, pixels.
        """
        targets = self.get_targets(sampling_results, rcnn_train_cfg, concat)
        labels, label_weights, bbox_targets, bbox_weights = targets
        positive = labels < self.num_classes
        divisor = reduce_mean(positive.sum().to(cls_score.dtype)).clamp(min=self.min_positives)
        losses = {
            "loss_cls": self.loss_cls(cls_score, labels, label_weights, reduction_override="sum") / divisor,
            "pos_acc": accuracy(cls_score[positive], labels[positive]),
        }
        if positive.any():
            size = imgs_whwh.reshape(-1, 4)[positive]
            boxes, wanted, weights = bbox_pred[positive], bbox_targets[positive], bbox_weights[positive]
            scaled = self.loss_bbox(boxes / size, wanted / size, weights, reduction_override="sum")
            overlap = self.loss_iou(boxes, wanted, weights, reduction_override="sum")
            losses.update(loss_bbox=scaled / divisor, loss_iou=overlap / divisor)
        else:
            losses.update(loss_bbox=bbox_pred.sum() * 0, loss_iou=bbox_pred.sum() * 0)
        return {"loss_bbox": losses, "bbox_targets": targets}
