"""What a published config sets training up with, read back from what the framework builds of it.

The config is read with the framework's own inheritance resolved. Beside its words stands what is in force: the loader,
its order, the optimiser's step and the hooks, built by the framework on a small data set, with what it does by default.
Runs in both interpreters.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import json
import os
import random
import tempfile
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple
from unittest import mock

import numpy as np
import torch

from parity.cases.base import SETTINGS, Case
from parity.engines.base import NORM, VALUE, Engine, Run
from parity.engines.initialisation import text

WIDE, HIGH = (64, 48), (48, 64)  # width and height in pixels
IMAGES = (WIDE,) * 13 + (HIGH,) * 9  # so that of each shape a batch of two lacks one
SEED = 1234
FIRST = 8  # images of an epoch: in the order of the file, wide ones alone, where nothing shuffles them
InForce = Dict[str, Any]


def settings(engine: Engine, case: Case) -> Run:
    """Return the leaves of the published config, what is in force, and whose words those are, as texts."""
    leaves = dict(flat(plain(engine.config(case))))
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()), _generators_kept():
        with open(os.path.join(folder, "annotations.json"), "w", encoding="utf-8") as file:
            json.dump(small_annotations(), file)
        in_force = engine.training_in_force(case, folder)
    words = {"dialect": engine.dialect, "config": canonical(leaves), "in_force": canonical(plain(in_force))}
    tensors = {name: text(content) for name, content in words.items()}
    return Run(tensors, produced={SETTINGS: tuple(tensors)})


def canonical(content: Any) -> str:
    """Return plain content as JSON, the same text for the same content."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def plain(value: Any) -> Any:
    """Return a config's value as JSON has it: tuples are lists, and what JSON has no word for is told by its name.

    >>> plain({"scale": (1333, 800), "type": dict})
    {'scale': [1333, 800], 'type': 'dict'}
    """
    value = getattr(value, "_cfg_dict", value)
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return getattr(value, "__name__", None) or str(value)


def flat(value: Any, path: str = "") -> Iterator[Tuple[str, Any]]:
    """Yield dotted key and value of every leaf; a list that holds no dictionary is one.

    >>> list(flat({"a": {"b": [1, 2]}, "c": [{"d": 3}, {}]}))
    [('a.b', [1, 2]), ('c[0].d', 3), ('c[1]', {})]
    """
    if isinstance(value, dict) and value:
        for key, each in value.items():
            yield from flat(each, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and any(isinstance(each, (dict, list)) for each in value):
        for index, each in enumerate(value):
            yield from flat(each, f"{path}[{index}]")
    else:
        yield path, value


def small_annotations() -> Dict[str, Any]:
    """Return the annotations of a small COCO: wide images, then high ones, of one object each."""
    numbers = range(1, len(IMAGES) + 1)
    sizes = dict(zip(numbers, IMAGES))
    box = {"category_id": 1, "bbox": [4.0, 4.0, 40.0, 40.0], "area": 1600.0, "iscrowd": 0}
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": sizes[i][0], "height": sizes[i][1]} for i in numbers],
        "annotations": [{"id": i, "image_id": i, **box} for i in numbers],
        "categories": [{"id": 1, "name": "person"}],
    }


def mmcv_in_force(config: Any, folder: str) -> InForce:
    """Return what mmdet 2's own ``train_detector`` has made when it is about to run, as on several GPUs."""
    from mmcv.runner import OptimizerHook
    from mmdet.datasets import build_dataset

    training: Any = importlib.import_module("mmdet.apis.train")
    _use_annotations(config.data.train, folder, images="img_prefix")
    config.gpu_ids, config.seed, config.work_dir, config.load_from, config.resume_from = [0], SEED, folder, None, None
    loaders: List[Any] = []
    runners: List[Any] = []
    with contextlib.ExitStack() as stack:
        for name, keep in (("build_dataloader", loaders), ("build_runner", runners)):
            stack.enter_context(mock.patch.object(training, name, _kept(getattr(training, name), keep)))
        wrapped = stack.enter_context(mock.patch.object(training, "MMDistributedDataParallel", side_effect=_Wrapped))
        stack.enter_context(mock.patch.object(torch.cuda, "current_device", return_value=0))
        stack.enter_context(contextlib.suppress(_Ready))
        training.train_detector(_Tiny(), [build_dataset(config.data.train)], config, distributed=True)
    (runner,), loader = runners, loaders[0]
    step = next(hook for hook in runner.hooks if isinstance(hook, OptimizerHook))
    return {
        **_loader_in_force(loader, seeded=_has(runner.hooks, "DistSamplerSeedHook")),
        "optimizer": type(runner.optimizer).__name__,
        "accumulation": int(getattr(step, "cumulative_iters", 1)),
        "clip": {"kind": NORM, **step.grad_clip} if step.grad_clip else None,
        "mixed_precision": "Fp16" in type(step).__name__,
        "unused_parameters": bool(wrapped.call_args[1].get("find_unused_parameters", False)),
        "hooks": sorted(type(hook).__name__ for hook in runner.hooks),
    }


def mmengine_in_force(config: Any, folder: str) -> InForce:
    """Return what mmengine builds of a config of mmdet 3."""
    from mmdet.utils import register_all_modules
    from mmengine.optim import build_optim_wrapper
    from mmengine.runner import Runner

    register_all_modules(init_default_scope=True)
    _use_annotations(config.train_dataloader.dataset, folder, images="data_prefix")

    class BareRunner(Runner):  # type: ignore[misc]
        """mmengine's runner with its hooks alone."""

        def __init__(self) -> None:
            self._hooks: List[Any] = []

    runner = BareRunner()
    hooks = dict(config.get("default_hooks") or {})
    hooks.pop("visualization", None)  # it asks for a visualizer that a whole runner has made
    runner.register_hooks(hooks, config.get("custom_hooks"))
    loader = Runner.build_dataloader(config.train_dataloader, seed=SEED)
    settings = dict(config.optim_wrapper)
    mixed = settings["type"] in ("AmpOptimWrapper", "ApexOptimWrapper")  # they refuse to be built without a GPU
    if mixed:
        kept = ("optimizer", "accumulative_counts", "clip_grad", "paramwise_cfg", "constructor")
        settings = {"type": "OptimWrapper", **{key: settings[key] for key in kept if key in settings}}
    wrapper = build_optim_wrapper(_Tiny(), type(config.optim_wrapper)(settings))
    by_value = getattr(wrapper, "clip_func", None) is torch.nn.utils.clip_grad_value_
    return {
        **_loader_in_force(loader, seeded=_has(runner.hooks, "DistSamplerSeedHook")),
        "optimizer": type(wrapper.optimizer).__name__,
        "accumulation": int(wrapper._accumulative_counts),
        "clip": {"kind": VALUE if by_value else NORM, **wrapper.clip_grad_kwargs} if wrapper.clip_grad_kwargs else None,
        "mixed_precision": mixed,
        "unused_parameters": bool(config.get("find_unused_parameters", False)),
        "hooks": sorted(type(hook).__name__ for hook in runner.hooks),
    }


class _Tiny(torch.nn.Module):
    """Stands for the detector: what is built around one does not look into it."""

    CLASSES = ("person",)

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def train_step(self, *_: Any) -> None:
        """Stand for a training step, which nobody asks for."""


class _Wrapped(_Tiny):
    """Stands for the wrapper of a detector on several GPUs."""

    def __init__(self, module: Any, **_: Any) -> None:
        super().__init__()
        self.module = module


class _Ready(Exception):
    """All is built, and training would begin."""


def _kept(make: Callable[..., Any], kept: List[Any]) -> Callable[..., Any]:
    """Return a function that keeps what it makes; a runner among it does not run."""

    def made(*args: Any, **kwargs: Any) -> Any:
        kept.append(make(*args, **kwargs))
        if hasattr(kept[-1], "run"):
            kept[-1].run = _stop
        return kept[-1]

    return made


def _stop(*_: Any, **__: Any) -> None:
    raise _Ready


def _has(hooks: Any, name: str) -> bool:
    return any(type(hook).__name__ == name for hook in hooks)


def _use_annotations(settings: Any, folder: str, *, images: str) -> None:
    """Point every data set of a config, wrapped or not, to the small COCO in ``folder``."""
    if isinstance(settings, dict):
        if "ann_file" in settings:
            settings["ann_file"] = os.path.join(folder, "annotations.json")
            settings[images] = {"img": folder} if images == "data_prefix" else folder
            if "data_root" in settings:
                settings["data_root"] = folder
        for each in list(settings.values()):
            _use_annotations(each, folder, images=images)
    elif isinstance(settings, (list, tuple)):
        for each in settings:
            _use_annotations(each, folder, images=images)


def _loader_in_force(loader: Any, *, seeded: bool) -> InForce:
    """Return a loader's settings, and in which order it gives the images of the small COCO."""
    first, second, again = (_batches(loader, epoch if seeded else None) for epoch in (0, 1, 0))
    images = [image for batch in first for image in batch]
    shapes = [{IMAGES[image] for image in batch} for batch in first]
    full = max(map(len, first))
    return {
        "images": full,
        "workers": int(loader.num_workers),
        "workers_stay": bool(loader.persistent_workers),
        "pinned_memory": bool(loader.pin_memory),
        "worker_seeds": _worker_seeds(loader.worker_init_fn),
        "shuffled": images[:FIRST] != list(range(FIRST)),
        "other_order_each_epoch": first != second,
        "order_by_seed": first == again,
        "every_image": set(images) == set(range(len(IMAGES))),
        "images_twice": len(images) - len(set(images)),
        "smaller_batches": sum(len(batch) < full for batch in first),
        "batches_of_two_shapes": sum(len(found) > 1 for found in shapes),
    }


def _batches(loader: Any, epoch: Optional[int]) -> List[List[int]]:
    """Return the places of an epoch's images in the data set, batch by batch; the epoch is told as the hooks do."""
    holders: List[Any] = [loader.sampler, getattr(loader.batch_sampler, "sampler", None)]
    seeded = [holder for holder in holders if hasattr(holder, "set_epoch")]
    if epoch is not None and seeded:
        seeded[0].set_epoch(epoch)
    batches = itertools.islice(loader.batch_sampler, 2 * len(IMAGES))  # some samplers never end
    return [[int(image) for image in batch] for batch in batches]


def _worker_seeds(begin: Optional[Callable[[int], Any]]) -> Dict[str, Any]:
    """Return what the two first workers seed numpy with, less the training's seed, and what they seed beside it."""
    if begin is None:
        return {"numpy": None, "python": False, "torch": False}
    found: Dict[str, Any] = {"numpy": [], "python": True, "torch": True}
    for worker in (0, 1):
        torch.manual_seed(0)
        begin(worker)
        state: Any = np.random.get_state()
        seed = int(state[1][0])
        found["numpy"].append(seed - SEED)
        found["python"] = found["python"] and random.getstate() == random.Random(seed).getstate()
        found["torch"] = found["torch"] and torch.initial_seed() == seed
    return found


@contextlib.contextmanager
def _generators_kept() -> Iterator[None]:
    """Leave the global generators as they were."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
