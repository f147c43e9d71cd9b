"""The learning rate at every iteration of a published schedule, told by the engines' own schedulers and loops.

Nothing is worked out here: the loop, the hooks and the schedulers are the engine's, on an optimizer of one
scalar for each rate that the detector's parameter groups begin with. Only the training step is ours: it
writes down what the optimizer would step with.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Dict, Iterable, Iterator, List, Tuple
from unittest import mock

import torch

# COCO train2017: all images, and those with an object that is no crowd (what filter_empty_gt keeps).
IMAGES, IMAGES_WITH_OBJECTS = 118287, 117266
GPUS = 8  # that the authors trained on

Rates = Dict[str, torch.Tensor]


def epoch_length(images_per_gpu: int, *, only_with_objects: bool) -> int:
    """Return the iterations of one epoch on COCO train2017.

    >>> epoch_length(2, only_with_objects=True), epoch_length(2, only_with_objects=False)
    (7330, 7393)
    """
    images = IMAGES_WITH_OBJECTS if only_with_objects else IMAGES
    return -(-images // (GPUS * images_per_gpu))


def base_rates(optimizer: torch.optim.Optimizer) -> List[float]:
    """Return the distinct rates that parameter groups begin with, highest first."""
    return sorted({float(group["lr"]) for group in optimizer.param_groups}, reverse=True)


def scalar_groups(rates: Iterable[float]) -> List[Dict[str, Any]]:
    """Return one parameter group of one scalar for each rate."""
    return [{"params": [torch.nn.Parameter(torch.zeros(()))], "lr": rate} for rate in rates]


class Loader:
    """Stands for the data: as many batches as an epoch has, all of them empty."""

    dataset: Tuple[Any, ...] = ()

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.length))


class Witness(torch.nn.Module):
    """Stands for the detector: its training step notes what the optimizer holds at that moment."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        super().__init__()
        self.optimizer = optimizer
        self.rates: List[List[float]] = []
        self.momenta: List[List[float]] = []

    def train_step(self, *_: Any, **__: Any) -> Dict[str, Any]:
        groups = self.optimizer.param_groups
        self.rates.append([group["lr"] for group in groups])
        self.momenta.append([group["betas"][0] if "betas" in group else group.get("momentum", 0.0) for group in groups])
        self.optimizer.step()  # no gradient, no change; mmengine warns of a scheduler that steps first
        return {}

    def result(self, length: int) -> Rates:
        """Return the rates and momenta, float64 (iterations, groups), and the length of an epoch, int64 (1,).

        A momentum that never changes is one row.
        """
        momentum = torch.tensor(self.momenta, dtype=torch.float64)
        constant = bool((momentum == momentum[:1]).all())
        return {
            "epoch_length": torch.tensor([length]),
            "learning_rate": torch.tensor(self.rates, dtype=torch.float64),
            "momentum": momentum[:1] if constant else momentum,
        }


def mmcv_rates(config: Any, detector: torch.nn.Module) -> Rates:
    """Run mmcv 1.x's runner and updater hooks through the schedule of a config of mmdet 2."""
    from mmcv.runner import build_optimizer, build_runner

    rates = base_rates(build_optimizer(detector, config.optimizer))
    settings = {key: value for key, value in config.optimizer.items() if key not in ("lr", "paramwise_cfg", "type")}
    optimizer = getattr(torch.optim, config.optimizer.type)(scalar_groups(rates), **settings)
    witness = Witness(optimizer)
    images = config.data.get("samples_per_gpu", config.data.get("imgs_per_gpu"))
    loader = Loader(epoch_length(images, only_with_objects=config.data.train.get("filter_empty_gt", True)))
    logger = logging.getLogger("parity.schedule")
    runner = build_runner(config.runner, default_args={"model": witness, "optimizer": optimizer, "logger": logger})
    runner.register_lr_hook(config.lr_config)
    runner.register_momentum_hook(config.get("momentum_config"))
    with mock.patch.object(time, "sleep"):  # it waits two seconds an epoch for workers that are not there
        runner.run([loader], [("train", 1)])
    return witness.result(len(loader))


def mmengine_rates(config: Any, detector: torch.nn.Module) -> Rates:
    """Run mmengine's training loop, schedulers and scheduler hook through the schedule of a config of mmdet 3."""
    from mmengine.hooks import ParamSchedulerHook
    from mmengine.optim import OptimWrapper, build_optim_wrapper
    from mmengine.registry import OPTIMIZERS
    from mmengine.runner import Runner

    rates = base_rates(build_optim_wrapper(detector, config.optim_wrapper).optimizer)
    settings = {key: value for key, value in config.optim_wrapper.optimizer.items() if key != "lr"}
    optimizer = OPTIMIZERS.build({**settings, "params": scalar_groups(rates)})
    witness = Witness(optimizer)
    data = config.train_dataloader
    only_with_objects = (data.dataset.get("filter_cfg") or {}).get("filter_empty_gt", False)
    loader = Loader(epoch_length(data.batch_size, only_with_objects=only_with_objects))

    class BareRunner(Runner):  # type: ignore[misc]
        """mmengine's runner without what a schedule does not need: data, logs, checkpoints, validation."""

        def __init__(self) -> None:
            self.logger = logging.getLogger("parity.schedule")
            self.model, self.optim_wrapper = witness, OptimWrapper(optimizer)
            self._hooks: List[Any] = []
            self._train_dataloader, self._val_loop = loader, None
            self._train_loop = self.build_train_loop(config.train_cfg)
            self.param_schedulers = self.build_param_scheduler(config.param_scheduler)
            self.register_hook(ParamSchedulerHook())

    BareRunner().train_loop.run()
    return witness.result(len(loader))
