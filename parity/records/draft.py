"""A record in the making: arrays and their manifest entries, side by side."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from parity.cases.base import Case, Meaning
from parity.compare.budgets import Noise
from parity.compare.decisions import Choice
from parity.compare.tensors import measure
from parity.engines.session import Run
from parity.errors import ParityError
from parity.records.digest import kept, kinds_for
from parity.records.layout import ISOLATED, Tensors, array_key, recorded_part
from parity.records.store import Entry, sha256
from parity.taps.decisions import Decision

# A top-k ranks tens of thousands of scores; so many of the best are kept, times k.
CANDIDATES_TIMES_K = 4


@dataclass
class Draft:
    """A record in the making: ``entries`` and ``tensors`` by key (see ``records.layout``)."""

    case: Case
    entries: dict[str, Entry] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def add(
        self,
        key: str,
        tensor: Tensor,
        *,
        name: str,
        stage: str,
        role: str,
        kind: str = "whole",
        modes: tuple[str, ...] = (),
        of: Tensor | None = None,
    ) -> None:
        """Add one array; ``of`` is the tensor that it keeps a part of, if not all.

        Raises:
            ParityError: it holds a NaN or an infinity.
        """
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ParityError(f"stage {stage}: {name} holds a NaN or an infinity in the truth; choose another --seed")
        meaning = Meaning("what a decision chose from", "") if role == "decision" else self.case.meaning(name)
        size = measure(torch.zeros_like(tensor), tensor)
        self.tensors[key] = tensor
        self.entries[key] = Entry(
            name=name,
            stage=stage,
            role=role,
            kind=kind,
            modes=modes,
            file=f"{stage}.safetensors",
            shape=tuple(tensor.shape),
            of_shape=tuple((tensor if of is None else of).shape),
            dtype=str(tensor.dtype).removeprefix("torch."),
            meaning=meaning.text,
            unit=meaning.unit,
            sha256=sha256(tensor),
            max=size.expected_max,
            rms=size.expected_rms,
        )

    def add_outputs(self, stage: str, outputs: Tensors, *, whole: Collection[str], modes: tuple[str, ...]) -> None:
        """Add what a stage wrote, ``whole`` naming the tensors that must not be digested."""
        for name, tensor in outputs.items():
            for kind in kinds_for(tensor, needed_whole=name in whole):
                key = array_key(stage, name, kind, isolated_only=modes == (ISOLATED,))
                self.add(
                    key,
                    kept(kind, name, tensor),
                    name=name,
                    stage=stage,
                    role="output",
                    kind=kind,
                    modes=modes,
                    of=tensor,
                )

    def note_noise(self, stage: str, mode: str, run: Run) -> None:
        """Raise the noise of every array of a stage to what this float32 run shows."""
        for key, entry in self.entries.items():
            if entry.stage != stage or mode not in entry.modes or entry.role not in ("output", "decision"):
                continue
            actual = recorded_part(entry, key, run, self.tensors)
            if actual is None or not actual.is_floating_point():
                continue
            difference = measure(actual.double(), self.tensors[key])
            before = entry.noise.get(mode, Noise(0.0, 0.0))
            now = Noise(max(before.max, difference.max_abs), max(before.rms, difference.rms))
            self.entries[key] = replace(entry, noise={**entry.noise, mode: now})


def as_choice(decision: Decision) -> Choice:
    """Return the truth's decision as it is kept: of a long ranking only the candidates that matter."""
    size, count = decision.scores.shape[-1], decision.chosen.shape[-1]
    scores, candidates = decision.scores, None
    if decision.kind != "nms" and size > CANDIDATES_TIMES_K * count:
        largest = bool(decision.settings.get("largest", 1.0))
        candidates = scores.topk(CANDIDATES_TIMES_K * count, largest=largest).indices.sort(-1).values
        scores = scores.gather(-1, candidates)
    return Choice(
        decision.kind, scores, decision.chosen, decision.settings, size, decision.boxes, candidates, decision.ordered
    )
