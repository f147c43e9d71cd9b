"""What DDQ DETR adds: distinct query selection, the decoder that drops queries, its head, post-processing."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu

from parity.mutants.base import Mutant
from parity.mutants.edits import (
    attribute,
    comparison,
    constant,
    first_operand,
    keyword,
    name,
    operator,
    swapped_elements,
    without_call,
    without_invert,
)
from parity.mutants.families.common import DETR_4, DETR_5, SWIN, through_half
from parity.mutants.plant import (
    Plant,
    called_with,
    edited,
    input_of,
    on_model,
    output_of,
    parameter,
    result_of,
    set_attribute,
    swap,
    swap_modules,
    wrapped,
)
from parity.taps.stages import replaced

SELECTION = "mmdet.models.detectors.ddq_detr:DDQDETR.pre_decoder"
PROPOSALS = "mmdet.models.detectors.deformable_detr:DeformableDETR.gen_encoder_output_proposals"
DECODER = "mmdet.models.layers.transformer.ddq_detr_layers:DDQTransformerDecoder"
ENCODING = "mmdet.models.layers.transformer.utils:coordinate_to_encoding"
ATTENTION = "mmcv.ops.multi_scale_deform_attn:MultiScaleDeformableAttention.forward"
HEAD = "mmdet.models.dense_heads.ddq_detr_head:DDQDETRHead"
RESULTS = "mmdet.models.dense_heads.detr_head:DETRHead._predict_by_feat_single"


def bugs(stage: str, prefix: str, *rows: tuple[Any, ...]) -> tuple[Mutant, ...]:
    """Return the mutants of one stage, from rows of name, plant, why and cases (the 5-scale one by default)."""
    return tuple(Mutant(f"{prefix}-{row[0]}", stage, row[3:] or (DETR_5,), row[1], row[2]) for row in rows)


def suppression(**settings: Any) -> Plant:
    """Return the detector with other settings of its non-maximum suppression."""

    def edit(model: Any) -> Any:
        return replaced(_Item(model.cache_dict), "dqs_cfg", {**model.cache_dict["dqs_cfg"], **settings})

    return on_model(edit)


class _Item:
    """A dictionary whose items are seen as attributes, for ``replaced``."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.__dict__ = content


def predicted_with(change: Callable[[Tensor], Tensor]) -> Plant:
    """Return post-processing with other masks of distinct queries."""

    def wrap(original: Any) -> Any:
        @functools.wraps(original)
        def predict(head: Any, *args: Any, **kwargs: Any) -> Any:
            masks = [change(mask) for mask in head.cache_dict["distinct_query_mask"]]
            with replaced(_Item(head.cache_dict), "distinct_query_mask", masks):
                return original(head, *args, **kwargs)

        return predict

    return wrapped(f"{HEAD}.predict_by_feat", wrap)


def changed(found: Any, **changes: Callable[[Tensor], Tensor]) -> Any:
    """Return the detections of an image with some of their tensors changed."""
    for field, change in changes.items():
        setattr(found, field, change(getattr(found, field)))
    return found


def worst_first(found: Any) -> Any:
    """Return the detections of an image in the opposite order."""
    return changed(found, **dict.fromkeys(("bboxes", "scores", "labels"), lambda tensor: tensor.flip(0)))


def one_pixel_more(boxes: Tensor) -> Tensor:
    """Return boxes whose right and lower border is one pixel further out."""
    return boxes + boxes.new_tensor([0.0, 0.0, 1.0, 1.0])


def hundredths(boxes: Tensor) -> Tensor:
    """Return boxes with two decimals, as result files often have them."""
    return (boxes * 100).round() / 100


def swapped_factors(meta: dict[str, Any]) -> dict[str, Any]:
    """Return an image's metas with the factors of width and height exchanged."""
    return {**meta, "scale_factor": tuple(reversed(meta["scale_factor"]))}


def later(index: int) -> int:
    """Return the next layer's index."""
    return index + 1


def later_references(references: Any) -> Any:
    """Return references that begin with the second."""
    return [*references[1:], references[-1]]


def first_reference(references: Any) -> Any:
    """Return the first of the references as often as there are some."""
    return [references[0]] * len(references)


def first_two_exchanged(parts: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return a head's results with the boxes of its first two layers exchanged."""
    order = [1, 0, *range(2, len(parts[1]))]
    return parts[0], parts[1][order]


def without_mask(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return an attention's arguments without the mask of padding."""
    return args, {**kwargs, "key_padding_mask": None}


def without_key_position(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return an attention's arguments without positions of its keys."""
    return args, {**kwargs, "key_pos": torch.zeros_like(kwargs["key_pos"])}


def slightly_stronger(weight: Tensor) -> Tensor:
    """Return the weights of query, key and value, the query's larger by 1e-6."""
    return torch.cat([weight[:256] * (1 + 1e-6), weight[256:]])


def no_value_bias(bias: Tensor) -> Tensor:
    """Return the biases of query, key and value, the value's zero."""
    return torch.cat([bias[:512], torch.zeros_like(bias[512:])])


QUERY_SELECTION = bugs(
    "query_selection",
    "selection",
    ("threshold", suppression(iou_threshold=0.7), "an IoU threshold of 0.7 for 0.8", DETR_4, SWIN),
    ("threshold-drift", suppression(iou_threshold=0.8001), "an IoU threshold that is off by 1e-4", DETR_5),
    ("width", edited(PROPOSALS, constant(0.05, 0.1)), "proposals twice as wide"),
    ("level-index", edited(PROPOSALS, constant(2.0, 4.0)), "proposals that grow by 4 a level", DETR_5),
    ("corners", edited(PROPOSALS, constant(0.5, 0.0)), "proposals at the corners of cells", DETR_4, SWIN),
    ("low-limit", edited(PROPOSALS, constant(0.01, 0.05)), "another limit of valid proposals"),
    ("high-limit", edited(PROPOSALS, constant(0.99, 1.0)), "proposals at the border taken for valid", DETR_4),
    ("infinity", edited(PROPOSALS, constant("inf", "nan", 1)), "NaN for infinity"),
    ("masked", called_with(PROPOSALS, memory_mask=None), "padding not left out of the proposals"),
    ("invalid-kept", edited(PROPOSALS, without_invert(3)), "valid proposals dropped, invalid ones kept"),
    ("norm-eps", set_attribute("memory_trans_norm", "eps", 1e-6), "another eps of layer norm", DETR_4, SWIN),
    ("not-transformed", edited(PROPOSALS, without_call("memory_trans_fc")), "a layer left out"),
    ("not-normalised", edited(PROPOSALS, without_call("memory_trans_norm")), "a norm left out", DETR_5),
    ("query-map", edited(SELECTION, name("memory", "output_memory", 2)), "queries from the transformed memory"),
    ("no-query-map", edited(SELECTION, without_call("query_map")), "queries straight from the memory", DETR_5),
    ("median-score", edited(SELECTION, attribute("max", "median", 0)), "another score than the best class's"),
    ("raw-score", edited(SELECTION, without_call("sigmoid", 1)), "logits for probabilities: the same order"),
    ("box-format", edited(SELECTION, without_call("bbox_cxcywh_to_xyxy", 0)), "boxes not converted before suppression"),
    ("boxes-unscaled", edited(SELECTION, without_call("sigmoid", 0)), "boxes suppressed before their sigmoid", DETR_5),
    ("reference-sigmoid", edited(SELECTION, without_call("sigmoid", 5)), "references handed on as logits"),
    ("no-proposals", edited(SELECTION, first_operand("+", 0)), "refinements not added to the proposals", DETR_5),
    ("fewer", set_attribute("", "num_queries", 899), "899 queries for 900"),
    ("branch", swap_modules("bbox_head.cls_branches", 6, 7), "the branch of the dense queries: an index that is off"),
    ("box-branch", swap_modules("bbox_head.reg_branches", 6, 7), "the branch of the dense queries for boxes", DETR_5),
    ("half-scores", output_of("bbox_head.cls_branches.6", through_half), "scores in half precision", DETR_4),
    (
        "class-bias",
        parameter("bbox_head.cls_branches.6.bias", lambda bias: bias + 1e-6),
        "class logits off by 1e-6: the same order",
        SWIN,
    ),
    ("map-bias", parameter("query_map.bias", torch.zeros_like), "a bias that no rule converts", DETR_5),
)

DECODING = bugs(
    "decoder",
    "decoder",
    ("eps", edited(f"{DECODER}.forward", constant(1e-3, 1e-5, 0)), "the default eps of inverse_sigmoid", DETR_4, SWIN),
    ("eps-2e-3", edited(f"{DECODER}.forward", constant(1e-3, 2e-3, 0)), "an eps twice as large", DETR_5),
    ("temperature", edited(ENCODING, constant(10000, 20)), "the encoder's temperature for the decoder's", DETR_4),
    ("frequencies", edited(ENCODING, operator("//", "/")), "a frequency for each channel, not for each pair", DETR_5),
    ("x-before-y", edited(ENCODING, swapped_elements(0, 1, size=4)), "x before y in the encoding"),
    ("width-height", edited(ENCODING, swapped_elements(2, 3, size=4)), "height before width in the encoding", DETR_5),
    ("scale", called_with(ENCODING, scale=6.2832), "2 pi with four decimals"),
    ("valid-ratios", edited(f"{DECODER}.forward", first_operand("*", 1)), "references not scaled to the valid part"),
    ("not-normed", edited(f"{DECODER}.forward", without_call("norm")), "hidden states handed on without their norm"),
    ("no-sigmoid", edited(f"{DECODER}.forward", without_call("sigmoid", 0)), "references kept as logits", DETR_5),
    ("no-refinement", edited(f"{DECODER}.forward", first_operand("+", 0)), "refinements not added to the references"),
    (
        "selection-in-last-layer",
        edited(f"{DECODER}.forward", comparison("<", "<=", 0)),
        "queries dropped after the last layer, too",
    ),
    (
        "scores-of-next-layer",
        called_with(f"{DECODER}.select_distinct_queries", layer_index=later),
        "an index that is off",
    ),
    ("row-1", edited(f"{DECODER}.select_distinct_queries", constant(0, 1, 0)), "another row than 0 (DDQ#14)"),
    (
        "rows-only",
        edited(f"{DECODER}.select_distinct_queries", constant(False, True, 1)),
        "columns of the mask left closed",
        DETR_5,
    ),
    ("mask-inverted", edited(f"{DECODER}.select_distinct_queries", without_invert(1)), "the mask for its opposite"),
    (
        "mean-score",
        edited(f"{DECODER}.select_distinct_queries", attribute("max", "median")),
        "another score than the best class's",
        DETR_5,
    ),
    (
        "raw-score",
        edited(f"{DECODER}.select_distinct_queries", without_call("sigmoid")),
        "logits for probabilities: the same order",
    ),
    (
        "box-format",
        edited(f"{DECODER}.select_distinct_queries", without_call("bbox_cxcywh_to_xyxy")),
        "boxes not converted before suppression",
    ),
    (
        "channels-reversed",
        called_with(f"{DECODER}.select_distinct_queries", query=lambda query: query.flip(-1)),
        "queries scored by channels in another order",
    ),
    ("mask-forgotten", input_of("decoder.layers.*.cross_attn", without_mask), "padding attended to (mmdet#5168)"),
    ("offsets-whole", edited(ATTENTION, constant(0.5, 1.0)), "offsets of whole instead of half boxes", DETR_4, SWIN),
    ("offsets-points", edited(ATTENTION, first_operand("/", 1)), "offsets not divided by the points", DETR_5),
    (
        "query-key",
        parameter("decoder.layers.2.self_attn.attn.in_proj_weight", lambda weight: weight.roll(256, 0)),
        "query, key and value in another order",
    ),
    (
        "value-bias",
        parameter("decoder.layers.4.self_attn.attn.in_proj_bias", no_value_bias),
        "the value's bias not loaded",
        DETR_5,
    ),
    (
        "query-scale",
        parameter("decoder.layers.1.self_attn.attn.in_proj_weight", slightly_stronger),
        "queries scaled by a rounded root",
    ),
    ("no-position", input_of("decoder.layers.3.self_attn", without_key_position), "keys without their position"),
    ("norm-eps", set_attribute("decoder.layers.*.norms.*", "eps", 1e-6), "another eps of layer norm", DETR_4, SWIN),
    ("last-norm-eps", set_attribute("decoder.norm", "eps", 1e-12), "BERT's eps in the last norm", DETR_5),
    ("norms-swapped", swap_modules("decoder.layers.1.norms", 0, 1), "self and cross attention's norms (DINO)"),
    (
        "norm-weights-swapped",
        swap("decoder.layers.5.norms.0.weight", "decoder.layers.5.norms.1.weight"),
        "two scales of one shape in each other's place",
        DETR_5,
    ),
    ("layers-swapped", swap_modules("decoder.layers", 4, 5), "layers in another order: an index that is off"),
    ("branches-swapped", swap_modules("bbox_head.reg_branches", 2, 3), "box branches of two layers", SWIN),
    ("class-branches-swapped", swap_modules("bbox_head.cls_branches", 2, 3), "class branches of two layers"),
    ("gelu", output_of("decoder.layers.0.ffn.layers.0.0", gelu), "another activation", DETR_5),
    ("no-residual", set_attribute("decoder.layers.4.ffn", "add_identity", False), "no residual path in one network"),
    ("half", output_of("decoder.layers.4", through_half), "one layer in half precision"),
    ("half-position", output_of("decoder.ref_point_head", through_half), "query positions in half precision", DETR_5),
    (
        "box-bias-drift",
        parameter("bbox_head.reg_branches.5.4.bias", lambda bias: bias + 1e-6),
        "box refinements off by 1e-6",
    ),
)

HEADS = bugs(
    "detr_head",
    "head",
    (
        "eps",
        edited(f"{HEAD}.forward", keyword("inverse_sigmoid", "eps", 1e-3)),
        "the decoder's eps in the head",
        DETR_4,
        SWIN,
    ),
    ("eps-1e-2", edited(f"{HEAD}.forward", keyword("inverse_sigmoid", "eps", 1e-2)), "another eps in the head", DETR_5),
    ("reference-index", called_with(f"{HEAD}.forward", references=later_references), "references of the next layer"),
    (
        "first-reference",
        called_with(f"{HEAD}.forward", references=first_reference),
        "all layers refine the first",
        DETR_5,
    ),
    ("no-sigmoid", edited(f"{HEAD}.forward", without_call("sigmoid")), "boxes left as logits"),
    (
        "no-inverse",
        edited(f"{HEAD}.forward", without_call("inverse_sigmoid")),
        "references added without inverse",
        DETR_5,
    ),
    ("subtracted", edited(f"{HEAD}.forward", operator("+", "-", 0)), "references taken off", SWIN),
    ("half", output_of("bbox_head.cls_branches.5", through_half), "the last logits in half precision"),
    (
        "half-boxes",
        result_of(f"{HEAD}.forward", lambda parts: (parts[0], through_half(parts[1]))),
        "boxes in half",
        DETR_5,
    ),
    ("layer-order", result_of(f"{HEAD}.forward", first_two_exchanged), "two layers' boxes in each other's place"),
    ("logit-drift", output_of("bbox_head.cls_branches.5", lambda logits: logits + 1e-6), "logits off by 1e-6", DETR_5),
    (
        "class-order",
        parameter("bbox_head.cls_branches.5.bias", lambda bias: bias.roll(1)),
        "classes off by one (91/80)",
    ),
)

PREDICTION = bugs(
    "predict",
    "predict",
    ("top-100", set_attribute("bbox_head", "test_cfg", {"max_per_img": 100}), "100 detections for 300", DETR_5),
    ("top-299", set_attribute("bbox_head", "test_cfg", {"max_per_img": 299}), "299 detections for 300", DETR_4, SWIN),
    ("label-offset", result_of(RESULTS, lambda found: changed(found, labels=lambda it: it + 1)), "classes from 1"),
    ("label-modulus", edited(RESULTS, operator("%", "//")), "the query's index for the class's", DETR_5),
    ("box-modulus", edited(RESULTS, operator("//", "%")), "the class's index for the query's"),
    ("no-clamp", edited(RESULTS, without_call("clamp_", 0)), "boxes beyond the image's left and right", DETR_5),
    ("no-clamp-y", edited(RESULTS, without_call("clamp_", 1)), "boxes beyond the image's top and bottom"),
    ("clamp-less-one", edited(RESULTS, keyword("clamp_", "min", 1, 0)), "boxes that begin at pixel 1"),
    ("clamp-swapped", edited(RESULTS, constant(0, 1, 6), constant(1, 0, 7)), "widths clamped to the height", DETR_5),
    ("size-swapped", edited(RESULTS, constant(1, 0, 4), constant(0, 1, 3)), "widths scaled by the height"),
    ("no-rescale", called_with(RESULTS, rescale=False), "boxes left in pixels of the resized image", DETR_4),
    ("rescaled-up", edited(RESULTS, operator("/", "*")), "boxes multiplied by the resize factor", DETR_4),
    ("scale-swapped", called_with(RESULTS, img_meta=swapped_factors), "factors of height and width exchanged", DETR_4),
    ("box-format", edited(RESULTS, without_call("bbox_cxcywh_to_xyxy")), "boxes left as centre and size", DETR_5),
    ("square-root", result_of(RESULTS, lambda found: changed(found, scores=torch.sqrt)), "another score", SWIN),
    ("pixel", result_of(RESULTS, lambda found: changed(found, bboxes=one_pixel_more)), "VOC's inclusive pixels"),
    (
        "rounded",
        result_of(RESULTS, lambda found: changed(found, bboxes=torch.round)),
        "boxes rounded to pixels",
        DETR_5,
    ),
    ("rounded-0.01", result_of(RESULTS, lambda found: changed(found, bboxes=hundredths)), "boxes rounded to 0.01"),
    ("half-boxes", result_of(RESULTS, lambda found: changed(found, bboxes=through_half)), "boxes in half precision"),
    ("half-scores", result_of(RESULTS, lambda found: changed(found, scores=through_half)), "scores in half", DETR_5),
    ("int-labels", result_of(RESULTS, lambda found: changed(found, labels=torch.Tensor.int)), "labels of 32 bits"),
    ("reversed", result_of(RESULTS, worst_first), "detections worst first: AP sorts them", DETR_5),
    ("all-queries", predicted_with(torch.ones_like), "queries dropped by the decoder kept"),
    ("opposite-queries", predicted_with(torch.logical_not), "the mask for its opposite", DETR_5),
    ("first-mask", edited(f"{HEAD}.predict_by_feat", constant(1, 5, 2)), "the first layer's mask", DETR_4),
    ("one-image", edited(f"{HEAD}.predict_by_feat", operator("*", "//")), "the first image's mask for all", DETR_4),
)

MUTANTS = (*QUERY_SELECTION, *DECODING, *HEADS, *PREDICTION)
