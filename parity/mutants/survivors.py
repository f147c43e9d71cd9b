"""Mutants that no check notices, and why: (mutant, case) -> reason."""

from __future__ import annotations

FEW_POSITIONS = (
    "no committed record has a level with 1000 positions: that takes an image of 256 by 256 pixels and a record of"
    " some 25 MB; `parity freeze CASE --sizes 264x256 --out DIR` makes one, and it is caught there"
)
EXPLAINED: dict[tuple[str, str], str] = {
    ("dense-selection-pre-nms-999", "ddq_fcn_r50_12e"): FEW_POSITIONS,
    ("rpn-selection-pre-nms-999", "ddq_rcnn_r50_12e"): FEW_POSITIONS,
    ("roi-level-eps", "ddq_rcnn_r50_12e"): (
        "as good as equivalent: another level is taken only for a box whose extent lies within 1e-6 of the bound"
        " between two levels"
    ),
    ("pipeline-crop-clip", "ddq_fcn_r50_36e"): (
        "equivalent: the resize that follows the crop clips the boxes to the same border"
    ),
}
