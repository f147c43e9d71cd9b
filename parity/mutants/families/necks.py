"""The necks: ChannelMapper of DDQ DETR, FPN of DDQ FCN and DDQ R-CNN."""

from __future__ import annotations

from torch.nn.functional import relu

from parity.mutants.base import Mutant
from parity.mutants.edits import constant, first_operand
from parity.mutants.families.common import DETR_4, DETR_5, FCN_12, FCN_36, RCNN_12, RCNN_36, SWIN, through_half
from parity.mutants.plant import Plant, config, edited, output_of, parameter, set_attribute, swap, swap_modules

BEFORE = ("relu_before_extra_convs", True)
FPN = "mmdet.models.necks.fpn:FPN.forward"


def bug(name: str, plant: Plant, why: str, *cases: str) -> Mutant:
    """Return a mutant of this stage."""
    return Mutant(f"neck-{name}", "neck", cases, plant, why)


MUTANTS = (
    bug("norm-eps", set_attribute("neck.*.gn", "eps", 1e-6), "another eps of group norm", DETR_4, SWIN),
    bug("norm-eps-1e-3", set_attribute("neck.*.gn", "eps", 1e-3), "another eps of group norm", DETR_5),
    bug("groups", set_attribute("neck.*.gn", "num_groups", 16), "16 groups for 32", DETR_4),
    bug("activation", output_of("neck.convs.1", relu), "the default activation not switched off", DETR_5),
    bug(
        "extra-stride-pad",
        set_attribute("neck.extra_convs.0.conv", "padding_mode", "replicate"),
        "another padding of the extra level",
        DETR_4,
    ),
    bug(
        "extra-relu",
        output_of("neck.extra_convs.0", relu),
        "an activation on the extra level",
        SWIN,
    ),
    bug("norm-scale", swap("neck.convs.0.gn.weight", "neck.convs.1.gn.weight"), "scales of two levels", DETR_4),
    bug("norm-shift", swap("neck.convs.1.gn.bias", "neck.convs.2.gn.bias"), "shifts of two levels", DETR_5),
    bug("half", output_of("neck.convs.0", through_half), "one level in half precision", DETR_5, SWIN),
    bug(
        "built-with-activation",
        config(lambda content: content.model.neck.update(act_cfg={"type": "ReLU"})),
        "act_cfg=None forgotten in the config",
        DETR_4,
    ),
    bug("bilinear", set_attribute("neck.0", "upsample_cfg", {"mode": "bilinear"}), "bilinear for nearest", FCN_36),
    bug("top-down-short", edited(FPN, constant(1, 2, 0)), "one step of the top-down path left out", RCNN_12, FCN_12),
    bug("top-down-dropped", edited(FPN, first_operand("+", 2)), "no top-down path", RCNN_36),
    bug("extra-relu-fcn", set_attribute("neck.0", *BEFORE), "RetinaNet's activation before the extra levels", FCN_36),
    bug("extra-relu-rcnn", set_attribute("neck", *BEFORE), "RetinaNet's activation before the extra levels", RCNN_36),
    bug("levels", swap_modules("neck.fpn_convs", 1, 2), "convolutions of two levels: an index that is off", RCNN_12),
    bug(
        "bias-not-loaded",
        parameter("neck.lateral_convs.1.conv.bias", lambda bias: bias * 0),
        "a bias that no rule converts",
        RCNN_36,
    ),
    bug(
        "bias-drift",
        parameter("neck.0.fpn_convs.0.conv.bias", lambda bias: bias + 1e-6),
        "a bias that is off by 1e-6",
        FCN_12,
    ),
    bug(
        "half-lateral",
        parameter("neck.0.lateral_convs.2.conv.weight", through_half),
        "one weight stored in half precision",
        FCN_36,
    ),
)
