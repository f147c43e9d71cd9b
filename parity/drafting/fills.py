"""Draft how synthetic weights fill a detector: activations of size 1, scores that spread, nothing trivial."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from parity.cases.base import Fill
from parity.cases.common import RESNET
from parity.weights.synthetic import rule_for

Shapes = Mapping[str, Sequence[int]]

# By what the field calls them: the layers that give class scores and boxes, whatever the head.
CLASS_LAYER = re.compile(r"\.(?:\w*cls|\w*cls_?(?:score|pred|out)\w*|cls_branches\.\d+(?:\.\d+)?)(?:\.\d+)?$")
BOX_LAYER = re.compile(r"\.(?:\w*reg|\w*reg_?(?:pred|out)\w*|conv_bbox|reg_branches\.\d+\.\d+)(?:\.\d+)?$")
TOWER = re.compile(r"(?:convs|_fcs|fcs|towers?)\.")

# Attention averages: with random weights a strong one makes all queries alike, so it is kept weak.
ATTENTION = (
    Fill("*sampling_offsets.bias", spread=2.0),
    Fill("*sampling_offsets.weight", spread=0.5, per_fan_in=True),
    Fill("*attn*.out_proj.weight", spread=0.3, per_fan_in=True),
    Fill("*attentions*.out_proj.weight", spread=0.3, per_fan_in=True),
    Fill("*output_proj.weight", spread=0.5, per_fan_in=True),
    Fill("*ffn*.layers.1.weight", spread=0.3, per_fan_in=True),
)
REST = (
    Fill("*scale", centre=1.0, spread=0.2),  # a negative one gives boxes of negative width
    Fill("*embed*", spread=1.0),
    Fill("*bias", spread=0.1),
    Fill("backbone.*", spread=1.4, per_fan_in=True),
    Fill("*", spread=1.0, per_fan_in=True),
)


# Learnt boxes, normalised cxcywh: inside the image and of a size that overlaps; none of negative width.
BOXES: Mapping[str, Any] = {"centre": (0.5, 0.5, 0.4, 0.4), "spread": 0.2}


def draft_fills(shapes: Shapes, *, image_rms: float = 1.0) -> tuple[Fill, ...]:
    """Return fill rules for parameters of the given names and shapes; first match wins.

    ``image_rms`` is the size of the pixels that enter: some detectors take them as they are, 0 to 255.
    """
    attention = [fill for fill in ATTENTION if any(rule_for(name, (fill, ANY)) is fill for name in shapes)]
    outputs = [fill for name in shapes for fill in _output(name, shapes)]
    tables = [name for name in shapes if _is_boxes(name, shapes)]
    boxes = [Fill(_of_these_alone(name, tables, shapes), **BOXES) for name in tables]
    scales = [name for name in shapes if _is_norm(name, shapes)]
    norms = [Fill(_of_these_alone(name, scales, shapes), centre=1.0, spread=0.2) for name in scales]
    return tuple(
        dict.fromkeys([*_first_layer(shapes, image_rms), *RESNET, *boxes, *outputs, *norms, *attention, *REST])
    )


ANY = Fill("*")
UNNORMALISED = 10.0  # normalised pixels have an RMS of some 1


def _is_norm(name: str, shapes: Shapes) -> bool:
    """Whether this is the scale of a normalisation: the only weights with a single axis."""
    return name.endswith(".weight") and len(shapes[name]) == 1 and rule_for(name, (*RESNET, ANY)) is ANY


def _first_layer(shapes: Shapes, image_rms: float) -> list[Fill]:
    """Return the rule that makes activations of size 1 out of pixels that are not normalised."""
    first = next((name for name in shapes if len(shapes[name]) == 4), None)
    if first is None or image_rms < UNNORMALISED:
        return []
    return [Fill(first, spread=round(1.4 / image_rms, 4), per_fan_in=True)]


def _is_boxes(name: str, shapes: Shapes) -> bool:
    """Whether this is a table of learnt boxes, such as Sparse R-CNN's proposals: four numbers a row, and no bias."""
    layer, _, kind = name.rpartition(".")
    table = kind == "weight" and len(shapes[name]) == 2 and shapes[name][1] == 4
    return table and f"{layer}.bias" not in shapes


def _starred(name: str) -> str:
    """Return the pattern of a name and its like: numbers become ``*``.

    >>> _starred("bbox_head.cls_convs.0.gn.weight")
    'bbox_head.cls_convs.*.gn.weight'
    """
    return ".".join("*" if token.isdigit() else token for token in name.split("."))


def _of_these_alone(name: str, like: Sequence[str], shapes: Shapes) -> str:
    """Return the widest pattern of a name that matches none but its like: a list may hold layers and norms in turn."""
    tokens = name.split(".")
    numbers = [i for i, token in enumerate(tokens) if token.isdigit()]
    for kept in range(len(numbers)):
        starred = set(numbers[: len(numbers) - kept])
        pattern = ".".join("*" if i in starred else token for i, token in enumerate(tokens))
        if all(other in like for other in shapes if fnmatchcase(other, pattern)):
            return pattern
    return name


def _output(name: str, shapes: Shapes) -> list[Fill]:
    """Return the rules of a layer that gives class scores or boxes, asked by its weight's name."""
    layer, _, kind = name.rpartition(".")
    if kind != "weight" or TOWER.search(layer) or len(shapes[name]) == 1:
        return []
    *front, last = layer.split(".")
    in_branch = last.isdigit() and front[-1].isdigit()  # a layer of an MLP, of which there are several
    stem = f"{_starred('.'.join(front))}.{last}" if in_branch else _starred(layer)
    if CLASS_LAYER.search(layer):
        softmax = layer.endswith("fc_cls")  # one output more, for the background
        centre = 0.0 if softmax or layer.startswith("rpn_head") else -4.0
        spread = 2.0 if softmax else 1.0
        return [Fill(f"{stem}.bias", centre=centre, spread=0.3), Fill(f"{stem}.weight", spread=spread, per_fan_in=True)]
    is_last = not any(other.startswith(_next(layer) + ".") for other in shapes)
    if BOX_LAYER.search(layer) and is_last:
        return [Fill(f"{stem}.weight", spread=0.3, per_fan_in=True)]
    return []


def _next(layer: str) -> str:
    """Return the name that the layer after this one would have in a Sequential (an activation between them)."""
    stem, _, number = layer.rpartition(".")
    return f"{stem}.{int(number) + 2}" if number.isdigit() else f"{layer}.next"
