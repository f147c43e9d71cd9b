"""What the declarations of several families share."""

from __future__ import annotations

from parity.cases.base import INITIALISATION, SCHEDULE, SETTINGS, TRAIN_IMAGES, TRAIN_PIPELINE, Fill, Meaning
from parity.cases.deviations import DegenerateBoxes, PaddedToSquare, SquareImages
from parity.cases.other_settings import OtherSetting

# What every detector's preprocessing gives.
PIXELS = {
    "image": Meaning("normalised, padded batch (B, 3, H, W)", "normalised RGB"),
    "img_shape": Meaning("height and width after resizing, before padding (B, 2)", "pixels"),
    "ori_shape": Meaning("height and width of the file (B, 2)", "pixels"),
    "batch_input_shape": Meaning("height and width of the padded batch (2,)", "pixels"),
    "scale_factor": Meaning("resize factor of width and height (B, 2)", "ratio"),
}

# ResNet and batch norm: the first rules of a case, so that residual sums stay O(1).
RESNET = (
    Fill("*.num_batches_tracked", centre=7.0, spread=0.0),
    Fill("*running_mean", spread=0.1),
    Fill("*running_var", centre=1.0, spread=0.3),
    Fill("backbone.*.bn3.weight", centre=0.3, spread=0.1),
    Fill("backbone.*bn*.weight", centre=1.0, spread=0.2),
    Fill("backbone.*downsample.1.weight", centre=0.8, spread=0.2),
)

# Of the dense heads of mmdet 2.22 none but the RPN's reads min_bbox_size, whatever the config says.
DEGENERATE_BOXES = DegenerateBoxes(
    tensor="predict",
    reason="before the NMS mmdet 3.3 drops boxes without area (min_bbox_size=0), mmdet 2.22 keeps them",
    link="mmdet/models/dense_heads/base_dense_head.py:476 in mmdet 3.3.0",
)
KEEP_DEGENERATE = {"model.test_cfg.min_bbox_size": -1}  # what lifts it in mmdet 3.3
# Where a test pipeline pads to a square, as YOLOX's does.
SQUARE_PADDING = PaddedToSquare(
    tensor="img_shape",
    reason="mmcv 2's Pad overwrites img_shape with the padded size, mmcv 1 and mmdet 2 leave it",
    link="mmcv/transforms/processing.py:388 in mmcv 2.1.0",
)
# What the training data are made into, image by image.
TRAINING_DATA = {
    "image_ids": Meaning("images that are trained on, in order (I,)", "COCO id"),
    "batched_with_first": Meaning("whether the sampler batches an image with the first one (I,)", "bool"),
    "parsed_boxes": Meaning("an image's usable boxes as parsed (N, 4)", "pixels xyxy"),
    "parsed_labels": Meaning("their classes (N,)", "class index"),
    "parsed_ignored_boxes": Meaning("boxes to ignore: crowds (N, 4)", "pixels xyxy"),
    "draws": Meaning("random choices: least answer, end of the range, answer, its probability (D, 4)", "index"),
    "flip": Meaning("whether the image is flipped", "bool"),
    "img_shape": Meaning("height and width after the transforms, before padding (2,)", "pixels"),
    "boxes": Meaning("boxes (N, 4)", "pixels xyxy"),
    "labels": Meaning("classes (N,)", "class index"),
    "ignored_boxes": Meaning("boxes to ignore after the transforms (N, 4)", "pixels xyxy"),
    "pixels_shape": Meaning("channels, height, width of a transformed image (3,)", "pixels"),
    "pixels_samples": Meaning("seeded samples of it (256,)", "BGR, 0 to 255"),
    "pixels_sums": Meaning("signed sums over blocks of it (256,)", "BGR, 0 to 255"),
    "batch_shape": Meaning("images, channels, height, width of a padded batch (4,)", "pixels"),
    "batch_samples": Meaning("seeded samples of it (256,)", "normalised RGB"),
    "batch_sums": Meaning("signed sums over blocks of it (256,)", "normalised RGB"),
}

# Between mmdet 2 and mmdet 3.
SQUARE_IMAGES = SquareImages(
    tensor="batched_with_first",
    reason="square images are batched with those higher than wide in mmdet 2, with those wider than high in mmdet 3",
    link="https://github.com/open-mmlab/mmdetection/blob/v3.3.0/mmdet/datasets/samplers/batch_sampler.py",
)

# Between mmdet 2's training and that of the ports, which are written for mmdet 3.
SAMPLERS = "mmdet/datasets/samplers/group_sampler.py in mmdet 2.22.0, batch_sampler.py in 3.3.0"
SETTINGS_OF_PORTS = (
    OtherSetting(
        "seed",
        None,
        0,
        "the ports' configs name a seed, so that a training can be repeated; mmdet 2 draws one for each training",
        "mmdet/apis/train.py:18 in mmdet 2.22.0",
    ),
    *(
        OtherSetting(
            name,
            False,
            True,
            "mmdet 3 keeps its workers from epoch to epoch; those of mmdet 2 begin anew with the same seed, and so draw"
            " the same numbers in every epoch",
            "mmdet/datasets/builder.py:194 in mmdet 2.22.0",
        )
        for name in ("workers_stay", r"in_force\.workers_stay")
    ),
    OtherSetting(
        r"in_force\.worker_seeds",
        {"numpy": [0, 1], "python": True, "torch": False},
        {"numpy": [0, 1], "python": True, "torch": True},
        "mmengine seeds torch in a worker as well; no transform draws from it (stage train_pipeline)",
        "mmengine/dataset/utils.py in mmengine 0.10.7",
    ),
    OtherSetting(
        r"in_force\.images_twice",
        2,
        0,
        "where a batch lacks images of its shape mmdet 2 takes some of them twice: here one of each shape",
        SAMPLERS,
    ),
    OtherSetting(
        r"in_force\.batches_of_two_shapes",
        0,
        1,
        "where a batch lacks images of its shape mmdet 3 fills it with others, at the end of an epoch",
        SAMPLERS,
    ),
)

# What of a training's set-up is compared, in every case.
RECIPE_STAGES = (SCHEDULE, INITIALISATION, TRAIN_PIPELINE, SETTINGS)
# For one case of each detector; the training pipelines of the others are, word for word, those of these.
RECIPE_WITH_IMAGES = (*RECIPE_STAGES, TRAIN_IMAGES)
RECIPE_TENSORS = {
    "epoch_length": Meaning("iterations of one epoch of COCO train2017 on 8 GPUs (1,)", "iterations"),
    "dialect": Meaning("which words the config is written in", "UTF-8"),
    "config": Meaning("every leaf of the published config, inheritance resolved", "JSON"),
    "in_force": Meaning("what the framework builds of it: loader, order, optimiser's step, hooks", "JSON"),
    "iterations": Meaning(
        "where the rate changes, epochs begin and end, and the neighbours of those (R,)", "iteration"
    ),
    "learning_rate": Meaning("rate of every iteration and base rate (N, G)", "per step"),
    "learning_rate_at": Meaning("rate at the ``iterations`` (R, G)", "per step"),
    **TRAINING_DATA,
    "momentum": Meaning("momentum, or AdamW's first beta, of every iteration (N, G), or (1, G) if constant", "ratio"),
    "names": Meaning("a line for each parameter and buffer: name and shape", "UTF-8"),
    "law": Meaning("of each, over all seeds: see parity.engines.initialisation.COLUMNS (P, 9)", "weights"),
    "fixed": Meaning("values of the parameters that begin the same for every seed, joined", "weights"),
    "quantiles": Meaning("evenly spaced quantiles of each random parameter's values (R, 32)", "weights"),
    "pretrained": Meaning("a line for each checkpoint that training begins from: where it goes, and its name", "UTF-8"),
}
