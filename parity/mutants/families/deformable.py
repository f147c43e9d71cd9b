"""The encoder of DDQ DETR: masks, valid ratios, positions, deformable attention."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import gelu

from parity.mutants.base import Mutant
from parity.mutants.edits import (
    attribute,
    constant,
    first_operand,
    keyword,
    name,
    operator,
    swapped_elements,
    without_invert,
)
from parity.mutants.families.common import DETR_4, DETR_5, SWIN, through_half
from parity.mutants.plant import (
    Plant,
    called_with,
    config,
    edited,
    input_of,
    output_of,
    parameter,
    result_of,
    set_attribute,
    swap,
    swap_modules,
)

POSITIONS = "mmdet.models.layers.positional_encoding:SinePositionalEncoding.forward"
DETECTOR = "mmdet.models.detectors.deformable_detr:DeformableDETR"
ENCODER = "mmdet.models.layers.transformer.deformable_detr_layers:DeformableDetrTransformerEncoder"
ATTENTION = "mmcv.ops.multi_scale_deform_attn:MultiScaleDeformableAttention.forward"
SAMPLING = "mmcv.ops.multi_scale_deform_attn:multi_scale_deformable_attn_pytorch"


def bug(label: str, plant: Plant, why: str, *cases: str) -> Mutant:
    """Return a mutant of this stage."""
    return Mutant(f"encoder-{label}", "encoder", cases or (DETR_5,), plant, why)


def position(setting: str, value: Any) -> Plant:
    """Return the positional encoding with another setting."""
    return set_attribute("positional_encoding", setting, value)


def value_with_position(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return an attention's arguments with the position added to the values, too."""
    return args, {**kwargs, "value": kwargs["value"] + kwargs["query_pos"]}


def later_levels(parts: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
    """Return what enters encoder and decoder with every level's first row one further on."""
    return tuple({**part, "level_start_index": part["level_start_index"] + 1} for part in parts)


MUTANTS = (
    bug("temperature", position("temperature", 10000), "10000 for 20: same AP (detrex#188)", DETR_4, SWIN),
    bug("temperature-drift", position("temperature", 20.001), "a temperature that is off by 5e-5", DETR_5),
    bug("offset", position("offset", -0.5), "Deformable DETR's offset of -0.5 for DINO's 0"),
    bug("position-eps", position("eps", 1e-5), "another eps in the normalised positions", DETR_5),
    bug("position-eps-0", position("eps", 0.0), "no eps in the normalised positions"),
    bug("scale", position("scale", 6.28), "6.28 for 2 pi"),
    bug("scale-drift", position("scale", lambda scale: scale * (1 + 1e-7)), "2 pi rounded to float32", DETR_5),
    bug("not-normalised", position("normalize", False), "positions in cells, not in shares of the image"),
    bug("sine-cosine", edited(POSITIONS, attribute("sin", "cos", 0)), "cosine for sine"),
    bug("x-before-y", edited(POSITIONS, swapped_elements(0, 1, 2, size=2)), "x before y in the encoding", DETR_5),
    bug("frequencies", edited(POSITIONS, operator("//", "/")), "a frequency for each channel, not for each pair"),
    bug(
        "valid-ratio-inverted",
        edited(f"{DETECTOR}.get_valid_ratio", without_invert(0)),
        "the share of padding for that of the image (transformers#20958)",
        DETR_4,
        SWIN,
    ),
    bug(
        "valid-ratio-swapped",
        edited(f"{DETECTOR}.get_valid_ratio", swapped_elements(0, 1, 0, size=2)),
        "height before width in the valid ratios",
    ),
    bug(
        "valid-ratio-height",
        edited(f"{DETECTOR}.get_valid_ratio", name("W", "H", 0)),
        "the width's share taken of the height",
        DETR_5,
    ),
    bug(
        "valid-ratio-border",
        edited(f"{DETECTOR}.get_valid_ratio", constant(0, -1, 0)),
        "the last column asked, which may be padding",
    ),
    bug(
        "mask-pixels",
        edited(f"{DETECTOR}.pre_transformer", keyword("interpolate", "mode", "bilinear")),
        "a mask resized smoothly: positions at the border count as padding",
    ),
    bug(
        "mask-forgotten",
        input_of("encoder.layers.*.self_attn", lambda a, k: (a, {**k, "key_padding_mask": None})),
        "padding attended to (mmdet#5168)",
    ),
    bug(
        "mask-one-layer",
        input_of("encoder.layers.3.self_attn", lambda a, k: (a, {**k, "key_padding_mask": None})),
        "padding attended to in one layer",
        DETR_5,
    ),
    bug("level-embedding", edited(f"{DETECTOR}.pre_transformer", first_operand("+")), "no level embedding"),
    bug(
        "level-index",
        parameter("level_embed", lambda levels: levels.roll(1, 0)),
        "each level with its neighbour's embedding",
        DETR_5,
    ),
    bug(
        "level-start",
        result_of(f"{DETECTOR}.pre_transformer", later_levels),
        "level starts off by one: only the compiled operator reads them",
    ),
    bug(
        "reference-corner", edited(f"{ENCODER}.get_encoder_reference_points", constant(0.5, 0.0, 0)), "corners of cells"
    ),
    bug(
        "reference-width",
        edited(f"{ENCODER}.get_encoder_reference_points", name("W", "H", 2)),
        "a width divided by the height",
        DETR_5,
    ),
    bug(
        "reference-unscaled",
        called_with(f"{ENCODER}.get_encoder_reference_points", valid_ratios=torch.ones_like),
        "references that know nothing of padding",
    ),
    bug(
        "normaliser-swapped",
        edited(ATTENTION, swapped_elements(0, 1, 3, size=2)),
        "offsets divided by (height, width)",
    ),
    bug(
        "sampling-corners", edited(SAMPLING, constant(False, True)), "align_corners=True in the sampling", DETR_4, SWIN
    ),
    bug("sampling-border", edited(SAMPLING, constant("zeros", "border")), "border values outside of the map", DETR_5),
    bug("sampling-shift", edited(SAMPLING, constant(1, 1 - 1e-6, 1)), "sampling places off by 1e-6"),
    bug(
        "value-position", input_of("encoder.layers.*.self_attn", value_with_position), "the position in the values, too"
    ),
    bug(
        "identity-position",
        input_of(
            "encoder.layers.2.self_attn",
            lambda a, k: (a, {**k, "identity": k["query"] + k["query_pos"]}),
        ),
        "the residual path taken after the position is added",
    ),
    bug("norm-eps", set_attribute("encoder.layers.*.norms.*", "eps", 1e-6), "another eps of layer norm", DETR_4, SWIN),
    bug("one-norm-eps", set_attribute("encoder.layers.5.norms.1", "eps", 1e-12), "BERT's eps in one norm", DETR_5),
    bug("norms-swapped", swap_modules("encoder.layers.1.norms", 0, 1), "the norms of a layer in each other's place"),
    bug(
        "norm-weights-swapped",
        swap("encoder.layers.4.norms.0.weight", "encoder.layers.4.norms.1.weight"),
        "two scales of one shape in each other's place",
        DETR_5,
    ),
    bug("layers-swapped", swap_modules("encoder.layers", 2, 3), "layers in another order: an index that is off"),
    bug("gelu", output_of("encoder.layers.0.ffn.layers.0.0", gelu), "another activation", DETR_5),
    bug("no-residual", set_attribute("encoder.layers.3.ffn", "add_identity", False), "no residual path in one network"),
    bug("half", output_of("encoder.layers.5", through_half), "the memory in half precision (detrex#198)"),
    bug(
        "half-value",
        output_of("encoder.layers.0.self_attn.value_proj", through_half),
        "the values of one attention in half precision",
        DETR_5,
    ),
    bug(
        "offsets-drift",
        parameter("encoder.layers.2.self_attn.sampling_offsets.bias", lambda bias: bias + 1e-6),
        "sampling offsets off by 1e-6",
    ),
    bug(
        "heads-swapped",
        parameter("encoder.layers.3.self_attn.attention_weights.weight", lambda w: w.roll(16, 0)),
        "attention weights of another head",
        SWIN,
    ),
    bug(
        "built-temperature",
        config(lambda content: content.model.positional_encoding.update(temperature=10000)),
        "Deformable DETR's temperature left in the config",
        DETR_5,
    ),
)
