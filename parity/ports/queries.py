"""From dense predictions to distinct queries: pre-selection a level, then non-maximum suppression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from mmcv.ops import batched_nms
from mmdet.models.utils import filter_scores_and_topk
from mmdet.structures.bbox import distance2bbox
from torch import Tensor


class Queries(NamedTuple):
    """Queries of a batch; every list has one tensor an image.

    Attributes:
        boxes: (N, 4), pixels xyxy of the padded input, not clipped to the image.
        scores: (N, C), probabilities of all classes.
        indices: (N,) int64, positions counted over all levels, finest first and row by row.
    """

    boxes: list[Tensor]
    scores: list[Tensor]
    indices: list[Tensor]


def select_candidates(
    scores: Sequence[Tensor],
    distances: Sequence[Tensor],
    *,
    points: Sequence[Tensor],
    strides: Sequence[int],
    limit: int,
) -> Queries:
    """Decode the best ``limit`` positions of every level, ranked by their best class, in every image.

    Args:
        scores: one (B, C, H, W) map of probabilities a level.
        distances: one (B, 4, H, W) map of distances left, top, right, bottom a level, in strides.
        points: one (H * W, 2) tensor a level, pixels xy.
        strides: pixels a level.
    """
    images = []
    for image in range(scores[0].shape[0]):
        levels = []
        first = 0
        for level_scores, level_distances, level_points, stride in zip(scores, distances, points, strides, strict=True):
            rows = {
                "scores": level_scores[image].permute(1, 2, 0).flatten(0, 1),
                "distances": level_distances[image].permute(1, 2, 0).flatten(0, 1) * stride,
                "points": level_points,
            }
            levels.append(_best_of_level(rows, first=first, limit=limit))
            first += len(level_points)
        images.append([torch.cat(parts) for parts in zip(*levels, strict=True)])
    return Queries(*map(list, zip(*images, strict=True)))


def _best_of_level(rows: dict[str, Tensor], *, first: int, limit: int) -> list[Tensor]:
    # The threshold 0 drops what is exactly 0 and what is not a number, as the legacy engine does.
    ranking = rows["scores"].max(dim=1, keepdim=True).values
    _, _, chosen, best = filter_scores_and_topk(ranking, 0, limit, rows)
    return [distance2bbox(best["points"], best["distances"]), best["scores"], chosen + first]


def select_distinct(candidates: Queries, nms: dict[str, Any]) -> Queries:
    """Keep what class-agnostic non-maximum suppression leaves, best first.

    Args:
        candidates: as ``select_candidates`` returns them.
        nms: ``type``, ``iou_threshold`` and what else ``mmcv.ops.batched_nms`` takes.
    """
    images = [
        (boxes[keep], scores[keep], indices[keep])
        for boxes, scores, indices in zip(*candidates, strict=True)
        for keep in [_survivors(boxes.detach(), scores.detach(), nms)]
    ]
    return Queries(*map(list, zip(*images, strict=True)))


def _survivors(boxes: Tensor, scores: Tensor, nms: dict[str, Any]) -> Tensor:
    if not len(boxes):  # batched_nms looks for the greatest coordinate, which no box has
        return torch.zeros(0, dtype=torch.long, device=boxes.device)
    ranking = scores.max(dim=1).values
    # Ids of one and not class_agnostic: all boxes are shifted alike before suppression. That changes no
    # overlap but its rounding, and with it what survives a float32 run at the threshold.
    keep: Tensor = batched_nms(boxes, ranking, torch.ones_like(ranking), nms)[1]
    return keep
