"""Runs an engine's own ``tools/train.py`` on the published config, inside that engine's interpreter.

``python driver.py JOB.json``, once for each GPU. What differs from the published config is in the
job: where the data lie, how often to log, and what the user asks for.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import runpy
import sys
import tempfile
from typing import Any, Dict, List

import torch

from parity.engines.legacy import make_cuda_calls_harmless
from parity.engines.published import change
from parity.errors import ParityError
from parity.training import sources
from parity.training.loss_log import HOOK, LastStep, LossLog, register_mmcv_hook, register_mmengine_hook
from parity.weights import guarded

Job = Dict[str, Any]


def main(job_file: str) -> None:
    """Train as the job says.

    Raises:
        ParityError: there are fewer GPUs than asked for, no such config, a checkpoint asks for more than data, or one
            would have to be downloaded where that is not wanted.
    """
    guarded.install()
    with open(job_file, encoding="utf-8") as file:
        job = json.load(file)
    if job["root"]:
        # Last, not first: the checkout also holds a copy of mmdet, and the registry's is the one that is pinned.
        sys.path.append(job["root"])
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found < job["gpus"]:
        raise ParityError(f"--gpus {job['gpus']}: torch {torch.__version__} sees {found} here; --gpus 0 is the CPU")
    job["config"] = _config(job)
    if not job["gpus"]:
        make_cuda_calls_harmless()
    log = LossLog(job["log"], job["header"], job["max_steps"])
    prepare = _prepare_mmengine if importlib.util.find_spec("mmengine") else _prepare_mmcv
    with tempfile.TemporaryDirectory() as folder:
        config = os.path.join(folder, os.path.basename(job["config"]))
        words = prepare(job, config, log)
        sys.argv = ["train.py", config, "--work-dir", job["work_dir"], *words]
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            sys.argv += ["--launcher", "pytorch"]
        try:
            runpy.run_path(_tool(job["root"]), run_name="__main__")
        except LastStep:
            print(f"made {job['max_steps']} steps")


def _config(job: Job) -> str:
    """Return the file of the published config: an absolute path, or below the checkout or the configs of mmdet."""
    import mmdet

    stock = os.path.join(str(mmdet.__path__[0]), ".mim", "configs")
    for folder in filter(None, (job["root"], stock)):
        path = os.path.join(str(folder), str(job["config"]))
        if os.path.isfile(path):
            return path
    raise ParityError(f"{job['config']}: no such config in {job['root'] or stock}; is it what the case needs?")


def _tool(root: str) -> str:
    """Return the training tool of the user's checkout, or the one that mmdet installs beside its code."""
    import mmdet

    own = os.path.join(root, "tools", "train.py")
    return own if root and os.path.isfile(own) else os.path.join(mmdet.__path__[0], ".mim", "tools", "train.py")


def _announce(config: Any, *, offline: bool) -> None:
    """Say, once for all processes, what the training begins from."""
    if offline:
        sources.stay_offline()
    lines = sources.announce(sources.sources_of(config), offline=offline)
    if int(os.environ.get("RANK", 0)) == 0:
        print("\n".join(lines), flush=True)


def _prepare_mmcv(job: Job, config_file: str, log: LossLog) -> List[str]:
    """Write the config of an mmdet 2 training; return the tool's further words."""
    from mmcv import Config

    if job["engine"] == "ddq_mmdet2":
        importlib.import_module("projects")  # registers the detectors
    config = change(Config.fromfile(job["config"]), data_root=job["data_root"], options=job["options"])
    _announce(config, offline=job["offline"])
    config.custom_hooks = [*(config.get("custom_hooks") or ()), {"type": HOOK}]
    if job["batches"]:
        from parity.training.frozen_images import feed

        feed(config, job["batches"])
    config.dump(config_file)
    register_mmcv_hook(log)
    words = ["--no-validate"] if job["max_steps"] else []
    if job["seed"] is not None:
        words += ["--seed", str(job["seed"])]
    latest = os.path.join(job["work_dir"], "latest.pth")
    return words + (["--resume-from", latest] if job["resume"] and os.path.exists(latest) else [])


def _prepare_mmengine(job: Job, config_file: str, log: LossLog) -> List[str]:
    """Write the config of an mmdet 3 training; return the tool's further words."""
    from mmengine.config import Config

    config = change(Config.fromfile(job["config"]), data_root=job["data_root"], options=job["options"])
    _announce(config, offline=job["offline"])
    config.custom_hooks = [*(config.get("custom_hooks") or ()), {"type": HOOK}]
    if job["seed"] is not None:
        config.randomness = {"seed": job["seed"]}
    if job["max_steps"]:
        for part in ("cfg", "dataloader", "evaluator"):
            config[f"val_{part}"] = None
    if job["batches"]:
        from parity.training.frozen_batches import feed

        feed(config, job["batches"])
    config.dump(config_file)
    register_mmengine_hook(log)
    return ["--resume"] if job["resume"] else []


if __name__ == "__main__":
    sys.path.pop(0)  # this file's folder
    try:
        main(sys.argv[1])
    except ParityError as error:
        print(f"parity: {error}", file=sys.stderr)
        sys.exit(2)
