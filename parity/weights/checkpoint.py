"""The weights in a ``.pth``, whatever wrote it, and a ``.pth`` that mmengine reads.

Layouts: mmengine's and mmcv 1.x's ``{meta, state_dict, …}``, ``{model: …}``, and a bare state dict. Where
averaged (EMA) weights lie is each framework's own affair:

* mmengine's ``EMAHook`` saves them **as** ``state_dict``, and the trained ones as ``ema_state_dict``, below
  ``module.``: its tests and its users run on the average.
* mmcv 1.x's ``EMAHook`` keeps a buffer ``ema_backbone_conv1_weight`` for each parameter. With mmcv's own
  priority the buffers hold the average when a checkpoint is saved; registered ahead of the checkpoint hook,
  as mmdet 2.x does (``priority=49``), the two have been exchanged.
"""

from __future__ import annotations

import ast
import os
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from parity.errors import ParityError
from parity.weights import pickles

# The version of its names that every module is said to have: the present one, of torch, mmcv and mmdet 2 and 3 alike.
# Without any, their loaders take a state dict for one of an early release and rename its keys (mmdet's AnchorFreeHead
# makes another of every name that holds conv_cls or conv_reg).
PRESENT_VERSION = 2
LEFT = "parity_left"  # where what a conversion left over is kept beside the weights it made
_PRIORITIES = {"HIGHEST": 0, "VERY_HIGH": 10, "HIGH": 30, "ABOVE_NORMAL": 40}
_CHECKPOINT_PRIORITY = 50


@dataclass(frozen=True)
class Checkpoint:
    """The weights of a file.

    Attributes:
        state: parameter and buffer name -> value on the CPU.
        origin: which weights these are, in words.
        classes: the class names it was trained on, empty if it does not say.
        left: what the conversion that made the file left over; ``None`` if no conversion made it.
    """

    state: dict[str, Tensor]
    origin: str
    classes: tuple[str, ...] = ()
    left: dict[str, Tensor] | None = None


def read_checkpoint(path: Path, *, ema: bool = False, trust_pickle: bool = False) -> Checkpoint:
    """Return the weights in a ``.pth``: the trained ones, or the averaged ones with ``ema``.

    Raises:
        ParityError: the file cannot be read, or not without trusting its pickle (``trust_pickle``), holds no
            state dict, or has no averaged weights where they are asked for; the file is named.
    """
    content = pickles.load(path, trust_pickle=trust_pickle)
    layout, found = _state_dict(content, path)
    meta = content.get("meta") if layout != "bare" else None
    meta = meta if isinstance(meta, Mapping) else {}
    state = _without_wrapper(_tensors(found, path))
    plain, averaged = _mmcv_ema(state, meta)
    if layout != "bare" and isinstance(content.get("ema_state_dict"), Mapping):
        plain, averaged = _mmengine_ema(plain, _tensors(content["ema_state_dict"], path), meta, path)
    if ema and averaged is None:
        raise ParityError(f"{path} holds no averaged (EMA) weights: leave --ema away")
    kind = (
        "averaged (EMA) weights" if ema else "trained weights, not the averaged (EMA) ones" if averaged else "weights"
    )
    left = content.get(LEFT) if layout != "bare" else None
    return Checkpoint(
        averaged if ema and averaged else plain,
        f"{kind} of a {layout} checkpoint",
        _classes(meta),
        _tensors(left, path) if isinstance(left, Mapping) else None,
    )


def _state_dict(content: Any, path: Path) -> tuple[str, Mapping[str, Any]]:
    """Return the layout's name and its state dict."""
    if isinstance(content, Mapping):
        if isinstance(content.get("state_dict"), Mapping):
            meta = content.get("meta")
            known = meta if isinstance(meta, Mapping) else {}
            writers = {"parity": "parity", "mmengine_version": "mmengine", "mmcv_version": "mmcv"}
            return next((writer for key, writer in writers.items() if key in known), "state_dict"), content[
                "state_dict"
            ]
        if isinstance(content.get("model"), Mapping):
            return "model", content["model"]
        if content and all(isinstance(value, Tensor) for value in content.values()):
            return "bare", content
        keys = ", ".join(sorted(map(str, content))[:5])
        raise ParityError(
            f"{path} holds no state dict: no state_dict, no model, not only tensors; it has {keys or 'nothing'}"
        )
    raise ParityError(f"{path} holds no state dict but a {type(content).__name__}")


def _tensors(found: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    odd = sorted(str(name) for name, value in found.items() if not isinstance(value, Tensor))
    if odd:
        raise ParityError(f"{path}: {len(odd)} entries of its state dict are no tensors {odd[:3]}")
    sparse = sorted(name for name, value in found.items() if value.layout is not torch.strided or value.is_quantized)
    if sparse:
        raise ParityError(f"{path}: {len(sparse)} entries of its state dict are sparse or quantized {sparse[:3]}")
    return {name: value.detach() for name, value in found.items()}


def _without_wrapper(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take off the ``module.`` that a distributed wrapper puts before every name, however often."""
    while state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state


def _mmcv_ema(state: dict[str, Tensor], meta: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
    """Return the trained and the averaged weights of a state dict, which may have mmcv 1.x's EMA buffers."""
    buffers = {name: f"ema_{name.replace('.', '_')}" for name in state}
    partner = {name: buffer for name, buffer in buffers.items() if buffer in state}
    if not partner:
        return state, None
    own = {name: value for name, value in state.items() if name not in partner.values()}
    other = {**own, **{name: state[buffer] for name, buffer in partner.items()}}
    return (other, own) if _ema_first(str(meta.get("config", ""))) else (own, other)


def _ema_first(config: str) -> bool:
    """Return whether mmcv's EMA hook ran before the checkpoint hook, so that the average bears the plain names."""
    try:
        calls = [node for node in ast.walk(ast.parse(config)) if isinstance(node, ast.Call)]
    except (SyntaxError, ValueError, RecursionError):
        return False
    for call in calls:
        values = {word.arg: word.value.value for word in call.keywords if isinstance(word.value, ast.Constant)}
        if str(values.get("type", "")).endswith("EMAHook"):
            priority = values.get("priority", _CHECKPOINT_PRIORITY)
            number = _PRIORITIES.get(priority.upper(), 50) if isinstance(priority, str) else priority
            return isinstance(number, int) and number < _CHECKPOINT_PRIORITY
    return False


def _mmengine_ema(
    state: dict[str, Tensor], other: dict[str, Tensor], meta: Mapping[str, Any], path: Path
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the trained and the averaged weights; mmengine exchanges the two when it saves, others do not."""
    named = {name.removeprefix("module."): value for name, value in other.items() if name != "steps"}
    if named.keys() != state.keys():
        odd = sorted(named.keys() ^ state.keys())
        raise ParityError(f"{path}: state_dict and ema_state_dict differ in {len(odd)} names {odd[:3]}")
    second = {name: named[name] for name in state}
    return (second, state) if "mmengine_version" in meta else (state, second)


def _classes(meta: Mapping[str, Any]) -> tuple[str, ...]:
    described = meta.get("dataset_meta")
    places = [described if isinstance(described, Mapping) else {}, meta]
    for place in places:
        for key in ("classes", "CLASSES"):
            if isinstance(place.get(key), (tuple, list)) and all(isinstance(name, str) for name in place[key]):
                return tuple(place[key])
    return ()


def write_checkpoint(
    path: Path, state: Mapping[str, Tensor], *, source: Path, meta: Mapping[str, Any], left: Mapping[str, Tensor] | None
) -> None:
    """Write weights in mmengine's layout, whole or not at all.

    The file holds tensors and plain values only: mmengine, mmcv and ``torch.load(weights_only=True)`` read it.

    Args:
        source: the file the weights came from, which is never written.
        left: what the conversion left over, kept so that it can be reversed; ``None`` for a reversed one.

    Raises:
        ParityError: ``path`` is the source, or cannot be written.
    """
    if path.exists() and path.samefile(source):
        raise ParityError(f"{path} is the input itself: name another output")
    content = {"meta": dict(meta), "state_dict": _versioned(state)}
    if left is not None:
        content[LEFT] = dict(left)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            torch.save(content, file)
        part.replace(path)
    except (OSError, RuntimeError) as error:
        raise ParityError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}") from None
    finally:
        part.unlink(missing_ok=True)


def _versioned(state: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """Return a state dict that says, as ``Module.state_dict`` does, of which version each module's names are."""
    modules = {"": None}
    for name in state:
        parts = name.split(".")[:-1]
        modules.update({".".join(parts[: i + 1]): None for i in range(len(parts))})
    found = OrderedDict(state)
    found._metadata = OrderedDict((module, {"version": PRESENT_VERSION}) for module in modules)  # type: ignore[attr-defined]
    return found
