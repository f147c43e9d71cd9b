"""Watch every module of a model while one stage runs: what entered, what came out, in the order in which it happened.

What is kept of a tensor is a digest: signed sums, into which every element enters, and its size. Two engines'
digests of the same tensor agree to roundoff; Python 3.8 and torch 1.9.
"""

from __future__ import annotations

import inspect
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional

import torch
from torch import nn

SUMS = 64  # of every tensor; a difference of one element moves one of them

Event = Dict[str, Any]


class ModuleTaps:
    """Notes ``{"module", "call", "at", "digests"}`` for every module call while ``stage`` runs.

    ``at`` is ``in`` or ``out``; ``call`` counts the calls of a module, which several levels may share.
    """

    def __init__(self, model: nn.Module, stage: str) -> None:
        self.model = model
        self.stage = stage
        self.events: List[Event] = []
        self._counts: Dict[str, int] = {}
        self._open: Dict[str, List[int]] = {}
        self._hooks: List[Any] = []

    def attach(self, current_stage: Callable[[], Optional[str]]) -> None:
        """Begin to watch."""
        for name, module in self.model.named_modules():
            if not name:
                continue
            self._hooks += [
                module.register_forward_pre_hook(self._entering(name, current_stage)),
                module.register_forward_hook(self._leaving(name, current_stage)),
            ]

    def detach(self) -> None:
        """Leave the model as it was."""
        for hook in self._hooks:
            hook.remove()

    def _entering(self, name: str, current_stage: Callable[[], Optional[str]]) -> Callable[..., None]:
        def entering(module: Any, inputs: Any) -> None:
            if current_stage() == self.stage:
                call = self._counts.get(name, 0)
                self._counts[name] = call + 1
                self._open.setdefault(name, []).append(call)
                self._note(name, call, "in", inputs)

        return entering

    def _leaving(self, name: str, current_stage: Callable[[], Optional[str]]) -> Callable[..., None]:
        def leaving(module: Any, inputs: Any, output: Any) -> None:
            if current_stage() == self.stage and self._open.get(name):
                self._note(name, self._open[name].pop(), "out", output)

        return leaving

    def _note(self, name: str, call: int, at: str, value: Any) -> None:
        digests = [digest(tensor) for tensor in _tensors(value)]
        self.events.append({"module": name, "call": call, "at": at, "digests": digests})


def digest(tensor: torch.Tensor) -> Dict[str, Any]:
    """Return a tensor's shape, RMS and ``SUMS`` signed sums, float64.

    The order of the axes does not count: engines differ in which comes first, images or positions.
    """
    flat = tensor.detach().double().flatten()
    rms = float((flat * flat).mean().sqrt()) if flat.numel() else 0.0
    places = torch.arange(flat.numel())
    signs = 1.0 - 2.0 * ((places * 40503 // 64) % 2).double()
    padded = torch.nn.functional.pad(flat * signs, (0, -flat.numel() % SUMS))
    sums = padded.view(SUMS, -1).sum(1) if flat.numel() else padded
    return {"shape": list(tensor.shape), "rms": rms, "sums": sums.tolist()}


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """Yield the floating point tensors in a value, in order."""
    if torch.is_tensor(value):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _tensors(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _tensors(inner)


def describe(model: nn.Module) -> Dict[str, Dict[str, str]]:
    """Return path -> class and source (``file.py:line`` of its ``forward``) of every module."""
    return {name: described(type(module), "forward") for name, module in model.named_modules()}


def described(owner: Any, method: str) -> Dict[str, str]:
    """Return a class's name, and file and line of one of its methods."""
    found = inspect.unwrap(getattr(owner, method, owner))
    try:
        file = (inspect.getsourcefile(found) or "?").rsplit("site-packages/", 1)[-1]
        line = inspect.getsourcelines(found)[1]
    except (OSError, TypeError):
        return {"class": owner.__name__, "source": "?"}
    return {"class": owner.__name__, "source": f"{file}:{line}"}


def differ(first: Mapping[str, Any], second: Mapping[str, Any], *, relative: float) -> bool:
    """Whether two digests are of different tensors, beyond ``relative`` of their size."""
    size = max(first["rms"], second["rms"])
    if sorted(first["shape"]) != sorted(second["shape"]):
        return True
    if first["shape"] != second["shape"]:  # axes exchanged: the sums run over other elements
        return bool(abs(first["rms"] - second["rms"]) > relative * size)
    elements = 1
    for side in first["shape"]:
        elements *= side
    allowed = relative * size * max(1.0, (elements / SUMS) ** 0.5)
    return any(abs(a - b) > allowed for a, b in zip(first["sums"], second["sums"]))
