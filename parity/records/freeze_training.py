"""Freeze a training record: one step of the legacy engine, or a trajectory of several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from parity.cases.base import Case, TrainingBatch
from parity.compare.tensors import measure
from parity.engines.base import Run
from parity.engines.host import RemoteSession
from parity.engines.ranks import Ranks
from parity.engines.training import AGREE, SETTINGS
from parity.errors import ParityError
from parity.records.draft import Draft
from parity.records.freeze import TRUTH, Frozen, add_decisions, add_files, described_run, require_recorded_draws
from parity.records.images import drawn_objects, encoded_images
from parity.records.kinds import CASCADE, GROUND_TRUTH, checks_of_batch, draws_among, is_draw, said_of
from parity.records.noise import FURTHER_OF_TRAINING, TRAINING_WAYS, Floor, Progress, Training, trained
from parity.taps.sketch import WIDTH

# Two float64 runs of a training step count as the same up to here: an optimiser that divides a gradient by
# its own size (Adam) makes rounding errors of a gradient that should be zero visible in the parameters.
REPEATABLE_STEP = 1e-9
REPEATED_STEPS = 2  # of a trajectory


def freeze_training(
    case: Case,
    record_id: str,
    batch: TrainingBatch,
    legacy: RemoteSession | Ranks,
    *,
    progress: Progress,
    brief: bool = False,
) -> Frozen:
    """Return the manifest, the entries and the tensors of one training record.

    A ``brief`` one has neither float32 noise nor margins. ``legacy`` is as many processes as the batch asks for.

    Raises:
        ParityError: the legacy engine fails, does not repeat itself in float64, or its processes part ways.
    """
    progress("float64 truth")
    freezer = _TrainingFreezer(case, batch, legacy, margins_told=not brief)
    progress("float64 again, on one thread")
    freezer.require_repeatable()
    noise = None
    if batch.steps == 1 and not brief:
        noise = Floor(freezer.draft, freezer.subject, legacy).measure(
            TRAINING_WAYS, FURTHER_OF_TRAINING, progress=progress
        )
        freezer.draft.raise_table_noise("parameters", adaptive_steps(freezer.truth, freezer.shapes))
    return freezer.manifest(record_id, noise), freezer.draft.entries, freezer.draft.tensors


class _TrainingFreezer:
    """One training record's way through the legacy engine; making it runs the truth."""

    def __init__(self, case: Case, batch: TrainingBatch, legacy: RemoteSession | Ranks, *, margins_told: bool) -> None:
        self.case, self.batch, self.legacy = case, batch, legacy
        self.checks = checks_of_batch(case, batch)
        self.files = encoded_images(batch, seed=batch.seed)
        self.objects = drawn_objects(batch)
        self.fills = [asdict(fill) for fill in batch.fills]
        self.draft = Draft(case)
        self.subject = Training(case, batch, self.files, self.objects, self.fills, {}, {})
        self.settings = legacy.configure(**TRUTH)
        self.shapes = legacy.load(case.id, "fp64")
        self.weights = legacy.fill(batch.seed, self.fills)
        self.constants = legacy.constants()
        self.truth = trained(legacy, self.subject, "fp64")
        require_recorded_draws(self.truth)
        _require_agreement(self.truth)
        forced = {name: decision.chosen for name, decision in self.truth.decisions.items()}
        self.subject = replace(self.subject, draws=draws_among(self.truth.tensors), forced=forced)
        add_files(self.draft, self.files)
        for name, tensor in self.objects.items():
            self.draft.add(f"{GROUND_TRUTH}/{name}", tensor, name=name, stage=GROUND_TRUTH, role="input")
        self._add_outputs()
        self.decisions = add_decisions(
            self.draft, self.truth, modes=(CASCADE,), margins_told=margins_told, stages=tuple(self.truth.produced)
        )

    def _add_outputs(self) -> None:
        for stage, names in self.truth.produced.items():
            tables = [name for name in names if name in self.truth.rows]
            outputs = {name: self.truth.tensors[name] for name in names if name not in tables}
            whole = {name: tensor for name, tensor in outputs.items() if is_draw(name)}
            rest = {name: tensor for name, tensor in outputs.items() if name not in whole}
            self.draft.add_outputs(stage, rest, whole=(), modes=(CASCADE,), sketched=True)
            self.draft.add_outputs(stage, whole, whole=set(whole), modes=(CASCADE,))
            for name in tables:
                self.draft.add_table(stage, name, self.truth.tensors[name], self.truth.rows[name], mode=CASCADE)

    def require_repeatable(self) -> None:
        """Run the truth again on one thread, with the same draws and by its own decisions."""
        self.legacy.configure(**{**TRUTH, "threads": 1})
        again = trained(self.legacy, self.subject, "fp64", steps=REPEATED_STEPS, draws=self.subject.draws)
        self.legacy.configure(**TRUTH)
        for name, tensor in again.tensors.items():
            if not measure(tensor, self.truth.tensors[name]).rel_rms <= REPEATABLE_STEP:
                raise ParityError(
                    f"the legacy engine does not repeat its training in float64: {name} differs on 1 and 2 threads"
                )

    def manifest(self, record_id: str, noise: dict[str, Any] | None) -> dict[str, Any]:
        """Return all of the manifest but the tensors' entries; ``noise`` says how it was measured."""
        batch = self.batch
        described = described_run(self.case, record_id, batch, self.legacy, fills=self.fills)
        described["settings"] = self.settings
        described["weights"].update(sha256=self.weights, shapes=self.shapes, constants=self.constants)
        described["batch"].update(objects=batch.objects, steps=batch.steps, per_step=batch.per_step)
        if batch.ranks > 1:
            described["batch"].update(ranks=batch.ranks)
        return {
            **described,
            **said_of(self.checks, self.case),
            "decisions": self.decisions,
            "islands": self.truth.islands,
            "rows": self.draft.rows,
            "noise": noise,
        }


def _require_agreement(truth: Run) -> None:
    """Raise ``ParityError`` where several processes did not end with the same parameters: no truth of any of them."""
    if AGREE in truth.tensors and not bool(truth.tensors[AGREE]):
        raise ParityError("the legacy engine's processes end with different parameters: they do not train together")


def adaptive_steps(truth: Run, shapes: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Return by how much one element alone may move a parameter's sketch in float32, by parameter.

    Adam divides each gradient by its own size. One that is smaller than its float32 noise may come out with
    either sign, and its element then moves by its learning rate one way or the other: a cliff, of which a few
    noise runs show too little.
    """
    if "Adam" not in bytes(truth.tensors["optimizer"].tolist()).decode():
        return {}
    rates = dict(
        zip(truth.rows["settings"], truth.tensors["settings"][:, 1 + SETTINGS.index("lr")].tolist(), strict=True)
    )
    return {name: 2.0 * rate / max(1.0, math.prod(shapes[name]) / WIDTH) ** 0.5 for name, rate in rates.items()}
