"""What an engine must offer. Runs in both interpreters: Python 3.8, torch 1.9 and later."""

from __future__ import annotations

import copy
import importlib
import os
import platform
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterator, List, Mapping, Sequence, Tuple

import torch

from parity.cases.base import Case
from parity.errors import ParityError
from parity.taps.decisions import Decision

Metas = Mapping[str, torch.Tensor]
NORM, VALUE = "norm", "value"  # what gradients may be clipped by


@dataclass
class Run:
    """What one run gave.

    Attributes:
        tensors: name -> value on the CPU, inputs of the replayed stage left out.
        decisions: name -> what was chosen, from what.
        islands: (stage, site, count) of every float32 request in a float64 run.
        produced: stage -> names it wrote.
        rows: name of a table -> what each of its rows is about, such as a parameter.
    """

    tensors: Dict[str, torch.Tensor]
    decisions: Dict[str, Decision] = field(default_factory=dict)
    islands: List[Tuple[str, str, int]] = field(default_factory=list)
    produced: Dict[str, Tuple[str, ...]] = field(default_factory=dict)
    rows: Dict[str, Tuple[str, ...]] = field(default_factory=dict)


@dataclass
class Updater:
    """An engine's real optimiser with what its config says of it.

    Attributes:
        clip: settings of the gradient's clipping, as the function of its kind takes them; empty for none.
        clip_kind: ``norm`` (``clip_grad_norm_``) or ``value`` (``clip_grad_value_``).
    """

    optimizer: torch.optim.Optimizer
    clip: Mapping[str, Any] = field(default_factory=dict)
    clip_kind: str = NORM

    def clip_gradients(self, parameters: Sequence[torch.Tensor]) -> None:
        """Clip the gradients of the parameters in place, as the engine's own training step does."""
        if self.clip and self.clip_kind == VALUE:
            torch.nn.utils.clip_grad_value_(parameters, **self.clip)
        elif self.clip:
            torch.nn.utils.clip_grad_norm_(parameters, **self.clip)


class Engine:
    """One implementation of detectors. A subclass knows its framework, and nothing of records.

    Args:
        root: the user's checkout, for an engine whose detectors come from one.
        device: where the model runs, ``cpu`` or ``cuda[:N]``.
    """

    name = ""
    packages: Tuple[str, ...] = ("numpy",)
    dialect = ""  # which words its configs are written in, of those in ``parity.settings``
    runs_here = False  # whether the interpreter of the ``parity`` command is one of its own
    checkout = ""  # where to get the checkout that it needs; empty for one that needs none
    checkout_file = ""  # by which that checkout is known

    def __init__(self, root: str = "", device: str = "cpu") -> None:
        _require_device(device)
        self.root = root
        self.device = device

    def config(self, case: Case) -> Any:
        """Return the case's config, free to be altered."""
        raise NotImplementedError

    def config_path(self, case: Case) -> str:
        """Return the file of the case's config.

        It is an absolute path, or relative to the user's checkout, to this package (a port's config), or to
        the configs that mmdet installs beside its code.
        """
        import parity

        config = case.configs[self.name]
        mmdet = importlib.import_module("mmdet")
        here, mim = os.path.dirname(str(parity.__file__)), os.path.join(os.path.dirname(str(mmdet.__file__)), ".mim")
        folders = [here] if config.startswith("ports/") else [self.root, os.path.join(mim, "configs")]
        for folder in folders:
            path = os.path.join(folder, config)
            if os.path.isfile(path) and (folder or os.path.isabs(config)):
                return path
        raise ParityError(
            f"{self.name} has no config {config}: it is neither a file, nor below the legacy root, nor among the"
            f" configs of mmdet {mmdet.__version__}; is that the pinned version?"
        )

    def with_options(self, case: Case, config: Any) -> Any:
        """Return a config with the case's own settings of it; one that changes nothing is refused as stale."""
        for key, value in case.options.get(self.name, {}).items():
            before = copy.deepcopy(dict(config.items()))
            config.merge_from_dict({key: value})
            if dict(config.items()) == before:
                raise ParityError(f"case {case.id}: option {key} = {value!r} changes nothing in {self.name}'s config")
        return config

    def build(self, case: Case, dtype: torch.dtype) -> Any:
        """Return the case's detector, in evaluation mode, its weights still to be filled."""
        raise NotImplementedError

    def preprocess(self, case: Case, model: Any, files: Sequence[bytes], scale: Tuple[int, int]) -> Metas:
        """Return ``image`` and the metas of a batch of encoded image files, through the test pipeline.

        ``scale`` is the (long, short) side in pixels to resize into, or (0, 0) to leave the size alone.
        """
        raise NotImplementedError

    def predict(self, model: Any, image: torch.Tensor, metas: Metas) -> Any:
        """Run the whole detector the way its own framework does."""
        raise NotImplementedError

    def losses(self, model: Any, batch: Metas) -> Mapping[str, Any]:
        """Run the detector's training forward on ``image``, metas, ``gt_boxes[i]`` and ``gt_labels[i]``.

        Returns:
            loss name -> a tensor, or a list of them.
        """
        raise NotImplementedError

    def updater(self, case: Case, model: Any) -> Updater:
        """Return the optimiser that the case's config asks for."""
        raise NotImplementedError

    def final_tensors(self, results: Any) -> Metas:
        """Return what ``predict`` gave as tensors, by name and image."""
        raise NotImplementedError

    def test_pipeline(self, case: Case) -> Callable[[str], Any]:
        """Return the config's own test pipeline, from an image's path to what ``detect`` takes."""
        raise NotImplementedError

    def detect(self, model: Any, loaded: Any) -> Metas:
        """Run the detector on one loaded image, the way its framework's test loop does.

        Returns:
            ``boxes`` (N, 4) float32, pixels xyxy of the image file, ``scores`` (N,) and ``labels`` (N,).
        """
        raise NotImplementedError

    def samples(self, metas: Metas) -> List[Any]:
        """Return the metas as the engine's own data samples."""
        raise NotImplementedError

    def meta_dicts(self, metas: Metas) -> List[Dict[str, Any]]:
        """Return the metas as plain dictionaries, one an image, the way heads are given them."""
        raise NotImplementedError

    def instances(self, attributes: Mapping[str, torch.Tensor]) -> Any:
        """Return the engine's own result object of one image."""
        raise ParityError(f"{self.name} hands on no result objects: the case's reads may not name Instances")

    def state(self) -> Dict[str, Tuple[Any, Any]]:
        """Return name -> (get, set) of what its detectors carry outside of arguments."""
        return {}

    def schedule(self, case: Case) -> Metas:
        """Return the learning rates of the whole published schedule (see ``engines.schedules``)."""
        raise NotImplementedError

    def initialiser(self, case: Case) -> Tuple[Callable[[], Any], List[str]]:
        """Return what builds and initialises a detector as training does, and the checkpoints that it leaves out."""
        raise NotImplementedError

    def train_data(self, case: Case, folder: str) -> Any:
        """Return the training data of the case's config, read from ``folder`` (see ``engines.train_data``)."""
        raise NotImplementedError

    def training_in_force(self, case: Case, folder: str) -> Dict[str, Any]:
        """Return what is in force of a training on the data in ``folder`` (see ``engines.training_setup``)."""
        raise NotImplementedError

    def batches(self, case: Case, *, data_root: str, seed: int, options: Sequence[str]) -> Iterator[Metas]:
        """Yield what the training loader of the case's config gives (see ``engines.loaders``)."""
        raise NotImplementedError

    def fingerprint(self) -> Dict[str, str]:
        """Return what the numbers may depend on."""
        versions = {"engine": self.name, "python": platform.python_version(), "torch": str(torch.__version__)}
        for package in self.packages:
            versions[package] = str(importlib.import_module(package).__version__)
        versions["blas"] = _build_setting("BLAS_INFO")
        versions["vector_instructions"] = torch.__config__.show().split("CPU capability usage: ")[-1].split("\n")[0]
        versions["cpu"] = _cpu()
        versions["device"] = torch.cuda.get_device_name() if self.device.startswith("cuda") else "cpu"
        if self.device.startswith("cuda"):
            versions["cuda"] = str(torch.version.cuda)
            versions["cudnn"] = str(torch.backends.cudnn.version())  # type: ignore[no-untyped-call]
        return versions


def _require_device(device: str) -> None:
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda") or not (index == "" or index.isdigit()):
        raise ParityError(f"--device {device}: there are cpu, cuda and cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "cuda" and int(index or 0) >= count:
        seen = f"{count or 'no'} CUDA device{'s' * (count > 1)}"
        raise ParityError(f"--device {device}: torch {torch.__version__} sees {seen} here; use --device cpu")


def _build_setting(key: str) -> str:
    return torch.__config__.show().split(f"{key}=")[-1].split(",")[0].strip()[:40]


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()
