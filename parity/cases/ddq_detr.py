"""DDQ DETR: what to prove, and where its stages begin and end (the same methods in mmdet 3.0 and 3.3)."""

from __future__ import annotations

from typing import Any, Dict, Tuple

from parity.cases import ddq_fcn, ddq_limits
from parity.cases.base import Batch, Call, Case, Fill, Meaning, Slice, Stage, TrainingBatch
from parity.cases.common import PIXELS, RECIPE_STAGES, RECIPE_TENSORS, RECIPE_WITH_IMAGES, RESNET
from parity.cases.deviations import AbsentMask
from parity.cases.odd_images import odd_images
from parity.cases.other_settings import ABSENT, OtherSetting
from parity.cases.patterns import Constant, Ignore, Instances, Many, Metas, Samples, Split

LAYERS = 6  # decoder layers

FEATURES = {
    "c": Meaning("backbone feature map of one stride", "activation"),
    "p": Meaning("neck feature map of one stride, 256 channels", "activation"),
}

TENSORS = {
    **PIXELS,
    **RECIPE_TENSORS,
    "tokens": Meaning("features of all levels, one row a position (B, N, 256)", "activation"),
    "position": Meaning("positional encoding plus level embedding (B, N, 256)", "embedding"),
    "mask": Meaning("true where a position is padding (B, N)", "bool"),
    "spatial_shapes": Meaning("height and width of every level (L, 2)", "positions"),
    "level_start_index": Meaning("first row of every level (L,)", "index"),
    "valid_ratios": Meaning("share of width and height that is no padding (B, L, 2)", "ratio"),
    "memory": Meaning("encoder output (B, N, 256)", "activation"),
    "query": Meaning("content of the 900 distinct queries (B, 900, 256)", "activation"),
    "reference_points": Meaning("initial boxes of the queries (B, 900, 4)", "normalised cxcywh"),
    "query_range": Meaning("first distinct query and how many (2,)", "index"),
    "hidden_states": Meaning("normed decoder output of one layer (B, 900, 256)", "activation"),
    "references": Meaning("boxes entering or leaving a decoder layer (B, 900, 4)", "normalised cxcywh"),
    "distinct": Meaning("row 0 of each layer's distinct-query mask (5, B, 900)", "bool"),
    "class_logits": Meaning("class scores of one decoder layer (B, 900, 80)", "logits"),
    "box_predictions": Meaning("boxes of one decoder layer (B, 900, 4)", "normalised cxcywh"),
    "boxes": Meaning("final boxes of one image (300, 4)", "pixels xyxy"),
    "scores": Meaning("final scores of one image (300,)", "probability"),
    "labels": Meaning("final classes of one image (300,)", "class index"),
}


def stages(backbone_levels: Tuple[str, ...], neck_levels: Tuple[str, ...]) -> Tuple[Stage, ...]:
    """Return the stages of a DDQ DETR whose backbone and neck give the named feature maps."""
    return (
        Stage("backbone", (Call("backbone", {"x": "image"}, backbone_levels),)),
        Stage("neck", (Call("neck", {"inputs": backbone_levels}, neck_levels),)),
        Stage(
            "encoder",
            (
                Call(
                    "pre_transformer",
                    {"mlvl_feats": neck_levels, "batch_data_samples": Samples()},
                    (
                        {
                            "feat": "tokens",
                            "feat_mask": "mask",
                            "feat_pos": "position",
                            "spatial_shapes": "spatial_shapes",
                            "level_start_index": "level_start_index",
                            "valid_ratios": "valid_ratios",
                        },
                        Ignore(),  # the same tensors once more, for the decoder
                    ),
                ),
                Call(
                    "forward_encoder",
                    {
                        "feat": "tokens",
                        "feat_mask": "mask",
                        "feat_pos": "position",
                        "spatial_shapes": "spatial_shapes",
                        "level_start_index": "level_start_index",
                        "valid_ratios": "valid_ratios",
                    },
                    {"memory": "memory"},
                ),
            ),
        ),
        Stage(
            "query_selection",
            (
                Call(
                    "pre_decoder",
                    {
                        "memory": "memory",
                        "memory_mask": "mask",
                        "spatial_shapes": "spatial_shapes",
                        "batch_data_samples": Samples(),
                    },
                    ({"query": "query", "reference_points": "reference_points"}, Ignore()),
                ),
            ),
            writes_state=("query_range",),
        ),
        Stage(
            "decoder",
            (
                Call(
                    "forward_decoder",
                    {
                        "query": "query",
                        "memory": "memory",
                        "memory_mask": "mask",
                        "reference_points": "reference_points",
                        "spatial_shapes": "spatial_shapes",
                        "level_start_index": "level_start_index",
                        "valid_ratios": "valid_ratios",
                        "dn_mask": Constant(None),
                    },
                    {
                        "hidden_states": Split("hidden_states", LAYERS),
                        "references": Many("references", LAYERS + 1),
                    },
                ),
            ),
            reads_state=("query_range",),
            writes_state=("distinct",),
        ),
        Stage(
            "detr_head",
            (
                Call(
                    "bbox_head",
                    {
                        "hidden_states": Split("hidden_states", LAYERS),
                        "references": Many("references", LAYERS + 1),
                    },
                    (Split("class_logits", LAYERS), Split("box_predictions", LAYERS)),
                ),
            ),
            # The head treats every query by itself: every eighteenth is enough of its input.
            slices={
                "hidden_states": Slice(axis=1, step=18),
                "references": Slice(axis=1, step=18),
            },
        ),
        Stage(
            "predict",
            (
                Call(
                    "bbox_head.predict_by_feat",
                    {
                        "layer_cls_scores": Split("class_logits", LAYERS, only=(LAYERS - 1,)),
                        "layer_bbox_preds": Split("box_predictions", LAYERS, only=(LAYERS - 1,)),
                        "batch_img_metas": Metas(),
                        "rescale": Constant(True),
                    },
                    Instances((("bboxes", "boxes"), ("scores", "scores"), ("labels", "labels"))),
                ),
            ),
            reads_state=("distinct",),
        ),
    )


# First match wins. Chosen so that activations stay O(1) through the residual sums, class scores spread,
# boxes lie in the image and overlap enough for NMS to work; every bias, norm and statistic is
# non-trivial, so that none can be lost unseen. Attention is kept weak beside the residual path: it
# averages, and with random weights a strong one makes all queries alike.
WEIGHTS = (
    *RESNET,
    Fill("*norm*.weight", centre=1.0, spread=0.2),
    Fill("neck.*.gn.weight", centre=1.0, spread=0.2),
    Fill("*sampling_offsets.bias", spread=2.0),
    Fill("*sampling_offsets.weight", spread=0.5, per_fan_in=True),
    Fill("*self_attn.attn.out_proj.weight", spread=0.3, per_fan_in=True),
    Fill("*attn.output_proj.weight", spread=0.5, per_fan_in=True),
    Fill("*ffn.layers.1.weight", spread=0.3, per_fan_in=True),
    Fill("query_map.weight", spread=3.0, per_fan_in=True),
    Fill("bbox_head.cls_branches.*.bias", centre=-4.0, spread=0.3),
    Fill("bbox_head.cls_branches.*.weight", spread=1.5, per_fan_in=True),
    Fill("bbox_head.reg_branches.6.4.bias", centre=(0.0, 0.0, 2.5, 2.5), spread=0.1),
    Fill("bbox_head.*reg_branches.*.4.weight", spread=0.5, per_fan_in=True),
    Fill("*embed*", spread=1.0),
    Fill("*bias", spread=0.1),
    Fill("backbone.*", spread=1.4, per_fan_in=True),
    Fill("*", spread=1.0, per_fan_in=True),
)

RECORDS = {
    "padded": Batch(seed=2, sizes=((128, 160), (96, 150))),
    "unpadded": Batch(seed=7, sizes=((96, 128), (96, 128))),
    "photos": Batch(seed=5, files=("flower-portrait.jpg", "china.jpg"), scale=(144, 96)),
    # Smaller than one stride of the coarsest level (64 pixels).
    "tiny": Batch(seed=3, sizes=((40, 56),)),
    # More than 50 positions side by side: the outermost lie within 0.01 of the border, where no query may start.
    "wide": Batch(seed=12, sizes=((32, 416),)),
    "odd-images": odd_images(2),
    "limits": ddq_limits.detr_batch(41, 256, score=-28.5),
}

DEVIATIONS = (
    AbsentMask(
        tensor="mask",
        reason="mmdet 3.3 passes no mask at all for a batch without padding",
        link="https://github.com/open-mmlab/mmdetection/issues/10910",
    ),
)

CLIFFS = {
    "decoder.nms": "row 0 of the mask is read: where query 0 survives, every query counts as distinct (DDQ#14)",
}

# Swin's own parameters; the last norm before each feature map is the neck's input.
SWIN_WEIGHTS = (
    Fill("*relative_position_bias_table", spread=0.5),
    Fill("*ffn.layers.1.weight", spread=0.3, per_fan_in=True),
    Fill("backbone.*attn.w_msa.proj.weight", spread=0.5, per_fan_in=True),
    Fill("backbone.*norm*.weight", centre=1.0, spread=0.2),
    Fill("backbone.*bias", spread=0.1),
    Fill("backbone.*", spread=1.0, per_fan_in=True),
    *WEIGHTS,
)

NECK_OF_4 = ("p3", "p4", "p5", "p6")


# What the legacy engine has in its code and the new one in its config.
DENSE_QUERIES = OtherSetting(
    r"model\.dense_topk_ratio",
    ABSENT,
    1.5,
    "the legacy engine has it in its code, mmdet 3.3 in its config",
    "mmdet/models/detectors/ddq_detr.py:38 in mmdet 3.3.0",
)
VARIABLES = {r"max_epochs|pretrained": "a variable of the file, compared where it is used"}


def case(
    name: str,
    title: str,
    config: str,
    *,
    reported_ap: float,
    stages: Tuple[Stage, ...],
    recipe_stages: Tuple[str, ...] = RECIPE_STAGES,
    **others: Any,
) -> Case:
    """Return one DDQ DETR; both engines call its config alike."""
    return Case(
        id=name,
        title=title,
        legacy="ddq_mmdet3rc",
        new="mmdet3",
        configs={"ddq_mmdet3rc": f"projects/configs/ddq_detr/{config}", "mmdet3": f"ddq/{config}"},
        reported_ap=reported_ap,
        stages=stages,
        tensors={**FEATURES, **TENSORS},
        recipe_stages=recipe_stages,
        other_settings=(DENSE_QUERIES,),
        unread_settings=VARIABLES,
        deviations=DEVIATIONS,
        cliffs=CLIFFS,
        **{"limits": ddq_limits.DETR, **others},
    )


def small_training(seed: int) -> Dict[str, TrainingBatch]:
    """Return all batches of training but that of a hundred objects: its matchings alone would be 14 to 23 MB."""
    return {name: batch for name, batch in ddq_fcn.training(seed).items() if name != "train-hundred"}


CASES = (
    case(
        "ddq_detr_4scale_r50_12e",
        "DDQ DETR-4scale R-50, 12 epochs",
        "ddq-detr-4scale_r50_8xb2-12e_coco.py",
        reported_ap=51.3,
        stages=stages(("c3", "c4", "c5"), NECK_OF_4),
        weights=WEIGHTS,
        records=RECORDS,
        recipe_stages=RECIPE_WITH_IMAGES,
        training=ddq_fcn.training(140),
        limits=ddq_limits.DETR_4SCALE,
    ),
    case(
        "ddq_detr_5scale_r50_12e",
        "DDQ DETR-5scale R-50, 12 epochs",
        "ddq-detr-5scale_r50_8xb2-12e_coco.py",
        reported_ap=52.1,
        stages=stages(("c2", "c3", "c4", "c5"), ("p2", *NECK_OF_4)),
        weights=WEIGHTS,
        records={
            "padded": Batch(seed=8, sizes=((64, 96), (50, 80))),
            "tiny": Batch(seed=10, sizes=((40, 56),)),
            "odd-images": odd_images(8),
            "limits": ddq_limits.detr_batch(41, 128, score=-33.0),
        },
        # A finer level: half the side has as many positions.
        training={**small_training(146), "train-limits": ddq_limits.training_batch(146, 128)},
    ),
    case(
        "ddq_detr_4scale_swinl_30e",
        "DDQ DETR-4scale Swin-L, 30 epochs",
        "ddq-detr-4scale_swinl_8xb2-30e_coco.py",
        reported_ap=58.7,
        stages=stages(("c3", "c4", "c5"), NECK_OF_4),
        weights=SWIN_WEIGHTS,
        initial_seeds=4,  # each costs two seconds
        records={
            "padded": Batch(seed=8, sizes=((64, 96), (50, 80))),
            "odd-images": odd_images(8),
            "limits": ddq_limits.detr_batch(41, 256, score=-34.0),
        },
        training={
            # No record of two processes: one that trains Swin-L in float64 was seen to hold 12 to 15 GB.
            name: batch
            for name, batch in small_training(150).items()
            if batch.ranks == 1
        },
        limits=ddq_limits.DETR_4SCALE,
    ),
)
