"""The query-making head of DDQ R-CNN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from parity.ports.fcn_head import DDQFCNHead, Predictions
from parity.ports.queries import Queries


class RoIQueries(NamedTuple):
    """What enters the RoI head. Images with fewer queries than others end in rows of zeros.

    Attributes:
        boxes: (B, Q, 4) pixels xyxy of the padded input, not clipped, without gradient.
        features: (B, Q, D) content of the queries.
    """

    boxes: Tensor
    features: Tensor


@MODELS.register_module()
class DDQFCNRPN(DDQFCNHead):
    """DDQ's dense head with a projection that turns its features into query contents.

    All its classes are real ones, unlike those of mmdet's region proposal networks. ``num_distinct_queries``
    is how many queries an image gives to the RoI head at most.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.compress = nn.Linear(2 * self.feat_channels, self.feat_channels)

    def build_queries(
        self,
        boxes: Sequence[Tensor],
        scores: Sequence[Tensor],
        indices: Sequence[Tensor],
        cls_feats: Sequence[Tensor],
        reg_feats: Sequence[Tensor],
    ) -> RoIQueries:
        """Turn the best distinct queries into boxes and contents for the RoI head.

        Args:
            boxes, scores, indices: distinct queries, one tensor an image; see ``queries.Queries``.
            cls_feats, reg_feats: one (B, D, H, W) map a level.

        Returns:
            As many queries as the image with most has, at most ``num_distinct_queries``.
        """
        contents = _flat_levels(cls_feats, reg_feats)
        images = []
        for image in range(len(boxes)):
            order = scores[image].max(dim=1).values.sort(descending=True).indices[: self.num_distinct_queries]
            chosen = contents[image][indices[image][order]]
            images.append((boxes[image][order].detach(), self.compress(chosen)))
        return RoIQueries(*(pad_sequence(list(parts), batch_first=True) for parts in zip(*images, strict=True)))

    def predict(self, x: Sequence[Tensor], batch_data_samples: Sequence[Any], rescale: bool = False) -> RoIQueries:
        """Return the queries for the RoI head. There is nothing to rescale: boxes stay in input pixels."""
        main, _ = self(x)
        return self._queries(main, self.select_queries(main["cls_scores_list"], main["bbox_preds_list"]))

    def loss_and_predict(
        self, x: Sequence[Tensor], batch_data_samples: Sequence[Any], proposal_cfg: Any = None
    ) -> tuple[dict[str, Any], RoIQueries]:
        """Return the dense losses, and the queries for the RoI head."""
        main, auxiliary = self(x)
        losses, queries = self.loss_by_predictions(main, auxiliary, batch_data_samples)
        return losses, self._queries(main, queries)

    def _queries(self, main: Predictions, queries: Queries) -> RoIQueries:
        return self.build_queries(*queries, main["cls_feats"], main["reg_feats"])


def _flat_levels(cls_feats: Sequence[Tensor], reg_feats: Sequence[Tensor]) -> Tensor:
    """Return both kinds of features side by side, (B, positions, 2 * D), without gradient."""
    levels: list[Tensor] = [torch.cat(pair, dim=1).flatten(2) for pair in zip(cls_feats, reg_feats, strict=True)]
    return torch.cat(levels, dim=2).transpose(1, 2).detach()
