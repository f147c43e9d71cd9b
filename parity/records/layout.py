"""How a record is laid out: modes, keys, and what of a run is kept under a key."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from parity.cases.base import METAS, Stage, base_name
from parity.cases.patterns import expand
from parity.engines.base import Run
from parity.errors import ParityError
from parity.records.digest import kept
from parity.records.kinds import CASCADE
from parity.records.store import Entry, Record

REPEATABLE = 1e-12  # relative RMS between two float64 runs that count as the same
DECISION_PARTS = ("scores", "boxes", "chosen", "candidates")

Tensors = Mapping[str, Tensor]


class StoredTensors(Mapping[str, Tensor]):
    """A record's tensors by key, each read and checked once."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self._read: dict[str, Tensor] = {}

    def __getitem__(self, key: str) -> Tensor:
        if key not in self.record.entries:
            raise KeyError(key)
        if key not in self._read:
            self._read[key] = self.record.tensor(key)
        return self._read[key]

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self.record.entries)

    def __len__(self) -> int:
        return len(self.record.entries)


def array_key(stage: str, name: str, kind: str, *, isolated_only: bool = False) -> str:
    """Return the key of a stored array.

    >>> array_key("decoder", "hidden_states[0]", "samples")
    'decoder/hidden_states[0]#samples'
    """
    key = f"{stage}/{name}" + ("@isolated" if isolated_only else "")
    return key if kind == "whole" else f"{key}#{kind}"


def noise_key(key: str) -> str:
    """Return the key of a table's noise: (P, 2), the greatest and the RMS error of every row."""
    return f"{key}#noise"


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


def stored_inputs(stage: Stage, stored: StoredTensors) -> dict[str, Tensor]:
    """Return from a record what an isolated replay of the stage is given: see ``stage_inputs``.

    Raises:
        ParityError: the record does not hold it.
    """
    known = [entry.name for entry in stored.record.entries.values()]
    names = dict.fromkeys(name for wanted in (*stage.inputs(), *METAS) for name in expand(wanted, known))
    return {name: _stored_input(stage, name, stored) for name in names}


def _stored_input(stage: Stage, name: str, stored: StoredTensors) -> Tensor:
    if base_name(name) in stage.slices:
        return stored[array_key(stage.name, name, "whole")]
    for key, entry in stored.record.entries.items():
        if entry.name == name and entry.role == "output" and entry.kind == "whole" and CASCADE in entry.modes:
            return stored[key]
    raise ParityError(f"{stored.record.folder} holds no {name}, which stage {stage.name} reads: freeze it again")


def recorded_part(entry: Entry, key: str, run: Run, stored: Tensors) -> Tensor | None:
    """Return from a run what the record keeps under ``key``; ``None`` where the run has no such thing.

    ``stored`` is asked for a decision's candidates. Scores among which the engine did not have all of those come
    whole: their shape tells.
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
        places = stored[candidates]
        return ranked.gather(-1, places) if bool((places < ranked.shape[-1]).all()) else ranked
    return ranked
