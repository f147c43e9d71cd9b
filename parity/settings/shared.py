"""Values that both dialects bring into one form, and what neither compares."""

from __future__ import annotations

from typing import Any

from parity.cases.base import TRAIN_PIPELINE
from parity.settings.words import Leaves, Row, Unread, last, nested

TESTING = "testing: what the detector infers is compared stage by stage, and AP over all of val"
LOGGING = "what is logged and shown changes no training"
VARIABLE = "a variable of the file, compared where it is used"
PIPELINE = "compared image by image"
PLACE = "where the data lie; which they are is compared"
IN_FORCE = "what the loader built of it does is compared: in_force.*"
# Hooks that neither change weights nor which images are trained on.
QUIET_HOOKS = frozenset(
    (
        "CheckInvalidLossHook",
        "CheckpointHook",
        "DetVisualizationHook",
        "EvalHook",
        "IterTimerHook",
        "LoggerHook",
        "NumClassCheckHook",
        "RuntimeInfoHook",
        "TextLoggerHook",
    )
)
# Those that each framework has for what else is compared: the order, the schedule and the optimiser's step.
OWN_HOOKS = frozenset(
    (
        "DistSamplerSeedHook",
        "Fp16OptimizerHook",
        "GradientCumulativeOptimizerHook",
        "OptimizerHook",
        "ParamSchedulerHook",
        "StepLrUpdaterHook",
    )
)

MODEL: tuple[Row | Unread, ...] = (
    Unread(r"(.*\.)?_scope_", "names the registry that a class is looked up in"),
    Unread(r"model\.data_preprocessor\..+", PIPELINE, TRAIN_PIPELINE),
    Row(r"model\.(.+)", r"model.\1"),
    Row(r"(load_from|find_unused_parameters)", r"\1"),
    Row(r"(auto_scale_lr\.enable)", r"\1"),
    Unread(r"auto_scale_lr\.base_batch_size", "read only where auto_scale_lr.enable is true, which is compared"),
    Unread(r"custom_imports\..+", "names the modules that hold the detector"),
    Unread(r"log_.+", LOGGING),
    Unread(r"(dataset_type|data_root|img_norm_cfg|train_pipeline|test_pipeline|tta_.+)([.\[].*)?", VARIABLE),
    Unread(r"(backend_args|file_client_args)(\..+)?", VARIABLE),
)
DEFAULTS: Leaves = {
    "accumulation": 1,
    "auto_scale_lr.enable": False,
    "clip": None,
    "cudnn_benchmark": False,
    "deterministic": False,
    "find_unused_parameters": False,
    "hooks": [],
    "load_from": None,
    "mixed_precision": None,
    "optimizer.constructor": "Default",
    "resume": False,
    "seed": None,
    "shuffle": True,
    "workers_stay": False,
}


def clip(leaves: Leaves) -> Any:
    """Return how gradients are clipped: ``None``, or the kind with its limit and the norm's order."""
    found = {key: value for key, value in last(leaves).items() if key not in ("grad_clip", "clip_grad")}
    if not found:
        return None
    kind = found.pop("type", "norm")
    return {"kind": kind, **({"norm_type": 2} if kind == "norm" else {}), **found}


def constructor(leaves: Leaves) -> str:
    """Return the optimiser's constructor; both frameworks name their default one after themselves.

    >>> constructor({"": "DefaultOptimWrapperConstructor"})
    'Default'
    """
    (name,) = leaves.values()
    return str(name).replace("OptimizerConstructor", "").replace("OptimWrapperConstructor", "")


def loud_hooks(leaves: Leaves) -> list[Any]:
    """Return the settings of all hooks that change weights or the choice of images."""
    found: list[Any] = []
    for hooks in nested(leaves).values():
        rows = hooks.values() if isinstance(hooks, dict) else hooks or ()
        found += [hook for hook in rows if hook and hook["type"] not in QUIET_HOOKS | OWN_HOOKS]
    return found


def flag(leaves: Leaves) -> bool:
    """Return whether the only leaf says anything."""
    (value,) = leaves.values()
    return bool(value)


def last_folder(leaves: Leaves) -> str:
    """Return the last word of a path: where the data lie is the user's own.

    >>> last_folder({"data.train.img_prefix": "data/coco/train2017/"})
    'train2017'
    """
    (path,) = leaves.values()
    return str(path).rstrip("/").rpartition("/")[2]
