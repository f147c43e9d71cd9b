"""Regions of interest as mmdet's RoI heads take them."""

from __future__ import annotations

from typing import Sequence, Tuple

import torch


def to_rois(boxes: torch.Tensor) -> torch.Tensor:
    """Return (B * Q, 5) rows of image index and box, from (B, Q, 4) boxes, pixels xyxy."""
    images = torch.arange(len(boxes), dtype=boxes.dtype, device=boxes.device)
    return torch.cat([images[:, None, None].expand(-1, boxes.shape[1], 1), boxes], dim=-1).flatten(0, 1)


def proposals_to_rois(boxes: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return (N, 5) rows of image index and box, from one (N_i, 4 or more) tensor of boxes an image, pixels xyxy."""
    numbered = [torch.cat([each.new_full((len(each), 1), i), each[:, :4]], dim=-1) for i, each in enumerate(boxes)]
    return torch.cat(numbered)


def per_image(rows_and_boxes: Tuple[torch.Tensor, Sequence[torch.Tensor]]) -> Tuple[torch.Tensor, ...]:
    """Return (N, ...) rows cut into those of each image, which has as many as boxes."""
    rows, boxes = rows_and_boxes
    return torch.split(rows, [len(each) for each in boxes])
