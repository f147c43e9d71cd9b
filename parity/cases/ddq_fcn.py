"""DDQ FCN: what to prove, and where its stages begin and end in mmdet 2 and in the port to mmdet 3."""

from __future__ import annotations

from typing import Dict

from parity.cases import ddq_limits
from parity.cases.base import Batch, Call, Case, Fill, Meaning, Stage, TrainingBatch
from parity.cases.common import (
    PIXELS,
    RECIPE_STAGES,
    RECIPE_TENSORS,
    RECIPE_WITH_IMAGES,
    RESNET,
    SETTINGS_OF_PORTS,
    SQUARE_IMAGES,
)
from parity.cases.odd_images import odd_images
from parity.cases.patterns import Constant, Detections, Ignore, Instances, Many, Metas, PerImage

LEVELS = 5
BACKBONE = ("c2", "c3", "c4", "c5")
NECK = ("p3", "p4", "p5", "p6", "p7")

DENSE = {
    "cls_scores_list": Many("class_scores", LEVELS),
    "bbox_preds_list": Many("distances", LEVELS),
    "cls_feats": Many("class_features", LEVELS),
    "reg_feats": Many("box_features", LEVELS),
}

TENSORS = {
    **PIXELS,
    **RECIPE_TENSORS,
    "c": Meaning("backbone feature map of one stride", "activation"),
    "p": Meaning("neck feature map of one stride, 256 channels", "activation"),
    "class_scores": Meaning("class scores of one level (B, 80, H, W)", "probability"),
    "distances": Meaning("left, top, right, bottom of one level (B, 4, H, W)", "strides"),
    "class_features": Meaning("end of the classification tower, one level (B, 256, H, W)", "activation"),
    "box_features": Meaning("end of the box tower, one level (B, 256, H, W)", "activation"),
    "query_scores": Meaning("class scores of an image's distinct queries (Q, 80)", "probability"),
    "aux_class_scores": Meaning("class scores of the auxiliary branch, one level (B, 80, H, W)", "probability"),
    "aux_distances": Meaning("left, top, right, bottom of the auxiliary branch, one level (B, 4, H, W)", "strides"),
    "aux_scores": Meaning("class scores of an image's auxiliary candidates (Q, 80)", "probability"),
    "aux_boxes": Meaning("boxes of an image's auxiliary candidates (Q, 4)", "pixels xyxy"),
    "query_boxes": Meaning("boxes of an image's distinct queries (Q, 4)", "pixels xyxy"),
    "boxes": Meaning("final boxes of one image (300, 4)", "pixels xyxy"),
    "scores": Meaning("final scores of one image (300,)", "probability"),
    "labels": Meaning("final classes of one image (300,)", "class index"),
}

# The neck is a list of one in the config, hence a Sequential, whose argument is called so.
COMMON = (
    Stage("backbone", (Call("backbone", {"x": "image"}, BACKBONE),)),
    Stage("neck", (Call("neck", {"input": BACKBONE}, NECK),)),
)

LEGACY_STAGES = (
    *COMMON,
    Stage("fcn_head", (Call("bbox_head", {"inputs": NECK}, (DENSE, Ignore())),)),
    Stage(
        "query_selection",
        (
            Call(
                "bbox_head.get_inputs",
                {"main_results": DENSE, "aux_results": Constant(None), "img_metas": Metas()},
                ((PerImage("query_scores"), PerImage("query_boxes")), Ignore()),
            ),
        ),
    ),
    Stage(
        "predict",
        (
            Call(
                "bbox_head.get_bboxes",
                {"cls_scores": PerImage("query_scores"), "bbox_preds": PerImage("query_boxes"), "img_metas": Metas()},
                Detections("boxes", "scores", "labels"),
            ),
        ),
    ),
)

STAGES = (
    *COMMON,
    Stage("fcn_head", (Call("bbox_head", {"feats": NECK}, (DENSE, Ignore())),)),
    Stage(
        "query_selection",
        (
            Call(
                "bbox_head.select_queries",
                {"scores": Many("class_scores", LEVELS), "distances": Many("distances", LEVELS)},
                (PerImage("query_boxes"), PerImage("query_scores"), Ignore()),
            ),
        ),
    ),
    Stage(
        "predict",
        (
            Call(
                "bbox_head.predict_by_queries",
                {
                    "boxes": PerImage("query_boxes"),
                    "scores": PerImage("query_scores"),
                    "batch_img_metas": Metas(),
                    "rescale": Constant(True),
                },
                Instances((("bboxes", "boxes"), ("scores", "scores"), ("labels", "labels"))),
            ),
        ),
    ),
)

# In training the head predicts twice, and the auxiliary branch has candidates instead of distinct queries.
AUXILIARY = {
    "cls_scores_list": Many("aux_class_scores", LEVELS),
    "bbox_preds_list": Many("aux_distances", LEVELS),
}

LEGACY_TRAINING = (
    *COMMON,
    Stage("fcn_head", (Call("bbox_head", {"inputs": NECK}, (DENSE, AUXILIARY)),)),
    Stage(
        "query_selection",
        (
            Call(
                "bbox_head.get_inputs",
                {},
                ((PerImage("query_scores"), PerImage("query_boxes")), (PerImage("aux_scores"), PerImage("aux_boxes"))),
            ),
        ),
    ),
)

TRAINING = (
    *COMMON,
    Stage("fcn_head", (Call("bbox_head", {"feats": NECK}, (DENSE, AUXILIARY)),)),
    Stage(
        "query_selection",
        (
            Call(
                "bbox_head.select_for_training",
                {},
                (
                    (PerImage("query_boxes"), PerImage("query_scores"), Ignore()),
                    (PerImage("aux_boxes"), PerImage("aux_scores"), Ignore()),
                ),
            ),
        ),
    ),
)

# First match wins. Positive scales (a negative one gives boxes of negative width), distances of a few
# strides, so that boxes overlap and NMS has work to do; every bias, norm and statistic non-trivial.
WEIGHTS = (
    *RESNET,
    Fill("*scales.*.scale", centre=1.0, spread=0.2),
    Fill("*_head.*conv_reg.bias", centre=0.7, spread=0.3),
    Fill("*_head.*conv_reg.weight", spread=0.9, per_fan_in=True),
    Fill("*_head.*conv_cls.bias", centre=-2.0, spread=0.3),
    Fill("*_head.*conv_cls.weight", spread=1.5, per_fan_in=True),
    Fill("*objectness.2.weight", spread=2.0, per_fan_in=True),
    Fill("*.gn.weight", centre=1.0, spread=0.2),
    Fill("*bias", spread=0.1),
    Fill("backbone.*", spread=1.4, per_fan_in=True),
    Fill("*", spread=1.0, per_fan_in=True),
)

# More than 300 good candidates: boxes of about a stride, which do not overlap.
CROWDED = (Fill("*_head.*conv_reg.bias", centre=-0.7, spread=0.1),)
# Almost nothing found: boxes as large as the image, of which a few survive, with scores near 0.
NOTHING = (
    Fill("*_head.*conv_reg.bias", centre=3.0, spread=0.1),
    Fill("*_head.*conv_cls.bias", centre=-12.0, spread=0.3),
)


def records(seed: int) -> Dict[str, Batch]:
    """Return the batches that a detector with strides of 8 to 128 pixels is proven on."""
    return {
        "padded": Batch(seed=seed, sizes=((64, 96), (48, 80))),
        "unpadded": Batch(seed=seed + 1, sizes=((64, 64), (64, 64))),
        # Smaller than one stride of the coarsest level.
        "tiny": Batch(seed=seed + 2, sizes=((40, 56),)),
        "crowded": Batch(seed=seed + 3, sizes=((128, 160),), fills=CROWDED),
        "nothing": Batch(seed=seed + 4, sizes=((64, 64),), fills=NOTHING),
        "odd-images": odd_images(seed),
    }


def short_records(seed: int) -> Dict[str, Batch]:
    """Return the batches of a detector that differs from a proven one in its training only."""
    return {
        "tiny": Batch(seed=seed, sizes=((40, 56),)),
        "photos": Batch(seed=seed + 1, files=("flower-portrait.jpg", "china.jpg"), scale=(96, 64)),
        "odd-images": odd_images(seed),
    }


def two_ranks(seed: int) -> TrainingBatch:
    """Return the batch of two processes with an image each, and twelve objects and three.

    Enough for all divisors but one to lie above their bound of 1: below it an average and a sum are the same.
    """
    return TrainingBatch(seed, sizes=((48, 64), (40, 56)), objects=(12, 3), ranks=2)


def training(seed: int) -> Dict[str, TrainingBatch]:
    """Return the batches that training is proven on: of one seed, so that the weights are made once."""
    two = ((64, 96), (48, 80))
    return {
        "train-two-sizes": TrainingBatch(seed, sizes=two, objects=(3, 5)),
        "train-one-empty": TrainingBatch(seed, sizes=two, objects=(0, 4)),
        "train-no-object": TrainingBatch(seed, sizes=two, objects=(0, 0)),
        "train-one-object": TrainingBatch(seed, sizes=((64, 64),), objects=(1,)),
        "train-hundred": TrainingBatch(seed, sizes=((96, 128),), objects=(100,)),
        "train-two-ranks": two_ranks(seed),
        "trajectory": TrainingBatch(seed, sizes=((64, 64),) * 6, objects=(3, 0, 1, 6, 2, 12), steps=10, per_step=2),
    }


def training_with_limits(seed: int) -> Dict[str, TrainingBatch]:
    """Return these batches, and one with more positions than candidates of a level."""
    return {**training(seed), "train-limits": ddq_limits.training_batch(seed, 256)}


# Variables of the configs' own, which are compared where they are used.
VARIABLES = {r"detr_(pipeline|scales).*": "a variable of the file, compared where it is used"}

CASES = (
    Case(
        id="ddq_fcn_r50_12e",
        title="DDQ FCN R-50, 12 epochs",
        legacy="ddq_mmdet2",
        new="mmdet3",
        configs={
            "ddq_mmdet2": "projects/configs/ddq_fcn/ddq_fcn_r50_1x.py",
            "mmdet3": "ports/configs/ddq-fcn_r50_8xb2-12e_coco.py",
        },
        reported_ap=41.5,
        stages=STAGES,
        legacy_stages=LEGACY_STAGES,
        training_stages=TRAINING,
        legacy_training_stages=LEGACY_TRAINING,
        tensors=TENSORS,
        recipe_stages=RECIPE_WITH_IMAGES,
        other_settings=SETTINGS_OF_PORTS,
        unread_settings=VARIABLES,
        deviations=(SQUARE_IMAGES,),
        weights=WEIGHTS,
        records={**records(20), "limits": ddq_limits.dense_batch(45)},
        training=training_with_limits(120),
        limits=ddq_limits.FCN,
    ),
    Case(
        id="ddq_fcn_r50_36e",
        title="DDQ FCN R-50, 36 epochs, DETR augmentation",
        legacy="ddq_mmdet2",
        new="mmdet3",
        configs={
            "ddq_mmdet2": "projects/configs/ddq_fcn/ddq_fcn_r50_3x_detr_aug.py",
            "mmdet3": "ports/configs/ddq-fcn_r50_8xb2-36e-detr-aug_coco.py",
        },
        reported_ap=44.8,
        stages=STAGES,
        legacy_stages=LEGACY_STAGES,
        training_stages=TRAINING,
        legacy_training_stages=LEGACY_TRAINING,
        tensors=TENSORS,
        recipe_stages=RECIPE_STAGES,
        other_settings=SETTINGS_OF_PORTS,
        unread_settings=VARIABLES,
        deviations=(SQUARE_IMAGES,),
        weights=WEIGHTS,
        records={**short_records(26), "limits": ddq_limits.dense_batch(46)},
        training=training_with_limits(126),
        limits=ddq_limits.FCN,
    ),
)
