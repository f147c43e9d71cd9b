"""What runs in no stage is told."""

from __future__ import annotations

import torch
from torch import nn

from parity.taps.coverage import Coverage


class RoIHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bbox_head, self.mask_head, self.idle = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)

    def boxes(self, x: torch.Tensor) -> torch.Tensor:
        return self.bbox_head(x)


class Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.level_embed = nn.Parameter(torch.zeros(2))  # the detector itself runs around all stages
        self.backbone, self.roi_head = nn.Sequential(nn.Linear(2, 2), nn.ReLU()), RoIHead()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.backbone(x)
        return self.roi_head.mask_head(x) + self.roi_head.boxes(x) + self.roi_head.bbox_head(x)


def left_out(*paths: str) -> list[str]:
    model = Detector()
    with Coverage(model, paths) as coverage:
        model(torch.ones(1, 2))
    assert "boxes" not in vars(model.roi_head)
    assert "forward" not in vars(model.backbone[0])
    return coverage.left_out()


def test_a_part_that_runs_outside_of_all_stages_is_left_out() -> None:
    assert left_out("backbone", "roi_head.boxes") == ["roi_head.mask_head"]


def test_a_part_that_no_stage_has_is_left_out() -> None:
    assert left_out("roi_head.boxes") == ["backbone", "roi_head.mask_head"]


def test_nothing_is_left_out_where_all_runs_within() -> None:
    assert left_out("backbone", "roi_head.boxes", "roi_head.mask_head") == []
