"""The words of mmdet 2 (mmcv 1) for the settings of a training."""

from __future__ import annotations

from typing import Any

from parity.cases.base import TRAIN_PIPELINE
from parity.settings import shared
from parity.settings.words import Dialect, Leaves, Row, Unread, last, nested, only


def schedule(leaves: Leaves) -> Any:
    """Return the schedule as (kind, …) parts: a linear warm-up, and milestones in epochs; else as it is written."""
    found = nested(leaves)["lr_config"]
    plain = {"policy": "step", "warmup": None, "warmup_iters": 0, "warmup_ratio": 0.1, "gamma": 0.1, "by_epoch": True}
    said = {**plain, **found}
    if not set(said) <= {*plain, "step"} or said["policy"] != "step" or said["warmup"] not in (None, "linear"):
        return found
    warm = [["linear", said["warmup_iters"], said["warmup_ratio"]]] if said["warmup"] else []
    return [*warm, ["step", said["step"], said["gamma"], said["by_epoch"]]]


def accumulation(leaves: Leaves) -> Any:
    """Return over how many steps gradients are added up; a step of another kind as it is written."""
    found = last(leaves)
    kind = found.get("type", "OptimizerHook")
    return found.get("cumulative_iters", 1) if kind in ("OptimizerHook", "GradientCumulativeOptimizerHook") else found


def runner(leaves: Leaves) -> Any:
    """Return what training is counted in."""
    return {"EpochBasedRunner": "epochs", "IterBasedRunner": "iterations"}.get(only(leaves), only(leaves))


MMDET2 = Dialect(
    rows=(
        Row(r"optimizer\.paramwise_cfg\.(.+)", r"optimizer.groups.\1"),
        Row(r"optimizer\.constructor", "optimizer.constructor", shared.constructor),
        Row(r"optimizer\.(.+)", r"optimizer.\1"),
        Row(r"optimizer_config\.grad_clip(\..+)?", "clip", shared.clip),
        Row(r"optimizer_config\.(type|cumulative_iters)", "accumulation", accumulation),
        Row(r"optimizer_config\.(.+)", r"step.\1"),
        Row(r"fp16(\..+)?", "mixed_precision", last),
        Row(r"lr_config\..+", "schedule", schedule),
        Row(r"runner\.type", "loop", runner),
        Row(r"(runner\.max_epochs|total_epochs)", "epochs"),
        Row(r"runner\.max_iters", "iterations"),
        Row(r"(momentum_config.*)", r"\1"),
        Row(r"(workflow.*)", r"\1"),
        Row(r"data\.samples_per_gpu", "images"),
        Row(r"data\.workers_per_gpu", "workers"),
        Row(r"data\.persistent_workers", "workers_stay"),
        Row(r"data\.train\.ann_file", "data.annotations", shared.last_folder),
        Row(r"data\.train\.img_prefix", "data.images", shared.last_folder),
        Unread(r"data\.train\.(.+\.)?pipeline([.\[].+)?", shared.PIPELINE, TRAIN_PIPELINE),
        Row(r"data\.train\.(.+)", r"data.\1"),
        Unread(r"data\.(val|test)(_dataloader)?\..+", shared.TESTING),
        Row(r"data\.train_dataloader\.(.+)", r"loader.\1"),
        Row(r"evaluation\.interval", "validation.interval"),
        Row(r"evaluation\.save_best", "checkpoint.save_best"),
        Row(r"evaluation\.metric", "validation.metric"),
        Row(r"checkpoint_config\.interval", "checkpoint.interval"),
        Row(r"checkpoint_config\.(.+)", r"checkpoint.\1"),
        Row(r"custom_hooks.*", "hooks", shared.loud_hooks),
        Row(r"dist_params\.backend", "backend"),
        Row(r"(opencv_num_threads|mp_start_method|cudnn_benchmark|seed|deterministic)", r"\1"),
        Row(r"(resume_from|auto_resume)", "resume", lambda leaves: any(leaves.values())),
        Row(r"((?:train|test)_cfg[.\[].+)", r"model.\1"),
        *shared.MODEL,
    ),
    defaults={**shared.DEFAULTS, "data.filter_empty_gt": True, "data.min_size": 32, "workflow[0]": ["train", 1]},
)
