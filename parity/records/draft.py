"""A record in the making: arrays and their manifest entries, side by side."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from parity.cases.base import Case, Meaning
from parity.compare.budgets import Noise
from parity.compare.decisions import Choice
from parity.compare.tensors import measure
from parity.engines.base import Run
from parity.errors import NoTruthError
from parity.records.digest import kept, kinds_for, sketch_or_whole
from parity.records.kinds import ISOLATED
from parity.records.layout import Tensors, array_key, noise_key, recorded_part
from parity.records.store import NOISE, Entry, sha256
from parity.taps.decisions import ASSIGNMENT, NMS, THRESHOLD, Decision

# Of a cost matrix, so many of the cheapest rows of each column are kept beside the chosen pairs.
CHEAPEST = 16

# A top-k ranks tens of thousands of scores; so many of the best are kept, times k.
CANDIDATES_TIMES_K = 4
# Of all that is held against a threshold, so many of the nearest to it.
NEAREST = 1024
# What ties with the last of those, as far as noise goes, is kept as well: relative to the greatest score.
TIED = 1e-5


@dataclass
class Draft:
    """A record in the making: ``entries`` and ``tensors`` by key (see ``records.layout``), and tables' ``rows``."""

    case: Case
    entries: dict[str, Entry] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    rows: dict[str, list[str]] = field(default_factory=dict)

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
            NoTruthError: it holds a NaN or an infinity.
        """
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise NoTruthError(f"stage {stage}: {name} holds a NaN or an infinity in the truth; choose another --seed")
        meaning = Meaning("what a decision chose from", "") if role == "decision" else self.case.meaning(name)
        size = measure(torch.zeros_like(tensor), tensor)
        self.tensors[key] = tensor
        self.entries[key] = Entry(
            name=name,
            stage=stage,
            role=role,
            kind=kind,
            modes=modes,
            file=NOISE if role == "noise" else f"{stage}.safetensors",
            shape=tuple(tensor.shape),
            of_shape=tuple((tensor if of is None else of).shape),
            dtype=str(tensor.dtype).removeprefix("torch."),
            meaning=meaning.text,
            unit=meaning.unit,
            sha256=sha256(tensor),
            max=size.expected_max,
            rms=size.expected_rms,
        )

    def add_outputs(
        self,
        stage: str,
        outputs: Tensors,
        *,
        whole: Collection[str],
        modes: tuple[str, ...],
        sketched: bool = False,
        small: bool = False,
    ) -> None:
        """Add what a stage wrote.

        Args:
            whole: the tensors that must not be digested.
            sketched: keep a sketch of every one.
            small: keep of a digested one a sketch in place of its projections.
        """
        for name, tensor in outputs.items():
            kinds = sketch_or_whole(tensor) if sketched else kinds_for(tensor, needed_whole=name in whole, small=small)
            for kind in kinds:
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

    def add_table(self, stage: str, name: str, tensor: Tensor, rows: Sequence[str], *, mode: str) -> None:
        """Add a table and the names of its rows; tables about the same things share one list of names."""
        label = next((known for known, names in self.rows.items() if names == list(rows)), name)
        self.rows[label] = list(rows)
        key = array_key(stage, name, "whole")
        self.add(key, tensor, name=name, stage=stage, role="output", modes=(mode,))
        self.entries[key] = replace(self.entries[key], rows=label)

    def note_table_noise(self, stage: str, run: Run) -> None:
        """Raise the noise of every row of a stage's tables to what this float32 run shows."""
        for key, entry in list(self.entries.items()):
            if entry.stage != stage or not entry.rows or entry.role != "output":
                continue
            error = (run.tensors[entry.name].double() - self.tensors[key]).abs()
            now = torch.stack([error.amax(1), error.square().mean(1).sqrt()], 1)
            before = self.tensors.get(noise_key(key), torch.zeros_like(now))
            self.add(noise_key(key), torch.maximum(before, now), name=entry.name, stage=stage, role="noise")

    def raise_table_noise(self, name: str, floors: Mapping[str, float]) -> None:
        """Raise the noise of a table's rows to at least the given errors of one element of a row."""
        for key, entry in list(self.entries.items()):
            if entry.name != name or entry.role != "noise":
                continue
            rows = self.rows[self.entries[key.split("#")[0]].rows]
            least = torch.tensor([[floors.get(row, 0.0)] for row in rows], dtype=torch.float64)
            least = torch.cat([least, least / self.tensors[key.split("#")[0]].shape[1] ** 0.5], 1)
            self.add(key, torch.maximum(self.tensors[key], least), name=name, stage=entry.stage, role="noise")

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
    if decision.kind == THRESHOLD:
        distance = (scores - decision.settings["threshold"]).abs()
        candidates = _best(distance, NEAREST, largest=False).sort(-1).values
        scores = scores.gather(-1, candidates)
    elif decision.kind == ASSIGNMENT:
        candidates = near_pairs(scores, decision.chosen, int(decision.settings["columns"]))
        scores = scores[candidates]
    elif decision.kind != NMS and size > CANDIDATES_TIMES_K * count:
        largest = bool(decision.settings.get("largest", 1.0))
        candidates = _best(scores, CANDIDATES_TIMES_K * count, largest=largest).sort(-1).values
        scores = scores.gather(-1, candidates)
    return Choice(
        decision.kind, scores, decision.chosen, decision.settings, size, decision.boxes, candidates, decision.ordered
    )


def near_pairs(costs: Tensor, chosen: Tensor, columns: int) -> Tensor:
    """Return the flat places of a cost matrix that a near-optimal matching may use, ascending.

    A column's cheapest rows may be taken by others (where several objects are the same, they are), so beside CHEAPEST
    of them each column keeps as many as there are pairs.
    """
    matrix = costs.view(-1, columns)
    cheapest = _best(matrix.T, CHEAPEST + len(chosen), largest=False).T
    places = (cheapest * columns + torch.arange(columns)).reshape(-1)
    near: Tensor = torch.cat([places, chosen]).unique()  # type: ignore[no-untyped-call]
    return near


def _best(scores: Tensor, count: int, *, largest: bool) -> Tensor:
    """Return the places (..., M) of the best ``count`` of each row, and of what ties with the last of them.

    Any of many equal scores may be chosen: what is not kept could not be told from a bug. M is the same for all rows.
    """
    ranked = scores if largest else -scores
    count = min(count, ranked.shape[-1])
    if count and ranked.numel():
        last = ranked.topk(count).values[..., -1:]
        tied = ranked >= last - TIED * ranked.abs().amax()
        count = max(count, int(tied.sum(-1).max()))
    best: Tensor = ranked.topk(count).indices
    return best
