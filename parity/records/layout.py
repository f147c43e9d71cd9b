"""How a record is laid out: modes, keys, and what of a run is kept under a key."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from parity.cases.base import METAS, Stage, base_name
from parity.cases.patterns import expand
from parity.engines.session import Run
from parity.records.digest import kept
from parity.records.store import Entry

ISOLATED, CASCADE = "isolated", "cascade"
MODES = (ISOLATED, CASCADE)
REPEATABLE = 1e-12  # relative RMS between two float64 runs that count as the same
DECISION_PARTS = ("scores", "boxes", "chosen", "candidates")

Tensors = Mapping[str, Tensor]


def array_key(stage: str, name: str, kind: str, *, isolated_only: bool = False) -> str:
    """Return the key of a stored array.

    >>> array_key("decoder", "hidden_states[0]", "samples")
    'decoder/hidden_states[0]#samples'
    """
    key = f"{stage}/{name}" + ("@isolated" if isolated_only else "")
    return key if kind == "whole" else f"{key}#{kind}"


def unpromoted(place: str) -> str:
    """Return the role of arrays from a run with all float32 islands left in, or all but the one at ``place``."""
    return f"unpromoted but {place}" if place else "unpromoted"


def sliced(stage: Stage, name: str, tensor: Tensor) -> Tensor:
    """Return as much of an input as the stage's isolated replay is given."""
    cut = stage.slices.get(base_name(name))
    if cut is None:
        return tensor
    places = torch.arange(0, tensor.shape[cut.axis], cut.step)
    return tensor.index_select(cut.axis, places)


def stage_inputs(stage: Stage, everything: Tensors) -> dict[str, Tensor]:
    """Return what an isolated replay of the stage is given: its inputs, sliced where declared, and the metas."""
    names = [name for wanted in (*stage.inputs(), *METAS) for name in expand(wanted, everything)]
    return {name: sliced(stage, name, everything[name]) for name in names}


def recorded_part(entry: Entry, key: str, run: Run, stored: Tensors) -> Tensor | None:
    """Return from a run what the record keeps under ``key``; ``None`` where the run has no such thing.

    ``stored`` is asked for a decision's candidates.
    """
    if entry.role != "decision":
        tensor = run.tensors.get(entry.name)
        return None if tensor is None else kept(entry.kind, entry.name, tensor)
    name, part = key.rsplit("/", 1)
    decision = run.decisions.get(name)
    if decision is None or part == "candidates":
        return None
    ranked: Tensor | None = getattr(decision, part)
    candidates = f"{name}/candidates"
    if ranked is not None and part == "scores" and candidates in stored:
        return ranked.gather(-1, stored[candidates])
    return ranked
