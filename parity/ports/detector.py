"""The detector of DDQ R-CNN. DDQ FCN needs none of its own: it is mmdet's ``SingleStageDetector``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmdet.models.detectors import TwoStageDetector
from mmdet.registry import MODELS
from torch import Tensor

Config = dict[str, Any]


@MODELS.register_module()
class DDQRCNN(TwoStageDetector):
    """Distinct queries from a dense head, refined by a few stages of Sparse R-CNN.

    mmdet's two-stage detector makes its first head tell objects from background only. This one's predicts
    real classes, so both its construction and its training step are written anew. The dense head sees
    all levels but the finest, the RoI head sees all.

    Args:
        backbone, neck, rpn_head, roi_head: configs of the parts.
        train_cfg: ``rcnn``, settings of every RoI stage.
        test_cfg: ``rcnn``, with ``max_per_img``.
    """

    def __init__(
        self,
        backbone: Config,
        neck: Config,
        rpn_head: Config,
        roi_head: Config,
        train_cfg: Config | None = None,
        test_cfg: Config | None = None,
        data_preprocessor: Config | None = None,
        init_cfg: Config | None = None,
    ) -> None:
        super(TwoStageDetector, self).__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)
        self.neck = MODELS.build(neck)
        self.rpn_head = MODELS.build(rpn_head)
        stages = {"train_cfg": (train_cfg or {}).get("rcnn"), "test_cfg": (test_cfg or {}).get("rcnn")}
        self.roi_head = MODELS.build({**roi_head, **stages})
        self.train_cfg = train_cfg
        self.test_cfg = test_cfg

    def loss(self, batch_inputs: Tensor, batch_data_samples: Sequence[Any]) -> dict[str, Any]:
        """Return the losses: those of the dense head with the prefix ``rpn_``, those of stage 0 with ``s0.``."""
        x = self.extract_feat(batch_inputs)
        dense, queries = self.rpn_head.loss_and_predict(x[1:], batch_data_samples)
        losses = {f"rpn_{name}": value for name, value in dense.items()}
        return {**losses, **self.roi_head.loss(x, queries, batch_data_samples)}

    def predict(self, batch_inputs: Tensor, batch_data_samples: Sequence[Any], rescale: bool = True) -> Any:
        """Return the samples with ``pred_instances``: pixels xyxy, probabilities, classes."""
        x = self.extract_feat(batch_inputs)
        queries = self.rpn_head.predict(x[1:], batch_data_samples)
        results = self.roi_head.predict(x, queries, batch_data_samples, rescale=rescale)
        return self.add_pred_to_datasample(batch_data_samples, results)

    def _forward(self, batch_inputs: Tensor, batch_data_samples: Any = None) -> tuple[Any, list[Any]]:
        """Return the queries and the outputs of every stage."""
        x = self.extract_feat(batch_inputs)
        queries = self.rpn_head.predict(x[1:], batch_data_samples)
        return queries, self.roi_head(x, queries)
