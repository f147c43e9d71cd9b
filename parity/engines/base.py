"""What an engine must offer. Runs in both interpreters: Python 3.8, torch 1.9 and later."""

from __future__ import annotations

import platform
from typing import Any, Dict, List, Mapping, Sequence, Tuple

import torch

from parity.cases.base import Case
from parity.errors import ParityError

Metas = Mapping[str, torch.Tensor]


class Engine:
    """One implementation of detectors. A subclass knows its framework, and nothing of records.

    Args:
        root: the user's checkout, for an engine whose detectors come from one.
        device: where the model runs, ``cpu`` or ``cuda[:N]``.
    """

    name = ""
    packages: Tuple[str, ...] = ("numpy",)

    def __init__(self, root: str = "", device: str = "cpu") -> None:
        _require_device(device)
        self.root = root
        self.device = device

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

    def final_tensors(self, results: Any) -> Metas:
        """Return what ``predict`` gave as tensors, by name and image."""
        raise NotImplementedError

    def samples(self, metas: Metas) -> List[Any]:
        """Return the metas as the engine's own data samples."""
        raise NotImplementedError

    def meta_dicts(self, metas: Metas) -> List[Dict[str, Any]]:
        """Return the metas as plain dictionaries, one an image, the way heads are given them."""
        raise NotImplementedError

    def state(self) -> Dict[str, Tuple[Any, Any]]:
        """Return name -> (get, set) of what its detectors carry outside of arguments."""
        return {}

    def fingerprint(self) -> Dict[str, str]:
        """Return what the numbers may depend on."""
        import importlib

        versions = {"engine": self.name, "python": platform.python_version(), "torch": str(torch.__version__)}
        for package in self.packages:
            versions[package] = str(importlib.import_module(package).__version__)
        versions["blas"] = _build_setting("BLAS_INFO")
        versions["vector_instructions"] = torch.__config__.show().split("CPU capability usage: ")[-1].split("\n")[0]
        versions["cpu"] = _cpu()
        versions["device"] = torch.cuda.get_device_name() if self.device.startswith("cuda") else "cpu"
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
