"""Regions of interest as mmdet's RoI heads take them."""

from __future__ import annotations

import torch


def to_rois(boxes: torch.Tensor) -> torch.Tensor:
    """Return (B * Q, 5) rows of image index and box, from (B, Q, 4) boxes, pixels xyxy."""
    images = torch.arange(len(boxes), dtype=boxes.dtype, device=boxes.device)
    return torch.cat([images[:, None, None].expand(-1, boxes.shape[1], 1), boxes], dim=-1).flatten(0, 1)
