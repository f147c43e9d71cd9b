"""How a session's answers travel between the two interpreters: plain dictionaries and safetensors bytes.

Tensors go as the bytes of a safetensors file rather than through a shared folder, so that a worker on
another host (``ssh=…``) needs nothing else. No pickle on either side.
"""

from __future__ import annotations

from typing import Any, Dict

import torch
from safetensors.numpy import load  # torch 1.9 lacks what safetensors.torch reads bytes with
from safetensors.torch import save

from parity.engines.base import Run
from parity.taps.decisions import Decision

Message = Dict[str, Any]
_DECISION_TENSORS = ("scores", "chosen", "boxes")


def pack(tensors: Dict[str, torch.Tensor]) -> bytes:
    """Return the tensors as the bytes of a safetensors file."""
    return bytes(save({name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}))


def unpack(content: bytes) -> Dict[str, torch.Tensor]:
    """Return the tensors of a safetensors file given as bytes."""
    return {name: torch.from_numpy(array.copy()) for name, array in load(content).items()}


def encode_run(run: Run) -> Message:
    """Return a run as a message."""
    tensors = {}
    for name, decision in run.decisions.items():
        for part in _DECISION_TENSORS:
            if getattr(decision, part) is not None:
                tensors[f"{name}/{part}"] = getattr(decision, part)
    decisions = {
        name: {
            "kind": decision.kind,
            "settings": decision.settings,
            "ordered": decision.ordered,
            "refused": decision.refused,
        }
        for name, decision in run.decisions.items()
    }
    return {
        "tensors": pack(run.tensors),
        "decisions": decisions,
        "decision_tensors": pack(tensors),
        "islands": [list(island) for island in run.islands],
        "produced": {stage: list(names) for stage, names in run.produced.items()},
        "rows": {name: list(rows) for name, rows in run.rows.items()},
    }


def decode_run(message: Message) -> Run:
    """Return the run that ``encode_run`` made into a message."""
    parts = unpack(message["decision_tensors"])
    decisions = {}
    for name, described in message["decisions"].items():
        tensors: Dict[str, Any] = {part: parts.get(f"{name}/{part}") for part in _DECISION_TENSORS}
        decisions[name] = Decision(**described, **tensors)
    return Run(
        unpack(message["tensors"]),
        decisions,
        [(stage, site, count) for stage, site, count in message["islands"]],
        {stage: tuple(names) for stage, names in message["produced"].items()},
        {name: tuple(rows) for name, rows in message["rows"].items()},
    )
