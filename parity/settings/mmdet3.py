"""The words of mmdet 3 (mmengine) for the settings of a training."""

from __future__ import annotations

from typing import Any

from parity.cases.base import SCHEDULE, TRAIN_PIPELINE
from parity.settings import shared
from parity.settings.words import Dialect, Leaves, Row, Unread, last, nested, only

# What each scheduler may say to be brought into the common form.
SCHEDULERS = {
    "LinearLR": {"start_factor", "by_epoch", "begin", "end"},
    "MultiStepLR": {"begin", "end", "by_epoch", "milestones", "gamma"},
}


def schedule(leaves: Leaves) -> Any:
    """Return the schedule as (kind, …) parts: a linear warm-up, and milestones in epochs; else as it is written.

    mmengine reaches the full rate one step before the ``end`` of a warm-up (the stage ``schedule`` holds each rate
    against mmcv's).
    """
    found = nested(leaves)["param_scheduler"]
    found = found if isinstance(found, list) else [found]
    return [_part(each) for each in found]


def _part(said: dict[str, Any]) -> Any:
    rest = {key: value for key, value in said.items() if key not in ("type", "_scope_")}
    by_epoch, late = rest.get("by_epoch", True), rest.get("begin", 0) != 0
    if late or not set(rest) <= SCHEDULERS.get(said["type"], set()):
        return said
    if said["type"] == "MultiStepLR":
        return ["step", rest["milestones"], rest.get("gamma", 0.1), by_epoch]
    return said if by_epoch else ["linear", rest["end"] - 1, rest.get("start_factor", 1.0 / 3.0)]


def mixed_precision(leaves: Leaves) -> Any:
    """Return ``None``, or the settings of mixed precision."""
    found = last(leaves)
    kind = found.pop("type", "OptimWrapper")
    if kind == "OptimWrapper" and not found:
        return None
    return found if kind == "AmpOptimWrapper" else {"type": kind, **found}


def loop(leaves: Leaves) -> Any:
    """Return what training is counted in."""
    return {"EpochBasedTrainLoop": "epochs", "IterBasedTrainLoop": "iterations"}.get(only(leaves), only(leaves))


DATA = r"train_dataloader\.dataset\."
MMDET3 = Dialect(
    rows=(
        Unread(r"(.*\.)?_scope_", "names the registry that a class is looked up in"),
        Row(r"optim_wrapper\.paramwise_cfg\.(.+)", r"optimizer.groups.\1"),
        Row(r"optim_wrapper\.constructor", "optimizer.constructor", shared.constructor),
        Row(r"optim_wrapper\.optimizer\.(.+)", r"optimizer.\1"),
        Row(r"optim_wrapper\.clip_grad(\..+)?", "clip", shared.clip),
        Row(r"optim_wrapper\.accumulative_counts", "accumulation"),
        Row(r"optim_wrapper\.(type|loss_scale|dtype)(\..+)?", "mixed_precision", mixed_precision),
        Row(r"optim_wrapper\.(.+)", r"step.\1"),
        Unread(r"param_scheduler\[[1-9]\d*\]\.end", "every rate is compared", SCHEDULE),
        Row(r"param_scheduler.+", "schedule", schedule),
        Row(r"train_cfg\.type", "loop", loop),
        Row(r"train_cfg\.by_epoch", "loop", lambda leaves: "epochs" if only(leaves) else "iterations"),
        Row(r"train_cfg\.max_epochs", "epochs"),
        Row(r"train_cfg\.max_iters", "iterations"),
        Row(r"train_cfg\.val_interval", "validation.interval"),
        Row(r"train_cfg\.(.+)", r"loop.\1"),
        Row(r"train_dataloader\.batch_size", "images"),
        Row(r"train_dataloader\.num_workers", "workers"),
        Row(r"train_dataloader\.persistent_workers", "workers_stay"),
        Row(r"train_dataloader\.sampler\.shuffle", "shuffle"),
        Unread(r"train_dataloader\.(sampler|batch_sampler)\..+", shared.IN_FORCE),
        Row(DATA + r"ann_file", "data.annotations", shared.last_folder),
        Row(DATA + r"data_prefix\.img", "data.images", shared.last_folder),
        Unread(DATA + r"data_root", shared.PLACE),
        Unread(DATA + r"(.+\.)?pipeline([.\[].+)?", shared.PIPELINE, TRAIN_PIPELINE),
        Unread(DATA + r"(.+\.)?backend_args(\..+)?", "where files are kept: on a disk by default"),
        Row(DATA + r"filter_cfg\.(.+)", r"data.\1"),
        Row(DATA + r"(.+)", r"data.\1"),
        Row(r"train_dataloader\.(.+)", r"loader.\1"),
        Row(r"val_evaluator\.metric", "validation.metric"),
        Unread(r"(val|test)_(dataloader|evaluator|cfg)([.\[].*)?", shared.TESTING),
        Row(r"default_hooks\.checkpoint\.interval", "checkpoint.interval"),
        Row(
            r"default_hooks\.checkpoint\.save_best", "checkpoint.save_best", lambda leaves: only(leaves).split("/")[-1]
        ),
        Unread(r"default_hooks\.checkpoint\.rule", "a greater AP is the better one for mmdet 2, too"),
        Unread(r"default_hooks\.(logger|timer|visualization)\.(?!type).+", shared.LOGGING),
        Row(r"(default|custom)_hooks.*", "hooks", shared.loud_hooks),
        Row(r"env_cfg\.dist_cfg\.backend", "backend"),
        Row(r"env_cfg\.(?:mp_cfg\.)?(opencv_num_threads|mp_start_method|cudnn_benchmark)", r"\1"),
        Row(r"randomness\.(seed|deterministic)", r"\1"),
        Row(r"randomness\.(.+)", r"randomness.\1"),
        Row(r"resume", "resume", shared.flag),
        Unread(r"default_scope", "names the registry that classes are looked up in"),
        Unread(r"(vis_backends|visualizer)([.\[].*)?", shared.LOGGING),
        *shared.MODEL,
    ),
    defaults={**shared.DEFAULTS, "data.filter_empty_gt": False, "data.min_size": 0, "workflow[0]": ["train", 1]},
)
