"""Mutants that no check notices, and why: (mutant, case) -> reason."""

from __future__ import annotations

EXPLAINED: dict[tuple[str, str], str] = {
    ("roi-level-eps", "ddq_rcnn_r50_12e"): (
        "as good as equivalent: another level is taken only for a box whose extent lies within 1e-6 of the bound"
        " between two levels"
    ),
    ("pipeline-crop-clip", "ddq_fcn_r50_36e"): (
        "equivalent: the resize that follows the crop clips the boxes to the same border"
    ),
}
