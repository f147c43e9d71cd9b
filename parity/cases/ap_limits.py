"""How far the APs of a case's two engines may lie apart."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ApLimits:
    """How far AP and detections may lie apart.

    Attributes:
        difference: of each of COCO's twelve figures between the engines, in percent points, either way.
        reported: of the legacy engine's AP from the one reported, in percent points: the authors' own fluctuation.
        matched: least share of detections that match one by one (IoU above 0.99, scores within 1e-4).
        shift: of any side of the matched boxes on average, in pixels.
    """

    difference: float = 0.05
    reported: float = 0.2
    matched: float = 0.9
    shift: float = 0.05
