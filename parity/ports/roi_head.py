"""The RoI head of DDQ R-CNN: the stages of Sparse R-CNN on distinct queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from mmdet.models.roi_heads import SparseRoIHead
from mmdet.models.utils import unpack_gt_instances
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData
from torch import Tensor

from parity.ports.precision import at_least_float32, no_autocast
from parity.ports.rpn_head import RoIQueries


class StageOutputs(NamedTuple):
    """What one stage makes of B times Q queries.

    Attributes:
        class_logits: (B, Q, C).
        boxes: (B, Q, 4) refined boxes, pixels xyxy of the padded input, not clipped.
        features: (B, Q, D) content of the queries for the next stage.
    """

    class_logits: Tensor
    boxes: Tensor
    features: Tensor


@MODELS.register_module()
class DDQRoIHead(SparseRoIHead):
    """Refines distinct queries in stages; queries come and go as tensors, not as ``InstanceData``.

    Rows of zeros that fill up an image's queries are queries like any other: they take part in attention,
    matching and the final selection, as in the legacy engine.
    """

    def forward_stage(self, stage: int, feats: Sequence[Tensor], boxes: Tensor, features: Tensor) -> StageOutputs:
        """Run one stage.

        Args:
            feats: one (B, D, H, W) map a level.
            boxes: (B, Q, 4) pixels xyxy of the padded input.
            features: (B, Q, D) content of the queries.
        """
        extractor, head = self.bbox_roi_extractor[stage], self.bbox_head[stage]
        # In half precision a coordinate near 1333 is off by up to half a pixel; bfloat16 RoIAlign does not exist.
        maps = [at_least_float32(level) for level in feats[: extractor.num_inputs]]
        regions = extractor(maps, bbox2roi(list(boxes))).to(features.dtype)
        logits, deltas, features, _ = head(regions, features)
        deltas = at_least_float32(deltas).flatten(0, 1)
        refined = head.bbox_coder.decode(boxes.flatten(0, 1), deltas).view_as(boxes)
        return StageOutputs(at_least_float32(logits), refined, features)

    def loss(self, x: Sequence[Tensor], queries: RoIQueries, batch_data_samples: Sequence[Any]) -> dict[str, Tensor]:
        """Return the losses of all stages, named ``s0.loss_cls``, ``s0.pos_acc``, ..."""
        gt_instances, _, img_metas = unpack_gt_instances(batch_data_samples)
        boxes, features = queries
        losses = {}
        for stage, weight in enumerate(self.stage_loss_weights):
            outputs = self.forward_stage(stage, x, boxes, features)
            with no_autocast(boxes):
                values = self.loss_by_stage(stage, outputs.class_logits, outputs.boxes, gt_instances, img_metas)
            for name, value in values.items():
                losses[f"s{stage}.{name}"] = value * weight if "loss" in name else value
            boxes, features = outputs.boxes.detach(), outputs.features
        return losses

    def loss_by_stage(
        self,
        stage: int,
        class_logits: Tensor,
        boxes: Tensor,
        batch_gt_instances: Sequence[InstanceData],
        batch_img_metas: Sequence[dict[str, Any]],
    ) -> dict[str, Tensor]:
        """Return ``loss_cls``, ``pos_acc``, ``loss_bbox`` and ``loss_iou`` of one stage's outputs."""
        matches = [
            self._match(stage, *image)
            for image in zip(class_logits.detach(), boxes.detach(), batch_gt_instances, batch_img_metas, strict=True)
        ]
        sizes = boxes.new_tensor([[meta["img_shape"][1], meta["img_shape"][0]] * 2 for meta in batch_img_metas])
        results = self.bbox_head[stage].loss_and_target(
            class_logits.flatten(0, 1),
            boxes.flatten(0, 1),
            matches,
            self.train_cfg[stage],
            imgs_whwh=sizes[:, None].expand_as(boxes),
        )
        losses: dict[str, Tensor] = results["loss_bbox"]
        return losses

    def _match(
        self, stage: int, logits: Tensor, boxes: Tensor, gt_instances: InstanceData, img_meta: dict[str, Any]
    ) -> Any:
        wanted = InstanceData(bboxes=gt_instances.bboxes.to(boxes.dtype), labels=gt_instances.labels)
        predicted = InstanceData(bboxes=boxes, scores=logits, priors=boxes)
        assigned = self.bbox_assigner[stage].assign(predicted, wanted, img_meta=img_meta)
        return self.bbox_sampler[stage].sample(assigned, predicted, wanted)

    def predict(
        self, x: Sequence[Tensor], queries: RoIQueries, batch_data_samples: Sequence[Any], rescale: bool = False
    ) -> list[InstanceData]:
        """Return the detections of a batch; see ``predict_by_stage``."""
        boxes, features = queries
        logits = boxes.new_zeros(*boxes.shape[:2], self.bbox_head[-1].num_classes)
        if boxes.shape[1]:
            for stage in range(self.num_stages):
                logits, boxes, features = self.forward_stage(stage, x, boxes, features)
        metas = [sample.metainfo for sample in batch_data_samples]
        return self.predict_by_stage(logits, boxes, metas, rescale=rescale)

    def predict_by_stage(
        self,
        class_logits: Tensor,
        boxes: Tensor,
        batch_img_metas: Sequence[dict[str, Any]],
        rescale: bool = True,
    ) -> list[InstanceData]:
        """Take the best ``max_per_img`` pairs of query and class of every image; boxes are not clipped.

        Args:
            class_logits: (B, Q, C) of the last stage.
            boxes: (B, Q, 4) of the last stage, pixels xyxy of the padded input.
            rescale: whether to return boxes in pixels of the original image.

        Returns:
            ``bboxes`` (K, 4), ``scores`` (K,) in no particular order and ``labels`` (K,) an image.
        """
        return [
            self._best_pairs(*image, rescale=rescale)
            for image in zip(class_logits.sigmoid(), boxes, batch_img_metas, strict=True)
        ]

    def _best_pairs(self, scores: Tensor, boxes: Tensor, img_meta: dict[str, Any], *, rescale: bool) -> InstanceData:
        count = min(self.test_cfg["max_per_img"], scores.numel())
        best, pairs = scores.flatten().topk(count, sorted=False)
        chosen = boxes[pairs // scores.shape[-1]]
        if rescale:
            chosen = chosen / chosen.new_tensor(img_meta["scale_factor"]).repeat(2)
        return InstanceData(bboxes=chosen, scores=best, labels=pairs % scores.shape[-1])

    def forward(self, x: Sequence[Tensor], queries: RoIQueries, batch_data_samples: Any = None) -> list[StageOutputs]:
        """Return the outputs of every stage, without losses or post-processing."""
        boxes, features = queries
        outputs = []
        for stage in range(self.num_stages):
            outputs.append(self.forward_stage(stage, x, boxes, features))
            boxes, features = outputs[-1].boxes, outputs[-1].features
        return outputs
