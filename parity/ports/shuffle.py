"""The cross-level channel shuffle of DDQ's dense towers (paper, section 3.2: pyramid shuffle)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def shuffle_levels(maps: Sequence[Tensor], *, channels: int) -> list[Tensor]:
    """Let neighbouring levels exchange ``2 * channels`` of their channels.

    A level keeps its first channels. The last ``channels`` of the coarser level and then the last but
    one ``channels`` of the finer level, resized to its own size, replace the rest: in this order, so
    what is borrowed also changes its place. The outermost levels borrow from themselves.

    Args:
        maps: one (B, D, H, W) feature map a level, finest first.
        channels: how many channels each neighbour gives, at most D / 2.

    Returns:
        Maps of the same shapes and dtype; all are mixed from the maps as they came in.

    >>> fine, coarse = torch.zeros(1, 4, 2, 2), torch.arange(4.0).view(1, 4, 1, 1)
    >>> shuffle_levels([fine, coarse], channels=1)[0][0, :, 0, 0].tolist()
    [0.0, 0.0, 3.0, 0.0]
    """
    kept = maps[0].shape[1] - 2 * channels
    last = len(maps) - 1
    mixed = []
    for level, own in enumerate(maps):
        coarser = maps[min(level + 1, last)][:, kept + channels :]
        finer = maps[max(level - 1, 0)][:, kept : kept + channels]
        mixed.append(torch.cat([own[:, :kept], _resized(coarser, own), _resized(finer, own)], dim=1))
    return mixed


def _resized(borrowed: Tensor, own: Tensor) -> Tensor:
    return functional.interpolate(borrowed, size=own.shape[-2:], mode="bilinear", align_corners=True)
