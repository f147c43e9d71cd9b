"""DDQ DETR as its authors published it: mmdet 3.0.0rc6, with ``projects/`` from the user's checkout."""

from __future__ import annotations

import os
import sys

import torch

from parity.cases.base import Case
from parity.engines.mmdet3 import Mmdet3Engine
from parity.errors import ParityError

HINT = "clone https://github.com/jshilong/DDQ, branch ddq_detr, and name its folder with --legacy-root"


class DdqMmdet3rcEngine(Mmdet3Engine):
    name = "ddq_mmdet3rc"

    def __init__(self, root: str = "", device: str = "cpu") -> None:
        super().__init__(root, device)
        models = os.path.join(root, "projects", "models", "ddq_detr.py")
        if not os.path.isfile(models):
            raise ParityError(f"legacy root {root or '(none)'} has no projects/models/ddq_detr.py: {HINT}")
        # Last, not first: the checkout also holds a copy of mmdet, and the registry's is the one that is pinned.
        sys.path.append(root)
        if device == "cpu":
            _make_cuda_calls_harmless()

    def config_path(self, case: Case) -> str:
        return os.path.join(self.root, case.configs[self.name])


def _make_cuda_calls_harmless() -> None:
    """The code says ``.cuda()`` outright in places; on the CPU that has to mean nothing."""
    for owner in (torch.Tensor, torch.nn.Module):
        setattr(owner, "cuda", lambda self, *args, **kwargs: self)  # noqa: B010 - a method, as far as types go
