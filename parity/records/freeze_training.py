"""Freeze a training record: one step of the legacy engine, or a trajectory of several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from parity.cases.base import Case, TrainingBatch
from parity.compare.tensors import measure
from parity.engines.base import Run
from parity.engines.host import RemoteSession
from parity.engines.numerics import Settings, Value
from parity.engines.ranks import Ranks
from parity.engines.session import Shapes
from parity.engines.training import AGREE, SETTINGS
from parity.errors import ParityError
from parity.records.draft import Draft
from parity.records.freeze import (
    TRUTH,
    Frozen,
    Progress,
    add_decisions,
    add_files,
    described_run,
    require_recorded_draws,
)
from parity.records.images import drawn_objects, encoded_images
from parity.records.kinds import CASCADE, GROUND_TRUTH, checks_of_batch, draws_among, is_draw, said_of
from parity.taps.sketch import WIDTH

# Two float64 runs of a training step count as the same up to here: an optimiser that divides a gradient by
# its own size (Adam) makes rounding errors of a gradient that should be zero visible in the parameters.
REPEATABLE_STEP = 1e-9
REPEATED_STEPS = 2  # of a trajectory

# As (threads, oneDNN): a step is dear, so two runs that differ in both; every parameter's layers share what they show.
NOISE_RUNS = ((1, True), (2, False))


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
    noise = []
    for threads, onednn in NOISE_RUNS if batch.steps == 1 and not brief else ():
        progress(f"float32 noise: {threads} thread{'s' * (threads > 1)}, oneDNN {'on' if onednn else 'off'}")
        noise.append(freezer.add_noise(threads, onednn))
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
        self.shapes: Shapes = {}
        self.truth = self._run("fp64", threads=TRUTH["threads"], onednn=TRUTH["onednn"])
        require_recorded_draws(self.truth)
        self.truth_settings = self.settings
        _require_agreement(self.truth)
        self.forced = {name: decision.chosen for name, decision in self.truth.decisions.items()}
        add_files(self.draft, self.files)
        for name, tensor in self.objects.items():
            self.draft.add(f"{GROUND_TRUTH}/{name}", tensor, name=name, stage=GROUND_TRUTH, role="input")
        self._add_outputs()
        self.decisions = add_decisions(
            self.draft, self.truth, modes=(CASCADE,), margins_told=margins_told, stages=tuple(self.truth.produced)
        )

    def _run(self, dtype: str, *, threads: Value, onednn: Value, steps: int = 0, **given: Any) -> Run:
        """Train a model that is filled anew; ``steps`` of the trajectory, or all of it."""
        self.settings = self.legacy.configure(threads=threads, onednn=onednn, tf32=False)
        self.shapes = self.legacy.load(self.case.id, dtype)  # anew: running DDQ DETR leaves modules on it
        self.weights = self.legacy.fill(self.batch.seed, self.fills)
        self.constants = self.legacy.constants()
        pixels = self.legacy.preprocess(self.files, self.batch.scale)
        data = {**pixels.tensors, **self.objects}
        return self.legacy.train(
            data, steps=min(steps or self.batch.steps, self.batch.steps), per_step=self.batch.per_step, **given
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
        again = self._run("fp64", threads=1, onednn=True, steps=REPEATED_STEPS, draws=draws_among(self.truth.tensors))
        for name, tensor in again.tensors.items():
            if not measure(tensor, self.truth.tensors[name]).rel_rms <= REPEATABLE_STEP:
                raise ParityError(
                    f"the legacy engine does not repeat its training in float64: {name} differs on 1 and 2 threads"
                )

    def add_noise(self, threads: int, onednn: bool) -> Settings:
        """Train in float32 with the truth's draws and choices; note the error of each array.

        Returns:
            the settings of that run, as the legacy engine read them back.
        """
        draws = draws_among(self.truth.tensors)
        run = self._run("fp32", threads=threads, onednn=onednn, draws=draws, forced=self.forced)
        for stage in self.truth.produced:
            self.draft.note_noise(stage, CASCADE, run)
            self.draft.note_table_noise(stage, run)
        self.draft.raise_table_noise("parameters", adaptive_steps(self.truth, self.shapes))
        return self.settings

    def manifest(self, record_id: str, noise: Sequence[Settings]) -> dict[str, Any]:
        """Return all of the manifest but the tensors' entries; ``noise`` are the settings of the float32 runs."""
        batch = self.batch
        described = described_run(self.case, record_id, batch, self.legacy, fills=self.fills)
        described["settings"] = self.truth_settings
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
            "noise_runs": list(noise),
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
