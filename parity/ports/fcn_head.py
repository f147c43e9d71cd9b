"""The dense head of DDQ FCN; DDQ R-CNN makes its queries with the same network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule, Scale
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.utils import sigmoid_geometric_mean, unpack_gt_instances
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.model import bias_init_with_prob, normal_init
from mmengine.structures import InstanceData
from torch import Tensor, nn

from parity.ports.precision import at_least_float32, no_autocast
from parity.ports.queries import Queries, select_candidates, select_distinct
from parity.ports.shuffle import shuffle_levels

Predictions = dict[str, list[Tensor]]
Predictors = tuple[nn.Sequential, nn.Conv2d, nn.Conv2d, nn.ModuleList]


@MODELS.register_module()
class DDQFCNHead(BaseDenseHead):
    """Dense distinct queries as the detector itself (DDQ FCN).

    It does not build on mmdet's ``AnchorFreeHead``: that one renames every parameter that ends in ``cls`` or ``reg``
    to ``conv_cls`` or ``conv_reg`` when a state dict has no metadata, so auxiliary ones would overwrite main ones.

    Args:
        num_classes, in_channels, feat_channels, stacked_convs: sizes of the two towers.
        strides: pixels a level, finest first.
        norm_cfg: norm layers of the towers.
        shuffle_channels: channels that a level gives to each neighbour.
        cls_shuffles, reg_shuffles: layers of the towers whose inputs are shuffled.
        offset: where in its cell the point of a position lies.
        dqs_cfg: distinct queries selection: config of the suppression, and ``nms_pre``, how many
            positions a level enter it.
        num_distinct_queries: how many detections an image has at most.
        aux_loss, main_loss: configs of the losses before and after the selection.
    """

    def __init__(
        self,
        num_classes: int = 80,
        in_channels: int = 256,
        feat_channels: int = 256,
        stacked_convs: int = 4,
        strides: Sequence[int] = (8, 16, 32, 64, 128),
        norm_cfg: dict[str, Any] | None = None,
        shuffle_channels: int = 64,
        cls_shuffles: Sequence[int] = (2, 3),
        reg_shuffles: Sequence[int] = (3,),
        offset: float = 0.5,
        dqs_cfg: dict[str, Any] | None = None,
        num_distinct_queries: int = 300,
        aux_loss: dict[str, Any] | None = None,
        main_loss: dict[str, Any] | None = None,
        train_cfg: dict[str, Any] | None = None,
        test_cfg: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.feat_channels = feat_channels
        self.strides = tuple(strides)
        self.shuffle_channels = shuffle_channels
        self.cls_shuffles = tuple(cls_shuffles)
        self.reg_shuffles = tuple(reg_shuffles)
        self.num_distinct_queries = num_distinct_queries
        self.dqs_cfg = dict(dqs_cfg or {"type": "nms", "iou_threshold": 0.7, "nms_pre": 1000})
        self.nms_pre = self.dqs_cfg.pop("nms_pre", 1000)
        self.prior_generator = TASK_UTILS.build({"type": "MlvlPointGenerator", "strides": strides, "offset": offset})
        one_to_one = {"type": "DDQDenseLoss", "assigner": {"type": "DDQTopkAssigner", "topk": 1}}
        self.aux_loss = MODELS.build(aux_loss or {"type": "DDQDenseLoss"})
        self.main_loss = MODELS.build(main_loss or one_to_one)
        self._init_towers(stacked_convs, norm_cfg or {"type": "GN", "num_groups": 32, "requires_grad": True})
        self._init_predictors()

    def _init_towers(self, layers: int, norm_cfg: dict[str, Any]) -> None:
        def tower() -> nn.ModuleList:
            widths = [self.in_channels] + [self.feat_channels] * layers
            return nn.ModuleList(
                ConvModule(width, self.feat_channels, 3, padding=1, norm_cfg=norm_cfg) for width in widths[:-1]
            )

        self.cls_convs = tower()
        self.reg_convs = tower()

    def _init_predictors(self) -> None:
        self.objectness, self.conv_cls, self.conv_reg, self.scales = self._predictors()
        self.aux_conv_objectness, self.aux_conv_cls, self.aux_conv_reg, self.aux_scales = self._predictors()

    def _predictors(self) -> Predictors:
        width, hidden = self.feat_channels, self.feat_channels // 4
        objectness = nn.Sequential(
            nn.Conv2d(width, hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden, 1, 3, padding=1)
        )
        classes = nn.Conv2d(width, self.num_classes, 3, padding=1)
        boxes = nn.Conv2d(width, 4, 3, padding=1)
        return objectness, classes, boxes, nn.ModuleList(Scale(1.0) for _ in self.strides)

    def init_weights(self) -> None:
        """Draw the initial weights, in the legacy engine's order.

        Objectness starts unequal, as it does there: bias 0 in the main branch, that of probability 0.01 in
        the auxiliary one, whose first layer keeps torch's own initialisation.
        """
        super().init_weights()
        rare = bias_init_with_prob(0.01)
        for layer in (*self.cls_convs, *self.reg_convs):
            normal_init(layer.conv, std=0.01)
        for layer, bias in (
            (self.objectness[0], 0.0),
            (self.objectness[2], 0.0),
            (self.conv_cls, rare),
            (self.conv_reg, 0.0),
            (self.aux_conv_objectness[2], rare),
            (self.aux_conv_cls, rare),
            (self.aux_conv_reg, 0.0),
        ):
            normal_init(layer, std=0.01, bias=bias)

    def forward(self, feats: Sequence[Tensor]) -> tuple[Predictions, Predictions | None]:
        """Predict densely.

        Args:
            feats: one (B, in_channels, H, W) map a level.

        Returns:
            The main and the auxiliary predictions; the latter only in training. Each has one map a level:
            ``cls_scores_list`` (B, C, H, W) probabilities, ``bbox_preds_list`` (B, 4, H, W) distances
            left, top, right, bottom in strides, ``cls_feats`` and ``reg_feats``, what they are made from.
        """
        cls_feats = self._tower(self.cls_convs, feats, self.cls_shuffles)
        reg_feats = self._tower(self.reg_convs, feats, self.reg_shuffles)
        own = (self.objectness, self.conv_cls, self.conv_reg, self.scales)
        main = self._predict(cls_feats, reg_feats, own)
        if not self.training:
            return main, None
        auxiliary = (self.aux_conv_objectness, self.aux_conv_cls, self.aux_conv_reg, self.aux_scales)
        return main, self._predict(cls_feats, reg_feats, auxiliary)

    def _tower(self, layers: nn.ModuleList, feats: Sequence[Tensor], shuffles: Sequence[int]) -> list[Tensor]:
        maps = list(feats)
        for index, layer in enumerate(layers):
            if index in shuffles:
                maps = shuffle_levels(maps, channels=self.shuffle_channels)
            maps = [layer(level) for level in maps]
        return maps

    def _predict(self, cls_feats: list[Tensor], reg_feats: list[Tensor], predictors: Predictors) -> Predictions:
        objectness, conv_cls, conv_reg, scales = predictors
        scores, distances = [], []
        for cls_feat, reg_feat, scale in zip(cls_feats, reg_feats, scales, strict=True):
            logits = at_least_float32(conv_cls(cls_feat))
            scores.append(sigmoid_geometric_mean(logits, at_least_float32(objectness(reg_feat))))
            distances.append(scale(at_least_float32(conv_reg(reg_feat)).exp()))  # scaled after, not inside exp
        return {"cls_scores_list": scores, "bbox_preds_list": distances, "cls_feats": cls_feats, "reg_feats": reg_feats}

    def select_candidates(self, scores: Sequence[Tensor], distances: Sequence[Tensor]) -> Queries:
        """Return the best ``nms_pre`` decoded positions of every level; see ``queries.select_candidates``."""
        sizes = [level.shape[-2:] for level in scores]
        points = self.prior_generator.grid_priors(sizes, dtype=scores[0].dtype, device=scores[0].device)
        return select_candidates(scores, distances, points=points, strides=self.strides, limit=self.nms_pre)

    def select_queries(self, scores: Sequence[Tensor], distances: Sequence[Tensor]) -> Queries:
        """Return the distinct queries of every image, best first: candidates that survive the suppression.

        Args:
            scores: one (B, C, H, W) map of probabilities a level.
            distances: one (B, 4, H, W) map of distances in strides a level.
        """
        return select_distinct(self.select_candidates(scores, distances), self.dqs_cfg)

    def select_for_training(self, main: Predictions, auxiliary: Predictions) -> tuple[Queries, Queries]:
        """Return the main branch's distinct queries, and the auxiliary branch's candidates."""
        queries = self.select_queries(main["cls_scores_list"], main["bbox_preds_list"])
        return queries, self.select_candidates(auxiliary["cls_scores_list"], auxiliary["bbox_preds_list"])

    def loss(self, x: Sequence[Tensor], batch_data_samples: Sequence[Any]) -> dict[str, Any]:
        """Return the losses of a batch: lists with one scalar an image, and ``num_proposal``."""
        main, auxiliary = self(x)
        return self.loss_by_predictions(main, auxiliary, batch_data_samples)[0]

    def loss_by_predictions(
        self, main: Predictions, auxiliary: Predictions | None, batch_data_samples: Sequence[Any]
    ) -> tuple[dict[str, Any], Queries]:
        """Return the losses and the main branch's distinct queries."""
        assert auxiliary is not None, "the auxiliary branch predicts in training mode only"
        gt_instances, _, img_metas = unpack_gt_instances(batch_data_samples)
        with no_autocast(main["cls_scores_list"][0]):
            queries, candidates = self.select_for_training(main, auxiliary)
            aux_cls, aux_bbox = self.aux_loss(candidates.scores, candidates.boxes, gt_instances, img_metas)
            main_cls, main_bbox = self.main_loss(queries.scores, queries.boxes, gt_instances, img_metas)
        counts = queries.boxes[0].new_tensor([len(boxes) for boxes in queries.boxes])
        losses = {"aux_loss_cls": aux_cls, "aux_loss_bbox": aux_bbox, "loss_cls": main_cls, "loss_bbox": main_bbox}
        return {**losses, "num_proposal": counts.mean()}, queries

    def predict(self, x: Sequence[Tensor], batch_data_samples: Sequence[Any], rescale: bool = False) -> Any:
        """Return the detections of a batch; see ``predict_by_queries``."""
        main, _ = self(x)
        queries = self.select_queries(main["cls_scores_list"], main["bbox_preds_list"])
        img_metas = [sample.metainfo for sample in batch_data_samples]
        return self.predict_by_queries(queries.boxes, queries.scores, img_metas, rescale=rescale)

    def predict_by_queries(
        self,
        boxes: Sequence[Tensor],
        scores: Sequence[Tensor],
        batch_img_metas: Sequence[dict[str, Any]],
        rescale: bool = True,
    ) -> list[InstanceData]:
        """Take the best ``num_distinct_queries`` pairs of query and class of every image.

        Args:
            boxes: (N, 4) pixels xyxy of the padded input an image.
            scores: (N, C) probabilities an image.
            rescale: ignored, as in the legacy engine: boxes always are in pixels of the original image.

        Returns:
            ``bboxes`` (K, 4), ``scores`` (K,) descending and ``labels`` (K,) an image.
        """
        return [self._best_pairs(*image) for image in zip(boxes, scores, batch_img_metas, strict=True)]

    def _best_pairs(self, boxes: Tensor, scores: Tensor, img_meta: dict[str, Any]) -> InstanceData:
        height, width = img_meta["img_shape"][:2]
        limits = boxes.new_tensor([width, height, width, height])
        boxes = torch.minimum(boxes.clamp(min=0), limits)
        boxes = boxes / boxes.new_tensor(img_meta["scale_factor"]).repeat(2)
        count = min(self.num_distinct_queries, scores.numel())
        best, pairs = scores.flatten().topk(count)
        return InstanceData(bboxes=boxes[pairs // self.num_classes], scores=best, labels=pairs % self.num_classes)

    def loss_by_feat(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Not available: what mmdet calls features here are two sets of predictions, see ``loss_by_predictions``."""
        raise NotImplementedError("use loss_by_predictions")
