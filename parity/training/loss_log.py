"""The loss curve of a training, in one format for both frameworks: one JSON object a line.

The first line says what runs. Every other is a step: ``step`` and ``epoch`` from 1, ``lr`` (the distinct rates of the
parameter groups, highest first), ``losses`` by name, ``grad_norm`` before clipping (``null`` where nothing is
clipped) and ``time`` in seconds since the step before. Losses are those of the step, not a mean over many; of several
GPUs the mean. Runs in every interpreter.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any, Dict, Iterable, List, Mapping, Optional

from parity.errors import DAMAGE

SCHEMA = 1
HOOK = "ParityLossLog"


class LastStep(Exception):
    """The training has made as many steps as it was to make."""


class LossLog:
    """Writes the steps of one training into a file, which a resumed training goes on with.

    Args:
        path: the file.
        header: what runs.
        last_step: the step after which the training ends by ``LastStep``; 0 for the config's own end.
    """

    def __init__(self, path: str, header: Mapping[str, Any], last_step: int = 0) -> None:
        self.path = path
        self.header = {"schema": SCHEMA, **header}
        self.last_step = last_step
        self._before = 0.0

    def begin(self, done: int) -> None:
        """Keep the ``done`` steps that a resumed training has behind it, and no other."""
        kept = [step for step in _steps(self.path) if step["step"] <= done]
        part = self.path + ".part"
        with open(part, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in [self.header, *kept])
        os.replace(part, self.path)
        self._before = time.perf_counter()

    def add(
        self, step: int, epoch: int, *, rates: Iterable[float], losses: Mapping[str, float], grad_norm: Optional[float]
    ) -> None:
        """Write one step."""
        now = time.perf_counter()
        line = {
            "step": step,
            "epoch": epoch,
            "lr": sorted({float(rate) for rate in rates}, reverse=True),
            "losses": {name: float(value) for name, value in losses.items()},
            "grad_norm": None if grad_norm is None else float(grad_norm),
            "time": round(now - self._before, 4),
        }
        self._before = now
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _steps(path: str) -> List[Dict[str, Any]]:
    """Return the steps that a file holds; the last line of an interrupted training may be half there."""
    if not os.path.exists(path):
        return []
    found = []
    with open(path, encoding="utf-8") as file:
        for line in list(file)[1:]:
            try:
                found.append(json.loads(line))
            except DAMAGE:
                break
    return found


def register_mmcv_hook(log: LossLog) -> None:
    """Make ``HOOK`` a hook of mmcv 1.x that writes into ``log``."""
    from mmcv.runner import HOOKS, Hook, get_dist_info

    def before_run(_: Any, runner: Any) -> None:
        if get_dist_info()[0] == 0:
            log.begin(runner.iter)

    def after_train_iter(_: Any, runner: Any) -> None:
        step, norms = runner.iter + 1, runner.log_buffer.val_history.get("grad_norm")
        if get_dist_info()[0] == 0:  # mmdet 2 has taken the mean over the GPUs
            losses = runner.outputs["log_vars"]
            norm = norms[-1] if norms else None
            log.add(step, runner.epoch + 1, rates=runner.current_lr(), losses=losses, grad_norm=norm)
        _end(log, step)

    methods = {"before_run": before_run, "after_train_iter": after_train_iter}
    HOOKS.register_module(name=HOOK, module=type(HOOK, (Hook,), methods))


def register_mmengine_hook(log: LossLog) -> None:
    """Make ``HOOK`` a hook of mmengine that writes into ``log``."""
    from mmengine.dist import all_reduce_dict, is_main_process
    from mmengine.hooks import Hook
    from mmengine.registry import HOOKS

    def before_train(_: Any, runner: Any) -> None:
        if is_main_process():
            log.begin(runner.iter)

    def after_train_iter(_: Any, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        losses = {name: value.detach().clone() for name, value in outputs.items()}
        all_reduce_dict(losses, "mean")
        step, norm = runner.iter + 1, runner.message_hub.log_scalars.get("train/grad_norm")
        if is_main_process():
            rates = [group["lr"] for group in runner.optim_wrapper.param_groups]
            current = None if norm is None else norm.current()
            log.add(step, runner.epoch + 1, rates=rates, losses=losses, grad_norm=current)
        _end(log, step)

    methods = {"before_train": before_train, "after_train_iter": after_train_iter}
    HOOKS.register_module(name=HOOK, module=type(HOOK, (Hook,), methods))


def _end(log: LossLog, step: int) -> None:
    if log.last_step and step >= log.last_step:
        raise LastStep
