"""DDQ R-CNN: what to prove, and where its stages begin and end in mmdet 2 and in the port to mmdet 3."""

from __future__ import annotations

from typing import Any, Tuple

from parity.cases import ddq_fcn, ddq_limits
from parity.cases.base import Batch, Call, Case, Fill, Meaning, Stage
from parity.cases.common import RECIPE_STAGES, RECIPE_WITH_IMAGES, SETTINGS_OF_PORTS, SQUARE_IMAGES
from parity.cases.ddq_fcn import AUXILIARY, BACKBONE, DENSE, LEVELS
from parity.cases.deviations import NanNorm
from parity.cases.odd_images import odd_images
from parity.cases.other_settings import ABSENT, OtherSetting
from parity.cases.patterns import Constant, Derived, Ignore, Instances, Many, Metas, PerImage, ScoredBoxes

NECK = ("p2", *ddq_fcn.NECK)
TO_ROIS = "parity.taps.rois:to_rois"

TENSORS = {
    **ddq_fcn.TENSORS,
    "proposals": Meaning("boxes of the queries, images with fewer filled with zeros (B, Q, 4)", "pixels xyxy"),
    "query_features": Meaning("content of the queries (B, Q, 256)", "activation"),
    "stage_logits": Meaning("class scores of one RoI stage (B, Q, 80)", "logits"),
    "stage_features": Meaning("content of the queries after one RoI stage (B, Q, 256)", "activation"),
    "stage_boxes_": Meaning("boxes of one image after one RoI stage (Q, 4)", "pixels xyxy"),
}

# mmdet 3 calls the RoI stages so.
LOSS_NAMES = {"s0.": "stage0_", "s1.": "stage1_"}

COMMON = (
    Stage("backbone", (Call("backbone", {"x": "image"}, BACKBONE),)),
    Stage("neck", (Call("neck", {"inputs": BACKBONE}, NECK),)),
)


def logits(stage: int) -> str:
    return f"stage_logits[{stage}]"


def boxes(stage: int) -> str:
    return f"stage_boxes_{stage}"


def features(stage: int) -> str:
    return f"stage_features[{stage}]"


def entering(stage: int) -> Tuple[Any, str]:
    """Return the patterns of boxes and features that enter a RoI stage."""
    if stage == 0:
        return "proposals", "query_features"
    return PerImage(boxes(stage - 1), stacked=True), features(stage - 1)


def legacy_roi_stage(stage: int) -> Stage:
    regions, contents = entering(stage)
    call = Call(
        "roi_head._bbox_forward",
        {
            "stage": Constant(stage),
            "x": NECK,
            "rois": Derived(regions, TO_ROIS),
            "object_feats": contents,
            "img_metas": Metas(),
        },
        {
            "cls_score": logits(stage),
            "detach_proposal_list": PerImage(boxes(stage)),
            "object_feats": features(stage),
        },
        when=("stage",),
    )
    return Stage(f"roi_stage_{stage}", (call,))


def roi_stage(stage: int) -> Stage:
    regions, contents = entering(stage)
    call = Call(
        "roi_head.forward_stage",
        {"stage": Constant(stage), "feats": NECK, "boxes": regions, "features": contents},
        (logits(stage), PerImage(boxes(stage)), features(stage)),
        when=("stage",),
    )
    return Stage(f"roi_stage_{stage}", (call,))


LEGACY_STAGES = (
    *COMMON,
    Stage("rpn_head", (Call("rpn_head", {"inputs": ddq_fcn.NECK}, (DENSE, Ignore())),)),
    Stage(
        "query_selection",
        (
            Call(
                "rpn_head.get_inputs",
                {"main_results": DENSE, "aux_results": Constant(None), "img_metas": Metas()},
                (
                    (PerImage("query_scores"), PerImage("query_boxes")),
                    Ignore(),
                    {"proposals": "proposals", "object_feats": "query_features"},
                ),
            ),
        ),
    ),
    legacy_roi_stage(0),
    legacy_roi_stage(1),
    # The end of mmdet 2's SparseRoIHead.simple_test is no method; what it makes is seen as it is handed on.
    Stage(
        "predict",
        (
            Call(
                "mmdet.models.roi_heads.sparse_roi_head:bbox2result",
                {},
                {"bboxes": ScoredBoxes("boxes", "scores"), "labels": "labels"},
                of_arguments=True,
                each_image=True,
            ),
        ),
        begins_after="roi_stage_1",
        replayable=False,
    ),
)

STAGES = (
    *COMMON,
    Stage("rpn_head", (Call("rpn_head", {"feats": ddq_fcn.NECK}, (DENSE, Ignore())),)),
    Stage(
        "query_selection",
        (
            Call(
                "rpn_head.select_queries",
                {"scores": Many("class_scores", LEVELS), "distances": Many("distances", LEVELS)},
                (PerImage("query_boxes"), PerImage("query_scores"), PerImage("_query_indices")),
            ),
            Call(
                "rpn_head.build_queries",
                {
                    "boxes": PerImage("query_boxes"),
                    "scores": PerImage("query_scores"),
                    "indices": PerImage("_query_indices"),
                    "cls_feats": Many("class_features", LEVELS),
                    "reg_feats": Many("box_features", LEVELS),
                },
                ("proposals", "query_features"),
            ),
        ),
    ),
    roi_stage(0),
    roi_stage(1),
    Stage(
        "predict",
        (
            Call(
                "roi_head.predict_by_stage",
                {
                    "class_logits": logits(1),
                    "boxes": PerImage(boxes(1), stacked=True),
                    "batch_img_metas": Metas(),
                    "rescale": Constant(True),
                },
                Instances((("bboxes", "boxes"), ("scores", "scores"), ("labels", "labels"))),
            ),
        ),
    ),
)

LEGACY_TRAINING = (
    *COMMON,
    Stage("rpn_head", (Call("rpn_head", {"inputs": ddq_fcn.NECK}, (DENSE, AUXILIARY)),)),
    Stage(
        "query_selection",
        (
            Call(
                "rpn_head.get_inputs",
                {},
                (
                    (PerImage("query_scores"), PerImage("query_boxes")),
                    (PerImage("aux_scores"), PerImage("aux_boxes")),
                    {"proposals": "proposals", "object_feats": "query_features"},
                ),
            ),
        ),
    ),
    legacy_roi_stage(0),
    legacy_roi_stage(1),
)

TRAINING = (
    *COMMON,
    Stage("rpn_head", (Call("rpn_head", {"feats": ddq_fcn.NECK}, (DENSE, AUXILIARY)),)),
    Stage(
        "query_selection",
        (
            Call(
                "rpn_head.select_for_training",
                {},
                (
                    (PerImage("query_boxes"), PerImage("query_scores"), Ignore()),
                    (PerImage("aux_boxes"), PerImage("aux_scores"), Ignore()),
                ),
            ),
            Call("rpn_head.build_queries", {}, ("proposals", "query_features")),
        ),
    ),
    roi_stage(0),
    roi_stage(1),
)

# As for FCN; the RoI stages refine gently, or boxes leave the image.
WEIGHTS = (
    Fill("*fc_reg.weight", spread=0.3, per_fan_in=True),
    Fill("*fc_cls.bias", centre=-3.0, spread=0.3),
    Fill("*norm*.weight", centre=1.0, spread=0.2),
    Fill("*_fcs.1.weight", centre=1.0, spread=0.2),
    Fill("*_fcs.4.weight", centre=1.0, spread=0.2),
    Fill("*_fcs.7.weight", centre=1.0, spread=0.2),
    *ddq_fcn.WEIGHTS,
)

NAN_NORM = NanNorm(
    tensor="parameters",
    reason=(
        "without any object the loss is infinite (legacy-quirks) and the gradient norm NaN: torch 1.9 then clips"
        " nothing, torch 1.10 and later multiply every gradient by NaN; the weights are destroyed either way"
    ),
    link="https://github.com/pytorch/pytorch/blob/v1.9.0/torch/nn/utils/clip_grad.py",
)

PORT_NAMES = "docs/ports.md"
MATCHING = r"model\.train_cfg\.rcnn\[(\d)\]\.assigner\."
SETTING_NAMES = {
    MATCHING + r"cls_cost\.(.+)": r"model.train_cfg.rcnn[\1].assigner.match_costs[0].\2",
    MATCHING + r"reg_cost\.(.+)": r"model.train_cfg.rcnn[\1].assigner.match_costs[1].\2",
    MATCHING + r"iou_cost\.(.+)": r"model.train_cfg.rcnn[\1].assigner.match_costs[2].\2",
}
HARD_CODED = "the legacy engine has it in its code, the port says it in its config"
OTHER_SETTINGS = (
    *SETTINGS_OF_PORTS,
    OtherSetting(r"model\.roi_head\.type", "SparseRoIHead", "DDQRoIHead", "the port's own class", PORT_NAMES),
    OtherSetting(r"model\.roi_head\.bbox_head\[\d\]\.type", "DIIHead", "DDQDIIHead", "the port's own", PORT_NAMES),
    OtherSetting(r"model\.rpn_head\.dqs_cfg\.iou_threshold", ABSENT, 0.7, HARD_CODED, PORT_NAMES),
    OtherSetting(r"model\.rpn_head\.dqs_cfg\.nms_pre", ABSENT, 1000, HARD_CODED, PORT_NAMES),
    OtherSetting(r"model\.rpn_head\.dqs_cfg\.type", ABSENT, "nms", HARD_CODED, PORT_NAMES),
    OtherSetting(r"model\.rpn_head\.strides", ABSENT, [8, 16, 32, 64, 128], HARD_CODED, PORT_NAMES),
    OtherSetting(
        MATCHING + r"match_costs\[1\]\.box_format",
        ABSENT,
        "xyxy",
        "mmdet 2's default, which in mmdet 3 has to be said",
        "mmdet/core/bbox/match_costs/match_cost.py in mmdet 2.22.0",
    ),
    OtherSetting(r"model\.test_cfg\.rpn", {}, None, "no setting either way", PORT_NAMES),
)
VARIABLES = {
    **ddq_fcn.VARIABLES,
    r"(num_stages|roi_stage|roi_training)(\..+)?": "a variable of the file, compared where it is used",
}

CASES = (
    Case(
        id="ddq_rcnn_r50_12e",
        title="DDQ R-CNN R-50, 12 epochs",
        legacy="ddq_mmdet2",
        new="mmdet3",
        configs={
            "ddq_mmdet2": "projects/configs/ddq_rcnn/ddq_rcnn_r50_1x.py",
            "mmdet3": "ports/configs/ddq-rcnn_r50_8xb2-12e_coco.py",
        },
        reported_ap=44.6,
        stages=STAGES,
        legacy_stages=LEGACY_STAGES,
        training_stages=TRAINING,
        legacy_training_stages=LEGACY_TRAINING,
        loss_names=LOSS_NAMES,
        tensors=TENSORS,
        recipe_stages=RECIPE_STAGES,
        setting_names=SETTING_NAMES,
        other_settings=OTHER_SETTINGS,
        unread_settings=VARIABLES,
        deviations=(SQUARE_IMAGES,),
        weights=WEIGHTS,
        records={
            **{name: ddq_fcn.records(30)[name] for name in ("padded", "tiny", "crowded", "nothing", "odd-images")},
            "limits": ddq_limits.dense_batch(47),
        },
        training=ddq_fcn.training_with_limits(130),
        limits=ddq_limits.RCNN,
    ),
    Case(
        id="ddq_rcnn_r50_36e",
        title="DDQ R-CNN R-50, 36 epochs, DETR augmentation",
        legacy="ddq_mmdet2",
        new="mmdet3",
        configs={
            "ddq_mmdet2": "projects/configs/ddq_rcnn/ddq_rcnn_r50_3x.py",
            "mmdet3": "ports/configs/ddq-rcnn_r50_8xb2-36e-detr-aug_coco.py",
        },
        reported_ap=48.1,
        stages=STAGES,
        legacy_stages=LEGACY_STAGES,
        training_stages=TRAINING,
        legacy_training_stages=LEGACY_TRAINING,
        loss_names=LOSS_NAMES,
        tensors=TENSORS,
        recipe_stages=RECIPE_WITH_IMAGES,
        setting_names=SETTING_NAMES,
        other_settings=OTHER_SETTINGS,
        unread_settings=VARIABLES,
        deviations=(SQUARE_IMAGES, NAN_NORM),
        weights=WEIGHTS,
        records={
            "tiny": ddq_fcn.short_records(36)["tiny"],
            # Resized: elsewhere the factor that boxes are divided by is 1.
            "photo": Batch(seed=37, files=("china.jpg",), scale=(64, 48)),
            "odd-images": odd_images(36),
            "limits": ddq_limits.dense_batch(48),
        },
        training=ddq_fcn.training_with_limits(136),
        limits=ddq_limits.RCNN,
    ),
)
