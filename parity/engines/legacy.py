"""What the legacy engines of the DDQ checkout have in common."""

from __future__ import annotations

import os

import torch

from parity.errors import ParityError


def require_project_file(root: str, file: str, *, checkout: str) -> None:
    """Raise ``ParityError`` where the legacy root is not the checkout that an engine needs."""
    if not os.path.isfile(os.path.join(root, file)):
        raise ParityError(
            f"legacy root {root or '(none)'} has no {file}: clone {checkout}, and name its folder with --legacy-root"
        )


def make_cuda_calls_harmless() -> None:
    """The code says ``.cuda()`` outright in places; on the CPU that has to mean nothing."""
    for owner in (torch.Tensor, torch.nn.Module):
        setattr(owner, "cuda", lambda self, *args, **kwargs: self)  # noqa: B010 - a method, as far as types go
