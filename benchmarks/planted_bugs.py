"""How often `parity locate` names the module that holds a planted bug: 20 bugs in backbones, necks and heads.

    python benchmarks/planted_bugs.py [--legacy-python PY]

Each bug is planted in the new engine's model of a stock case; mmdet 2.22 runs live.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from parity.cases.registry import find_case
from parity.engines.opening import open_legacy
from parity.locate.command import Located, located, reference

RETINA, FCOS = "stock_retinanet_r50_1x", "stock_fcos_r50_1x"
RCNN, DETR = "stock_faster_rcnn_r50_1x", "stock_deformable_detr_r50_50e"


@dataclass(frozen=True)
class Bug:
    """A bug: the case and stage it is in, the module that is to be named, and how it is planted.

    ``module`` is the name of a stage's own code (its class) where the bug is in no module of its own.
    """

    name: str
    case: str
    stage: str
    module: str
    plant: Callable[[Any], object]


def within(path: str, **attributes: Any) -> Callable[[Any], None]:
    """Return what sets attributes of the module at a path."""

    def plant(model: nn.Module) -> None:
        for name, value in attributes.items():
            setattr(model.get_submodule(path), name, value)

    return plant


def scaled(path: str, factor: float) -> Callable[[Any], None]:
    """Return what multiplies the output of the module at a path."""

    def plant(model: nn.Module) -> None:
        module = model.get_submodule(path)
        forward = module.forward
        module.forward = lambda *args, **kwargs: forward(*args, **kwargs) * factor  # type: ignore[method-assign]

    return plant


def without_residual(path: str) -> Callable[[Any], None]:
    """Return what lets a bottleneck forget to add its input."""

    def plant(model: nn.Module) -> None:
        block: Any = model.get_submodule(path)
        block.forward = lambda x: block.relu(
            block.norm3(block.conv3(block.relu(block.norm2(block.conv2(block.relu(block.norm1(block.conv1(x))))))))
            + 0 * x
        )

    return plant


BUGS = (
    Bug("a batch norm's eps", RETINA, "backbone", "backbone.layer2.1.bn1", within("backbone.layer2.1.bn1", eps=1e-3)),
    Bug("no residual", RETINA, "backbone", "backbone.layer3.2", without_residual("backbone.layer3.2")),
    Bug("no activation", RETINA, "backbone", "backbone.layer1.0.relu", within("backbone.layer1.0", relu=nn.Identity())),
    Bug(
        "dilated",
        RETINA,
        "backbone",
        "backbone.layer4.1.conv2",
        within("backbone.layer4.1.conv2", dilation=(2, 2), padding=(2, 2)),
    ),
    Bug(
        "average instead of maximum",
        RETINA,
        "backbone",
        "backbone.maxpool",
        within("backbone", maxpool=nn.AvgPool2d(3, 2, 1)),
    ),
    Bug(
        "trains its statistics",
        RETINA,
        "backbone",
        "backbone.layer3.0.bn2",
        within("backbone.layer3.0.bn2", training=True),
    ),
    Bug("no bias", RETINA, "neck", "neck.lateral_convs.1.conv", within("neck.lateral_convs.1.conv", bias=None)),
    Bug(
        "padded by reflection",
        RETINA,
        "neck",
        "neck.fpn_convs.0.conv",
        within("neck.fpn_convs.0.conv", padding_mode="reflect", _reversed_padding_repeated_twice=[1] * 4),
    ),
    Bug("bilinear upsampling", RETINA, "neck", "FPN", within("neck", upsample_cfg={"mode": "bilinear"})),
    Bug("activation before the extra level", RETINA, "neck", "FPN", within("neck", relu_before_extra_convs=True)),
    Bug(
        "no activation in a tower",
        RETINA,
        "bbox_head",
        "bbox_head.cls_convs.2.activate",
        within("bbox_head.cls_convs.2", activate=nn.Identity()),
    ),
    Bug(
        "a group norm's groups",
        FCOS,
        "bbox_head",
        "bbox_head.reg_convs.1.gn",
        within("bbox_head.reg_convs.1.gn", num_groups=16),
    ),
    Bug(
        "a group norm's eps",
        FCOS,
        "bbox_head",
        "bbox_head.cls_convs.3.gn",
        within("bbox_head.cls_convs.3.gn", eps=1e-6),
    ),
    Bug("a level's scale", FCOS, "bbox_head", "bbox_head.scales.1", scaled("bbox_head.scales.1", 1.01)),
    Bug("no bias in the box layer", FCOS, "bbox_head", "bbox_head.conv_reg", within("bbox_head.conv_reg", bias=None)),
    Bug(
        "unaligned RoIAlign",
        RCNN,
        "roi_head",
        "roi_head.bbox_roi_extractor.roi_layers.0",
        within("roi_head.bbox_roi_extractor.roi_layers.0", aligned=False),
    ),
    Bug("no activation in the RPN", RCNN, "rpn_head", "RPNHead", lambda model: _without_relu(model.rpn_head)),
    Bug(
        "a layer norm's eps", DETR, "encoder", "encoder.layers.1.norms.0", within("encoder.layers.1.norms.0", eps=1e-3)
    ),
    Bug(
        "attention without its residual",
        DETR,
        "decoder",
        "decoder.layers.2.cross_attn",
        scaled("decoder.layers.2.cross_attn", 0.9),
    ),
    Bug(
        "no activation in a feed-forward",
        DETR,
        "encoder",
        "encoder.layers.3.ffn.layers.0.1",
        lambda model: model.encoder.layers[3].ffn.layers[0].__setitem__(1, nn.Identity()),
    ),
)


def _without_relu(head: Any) -> None:
    head.forward_single = lambda x: (head.rpn_cls(head.rpn_conv(x)), head.rpn_reg(head.rpn_conv(x)))


def named(result: Located) -> str:
    """Return what ``parity locate`` names: a module, or the class of the stage's own code."""
    if result.finding is not None and result.finding.module:
        return result.finding.module
    return result.owners[1][-1]["class"] if result.finding or result.outputs else "nothing"


def measured(options: argparse.Namespace) -> Iterator[tuple[Bug, str]]:
    """Yield every bug with what is named."""
    with open_legacy("mmdet2", options) as legacy:
        known: dict[tuple[str, str], Any] = {}
        for bug in BUGS:
            if bug.name in options.bugs or not options.bugs:
                key = (bug.case, bug.stage)
                if key not in known:
                    case = find_case(bug.case)
                    known = {key: reference(case, case.records["tiny"], bug.stage, legacy)}
                yield bug, named(located(known[key], altered=bug.plant))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("bugs", nargs="*", metavar="BUG", help="only these, by name")
    parser.add_argument("--legacy-python")
    parser.set_defaults(legacy_root="", time_limit=None)
    warnings.simplefilter("ignore")
    right = total = 0
    for bug, found in measured(parser.parse_args()):
        total, right = total + 1, right + (found == bug.module)
        print(
            f"{'right' if found == bug.module else 'WRONG':6} {bug.name:36} {bug.module:45} named: {found}", flush=True
        )
    print(f"{right} of {total} named right")


if __name__ == "__main__":
    main()
