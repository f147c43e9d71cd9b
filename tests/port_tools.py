"""mmdet's own ``tools/train.py`` and ``tools/test.py`` on a port's config, and what they leave behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import parity

PARTS = ("train", "val", "test")
COCO = "coco/"  # where the data set lies, seen from the folder that the tools run in
SCALE = (144, 88)  # long and short side in pixels: no image of the data set keeps its size
SMALL = [(144, 64), (144, 80), (144, 96)]

# What makes a run small and repeatable, for ``--cfg-options``; all else is as the config says.
OPTIONS: dict[str, Any] = {
    **{f"{part}_dataloader.dataset.data_root": COCO for part in PARTS},
    **{f"{part}_evaluator.ann_file": f"{COCO}annotations/instances_val2017.json" for part in ("val", "test")},
    "model.backbone.init_cfg": None,  # no download
    "train_cfg.max_epochs": 1,
    "param_scheduler.0.start_factor": 1.0,  # the full rate at once: at a thousandth of it, little moves in float32
    "default_hooks.logger.interval": 1,
    "log_processor.window_size": 1,  # each step's own loss, not a mean
    "default_hooks.checkpoint.save_optimizer": False,
    **{f"{part}_dataloader.num_workers": 0 for part in PARTS},
    **{f"{part}_dataloader.persistent_workers": False for part in PARTS},
    **{f"{part}_dataloader.dataset.pipeline.1.scale": SCALE for part in ("val", "test")},
}
RESIZE = {"train_dataloader.dataset.pipeline.2.scale": SCALE}
DETR_STEP = "train_dataloader.dataset.pipeline.3.transforms"
DETR_AUGMENTATION = {
    f"{DETR_STEP}.0.0.scales": SMALL,
    f"{DETR_STEP}.1.0.scales": SMALL,
    f"{DETR_STEP}.1.1.crop_size": (48, 72),
    f"{DETR_STEP}.1.2.scales": SMALL,
}


def options_for(config: Path) -> dict[str, Any]:
    """Return the options for one of the ports' configs."""
    return {**OPTIONS, **(DETR_AUGMENTATION if "detr-aug" in config.name else RESIZE)}


def run_tool(tool: str, *words: object, folder: Path, options: Mapping[str, Any]) -> None:
    """Run ``tools/<tool>.py`` of the installed mmdet in ``folder``, where the data set is; fail unless it succeeds.

    On the CPU with one thread, as in the test's own process: sums of float32 depend on how they are shared out.
    """
    import mmdet

    script = Path(mmdet.__file__).parent / ".mim" / "tools" / f"{tool}.py"
    changes = [f"{key}={str(value).replace(' ', '')}" for key, value in options.items()]
    command = [sys.executable, script, *words, "--work-dir", tool, "--cfg-options", *changes]
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(parity.__file__).parents[1]),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [str(word) for word in command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.fail(f"tools/{tool}.py ended with {done.returncode}:\n{done.stderr[-3000:]}")


def logged_steps(folder: Path) -> list[dict[str, float]]:
    """Return what the training run in ``folder`` logged at every step."""
    (scalars,) = folder.glob("train/*/vis_data/scalars.json")
    lines = [json.loads(line) for line in scalars.read_text().splitlines()]
    return [line for line in lines if "loss" in line]
