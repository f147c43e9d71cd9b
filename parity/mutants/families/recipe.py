"""Recipe and trajectory: the schedule, the initial weights, the training data, and what several steps add up to."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from parity.cases.base import INITIALISATION, SCHEDULE, TRAIN_PIPELINE, TRAJECTORY
from parity.mutants.base import Mutant
from parity.mutants.edits import comparison, constant
from parity.mutants.families.common import DETR_4, FCN_12, FCN_36, RCNN_12
from parity.mutants.families.training import bugs
from parity.mutants.plant import Plant, config, edited, wrapped

PARSE = "mmdet.datasets.coco:CocoDataset.parse_data_info"
FCN_INIT = "parity.ports.fcn_head:DDQFCNHead.init_weights"
DETR_INIT = "mmdet.models.dense_heads.ddq_detr_head:DDQDETRHead.init_weights"
ATTENTION_INIT = "mmcv.ops.multi_scale_deform_attn:MultiScaleDeformableAttention.init_weights"


def setting(path: str, value: Any) -> Plant:
    """Return a config with the setting at a dotted path changed; a number is an index."""

    def change(content: Any) -> None:
        *owners, last = (int(step) if step.isdigit() else step for step in path.split("."))
        owner = functools.reduce(lambda found, step: found[step], owners, content)
        owner[last] = value

    return config(change)


def transform(kind: str, **settings: Any) -> Plant:
    """Return a training pipeline with the settings of every transform of a kind changed."""

    def change(steps: Any) -> None:
        for step in steps:
            if isinstance(step, list):
                change(step)
            else:
                step.update(settings if step["type"] == kind else {})
                change(step.get("transforms", ()))

    return config(lambda content: change(content.train_dataloader.dataset.pipeline))


def reordered(content: Any) -> None:
    """Flip before the image is resized."""
    steps = content.train_dataloader.dataset.pipeline
    steps[2], steps[3] = steps[3], steps[2]


def per_step(method: str, wrap: Callable[[Any], Any]) -> Plant:
    """Return AdamW with one of its methods wrapped."""
    return wrapped(f"torch.optim.adamw:AdamW.{method}", wrap)


def forgetful(step: Any) -> Any:
    """Return a step after which the optimiser's moments are lost."""

    @functools.wraps(step)
    def forget(optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        result = step(optimizer, *args, **kwargs)
        optimizer.state.clear()
        return result

    return forget


def kept_gradients(_: Any) -> Any:
    """Return a ``zero_grad`` that does nothing."""
    return lambda *_args, **_kwargs: None


RATES = bugs(
    SCHEDULE,
    "schedule",
    FCN_12,
    ("warm-up-500", setting("param_scheduler.0.end", 500), "mmcv's 500 warm-up steps are 501 to mmengine"),
    ("warm-up-start", setting("param_scheduler.0.start_factor", 0.01), "a warm-up that begins higher"),
    ("warm-up-epochs", setting("param_scheduler.0.by_epoch", True), "a warm-up counted in epochs", FCN_36),
    ("milestone", setting("param_scheduler.1.milestones", [8, 10]), "a milestone one epoch early"),
    ("gamma", setting("param_scheduler.1.gamma", 0.2), "another factor at the milestones", FCN_36),
    ("cosine", setting("param_scheduler.1", {"type": "CosineAnnealingLR", "T_max": 12}), "a cosine for steps"),
    ("epochs", setting("train_cfg.max_epochs", 24), "twice the epochs"),
    ("images", setting("train_dataloader.batch_size", 4), "twice the images a GPU, so half the iterations"),
    ("all-images", setting("train_dataloader.dataset.filter_cfg.filter_empty_gt", False), "longer epochs"),
    ("warm-up-length", setting("param_scheduler.0.end", 1000), "half the warm-up", DETR_4),
)

WEIGHTS = bugs(
    INITIALISATION,
    "initialisation",
    FCN_12,
    ("deviation", edited(FCN_INIT, constant(0.01, 0.011, 1)), "a tenth more deviation in the head's towers"),
    ("prior", edited(FCN_INIT, constant(0.01, 0.02, 0)), "another prior probability of the classes"),
    ("forgotten", wrapped(FCN_INIT, lambda _: lambda self: None), "the head keeps torch's own initialisation"),
    (
        "neck",
        setting("model.neck.0.init_cfg", {"type": "Normal", "layer": "Conv2d", "std": 0.03}),
        "not Xavier",
        FCN_36,
    ),
    ("checkpoint", setting("model.backbone.init_cfg.checkpoint", "torchvision://resnet101"), "another checkpoint"),
    ("residual", setting("model.backbone.zero_init_residual", False), "residual branches that do not begin at 0"),
    ("detr-prior", edited(DETR_INIT, constant(0.01, 0.02)), "another prior probability of the classes", DETR_4),
    ("attention", edited(ATTENTION_INIT, constant("uniform", "normal", 0)), "a normal law for a uniform one", DETR_4),
)

DATA = bugs(
    TRAIN_PIPELINE,
    "pipeline",
    FCN_36,
    ("scale", transform("Resize", scale=(1333, 801)), "one pixel more", FCN_12, RCNN_12),
    ("ratio", transform("Resize", keep_ratio=False), "images out of their proportions", FCN_12),
    ("bicubic", transform("Resize", interpolation="bicubic"), "another interpolation", FCN_12),
    ("pillow", transform("Resize", backend="pillow"), "Pillow's bilinear, which is not OpenCV's", FCN_12),
    ("vertical", transform("RandomFlip", direction="vertical"), "flipped top to bottom", FCN_12),
    ("flip-chance", transform("RandomFlip", prob=0.4), "flipped less often", FCN_12),
    ("flip-first", config(reordered), "flipped before the image is resized", FCN_12),
    ("crop-order", transform("RandomCrop", crop_size=(600, 384)), "width and height of the crop exchanged"),
    ("crop-type", transform("RandomCrop", crop_type="absolute"), "crops of one size"),
    ("crop-clip", transform("RandomCrop", bbox_clip_border=False), "boxes that leave the crop"),
    ("crop-empty", transform("RandomCrop", allow_negative_crop=False), "no crop without an object"),
    ("no-area", edited(PARSE, comparison("<=", "<")), "boxes without area kept", FCN_12),
    ("one-wide", edited(PARSE, comparison("<", "<=", 0)), "boxes one pixel wide left out", FCN_12),
    ("outside", edited(PARSE, comparison("==", "<", 0)), "boxes outside of the image kept", FCN_12),
    ("crowds", edited(PARSE, constant("iscrowd", "iscrowd_")), "crowds trained on as objects", FCN_12),
    ("small-images", setting("train_dataloader.dataset.filter_cfg.min_size", 64), "small images left out"),
)

STEPS = bugs(
    TRAJECTORY,
    "trajectory",
    FCN_12,
    ("kept-gradients", per_step("zero_grad", kept_gradients), "gradients add up from step to step", FCN_12, DETR_4),
    ("lost-moments", per_step("step", forgetful), "the optimiser made anew for every step", RCNN_12),
)

MUTANTS: tuple[Mutant, ...] = (*RATES, *WEIGHTS, *DATA, *STEPS)
