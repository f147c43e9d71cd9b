"""Which part of a checkpoint is its state dict."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from parity.errors import ParityError
from parity.text import listed, one_line, shown
from parity.weights.claims import Claim
from parity.weights.opcodes import described

Values = dict[str, Any]  # name -> Tensor or Claim
_WRITERS = {"parity": "parity", "mmengine_version": "mmengine", "mmcv_version": "mmcv"}
_KEYS = ("model_state_dict", "model_state", "module", "network", "net", "weights")  # below which others keep theirs
_LONGEST_NAME = 1000


def is_tensor(value: Any) -> bool:
    """Return whether something is a tensor, or what a pickle says of one."""
    return isinstance(value, (Tensor, Claim))


def state_dict(content: Any) -> tuple[str, Mapping[Any, Any] | None]:
    """Return a checkpoint's layout and its state dict, or ``None`` if it has none."""
    if not isinstance(content, Mapping):
        return "", None
    if isinstance(content.get("state_dict"), Mapping):
        meta = content.get("meta")
        known = meta if isinstance(meta, Mapping) else {}
        writer = next((writer for key, writer in _WRITERS.items() if key in known), "state_dict")
        return writer, content["state_dict"]
    if isinstance(content.get("model"), Mapping):
        return "model", content["model"]
    if content and all(map(is_tensor, content.values())):
        return "bare", content
    for key in _KEYS:
        value = content.get(key)
        if isinstance(value, Mapping) and value and all(map(is_tensor, value.values())):
            return key, value
    return "", None


def nothing(content: Any) -> str:
    """Return what a file without a state dict has instead.

    >>> nothing({"epoch": 3, "optimizer": {}})
    'no state dict: no state_dict, no model, not only tensors; it has epoch, optimizer'
    >>> nothing([1, 2])
    'no state dict but a list of 2'
    """
    if isinstance(content, Mapping):
        keys = [shown(key)[1:-1] if isinstance(key, str) else described(key) for key in list(content)[:50]]
        has = ", ".join(sorted(keys)[:5]) or "nothing"
        return f"no state dict: no state_dict, no model, not only tensors; it has {has}"
    if is_tensor(content):
        return f"no state dict but a tensor of shape {tuple(content.shape)}"
    return f"no state dict but a {described(content) if type(content).__module__ == 'builtins' else _kind(content)}"


def _kind(content: Any) -> str:
    if hasattr(content, "what"):
        return str(content.what)
    return one_line(type(content).__qualname__, most=80)


def tensors(values: Mapping[Any, Any], path: Path) -> Values:
    """Return a state dict's entries, all of which are plain tensors with a plain name.

    Raises:
        ParityError: one is not; the file is named.
    """
    unnamed = [described(name) for name in values if not isinstance(name, str)]
    if unnamed:
        some = f"{', '.join(unnamed[:3])}{', …' if len(unnamed) > 3 else ''}"
        raise ParityError(f"{path}: {len(unnamed)} names of its state dict are no text: {some}")
    strange = [name for name in values if not name.isprintable() or not 0 < len(name) <= _LONGEST_NAME]
    if strange:
        raise ParityError(f"{path}: {len(strange)} names of its state dict are none of a parameter {listed(strange)}")
    odd = [name for name, value in values.items() if not is_tensor(value)]
    if odd:
        first = described(values[sorted(odd)[0]])
        raise ParityError(
            f"{path}: {len(odd)} entries of its state dict are no tensors {listed(odd)}, the first a {first}"
        )
    special = {name: _special(value) for name, value in values.items() if _special(value)}
    if special:
        kinds = " or ".join(sorted(set(special.values())))
        raise ParityError(f"{path}: {len(special)} entries of its state dict are {kinds} {listed(special)}")
    return dict(values)


def _special(value: Tensor | Claim) -> str:
    """Return what a tensor is if it is no plain one."""
    if isinstance(value, Claim):
        return value.special
    if value.is_meta:
        return "on the meta device, without values"
    if value.is_quantized:
        return "quantized"
    return "" if value.layout is torch.strided and not value.is_nested else "sparse"


def without_wrapper(state: Values) -> Values:
    """Take off the ``module.`` that a distributed wrapper puts before every name, however often."""
    while state and all(name.startswith("module.") and name != "module." for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state
