"""Measure the noise of a record anew, and reproduce its truth: the truth's own files stay as they are.

The legacy engine runs in float64 once, which has to give what the record holds, with settings that are read back; then
in float32, fed the stored truth.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from torch import Tensor

from parity.cases.base import PREPROCESS, TRAJECTORY, Case, Stage, TrainingBatch
from parity.compare.stage import compare_decisions
from parity.compare.tensors import measure
from parity.engines.base import Run
from parity.engines.host import RemoteSession
from parity.engines.numerics import Settings
from parity.engines.ranks import Ranks
from parity.errors import ParityError
from parity.records.draft import Draft
from parity.records.freeze import TRUTH, Frozen
from parity.records.freeze_recipe import freeze_recipe
from parity.records.freeze_training import REPEATABLE_STEP, REPEATED_STEPS, adaptive_steps
from parity.records.kinds import CASCADE, GROUND_TRUTH, INFERENCE, RECIPE, TRAINING, draws_among, is_draw, said_of
from parity.records.layout import REPEATABLE, StoredTensors, recorded_part, stored_inputs
from parity.records.noise import (
    FURTHER,
    FURTHER_OF_TRAINING,
    TRAINING_WAYS,
    WAYS,
    Floor,
    Inference,
    Progress,
    Training,
    trained,
)
from parity.records.store import Record


def remeasure(case: Case, record: Record, legacy: RemoteSession | Ranks, *, progress: Progress) -> Frozen:
    """Return a record's manifest, entries and tensors with its noise measured anew, and its truth reproduced.

    Raises:
        ParityError: the legacy engine does not give what the record holds, or fails.
    """
    measured = {INFERENCE: _inference, TRAINING: _training, TRAJECTORY: _trajectory, RECIPE: _recipe}
    draft, said = measured[record.kind](_Known(case, record), legacy, progress)
    kept = {key: value for key, value in record.manifest.items() if key != "noise_runs"}
    kept.update(said_of(record.checks(case), case))
    return {**kept, **said}, draft.entries, draft.tensors


@dataclass(frozen=True)
class _Known:
    """A record that is measured anew, and what is read from it."""

    case: Case
    record: Record

    @property
    def stored(self) -> StoredTensors:
        return StoredTensors(self.record)

    def files(self) -> list[bytes]:
        """Return the encoded images of the batch."""
        return [self.record.tensor(key).numpy().tobytes() for key in self.record.image_files(PREPROCESS)]

    def forced(self) -> dict[str, Tensor]:
        """Return the truth's choices."""
        return {name: self.record.tensor(f"{name}/chosen") for name in self.record.manifest["decisions"]}

    def draft(self) -> Draft:
        """Return the record as a draft without any noise."""
        entries = {key: replace(entry, noise={}) for key, entry in self.record.entries.items() if entry.role != "noise"}
        rows = {label: list(names) for label, names in self.record.manifest.get("rows", {}).items()}
        return Draft(self.case, entries, {key: self.record.tensor(key) for key in entries}, rows)

    def require_weights(self, legacy: RemoteSession | Ranks) -> None:
        """Raise ``ParityError`` where the weights are not those that the truth was computed with."""
        weights = self.record.manifest["weights"]
        legacy.load(self.case.id, "fp64")
        if legacy.fill(int(weights["seed"]), weights.get("fills", ())) != weights["sha256"]:
            raise ParityError(
                f"{self.record.folder}: the legacy engine's weights come out different from those it was frozen with;"
                " the case's fill rules or numpy changed: freeze it again"
            )

    def step(self) -> Training:
        """Return the training that the record is of."""
        asked, record = self.record.manifest["batch"], self.record
        keys = record.keys(stage=GROUND_TRUTH, role="input")
        objects = {record.entries[key].name: record.tensor(key) for key in keys}
        batch = TrainingBatch(
            int(asked["seed"]), scale=tuple(asked["scale"]), steps=int(asked["steps"]), per_step=int(asked["per_step"])
        )
        drawn = {entry.name: record.tensor(key) for key, entry in record.entries.items() if is_draw(entry.name)}
        fills = record.manifest["weights"].get("fills", [])
        return Training(self.case, batch, self.files(), objects, fills, draws_among(drawn), self.forced())


def _inference(known: _Known, legacy: RemoteSession | Ranks, progress: Progress) -> tuple[Draft, dict[str, Any]]:
    assert isinstance(legacy, RemoteSession)  # only training takes several processes
    record, draft, files, forced = known.record, known.draft(), known.files(), known.forced()
    checks, scale = record.checks(known.case), record.manifest["batch"]["scale"]
    stages = [stage for stage in known.case.stages_of(known.case.legacy) if stage.name in checks.stages]
    progress("float64 truth")
    settings = legacy.configure(**TRUTH)
    known.require_weights(legacy)
    pixels = legacy.preprocess(files, scale)
    cascade = legacy.cascade(pixels.tensors, forced=forced) if stages else Run({})
    again = Run({**pixels.tensors, **cascade.tensors}, cascade.decisions)
    reproduced = _reproduced(known, draft, again, legacy, settings, limit=REPEATABLE)
    stored = known.stored

    def inputs(stage: Stage) -> Mapping[str, Tensor]:
        return stored_inputs(stage, stored)

    weights = record.manifest["weights"]
    subject = Inference(
        known.case, stages, checks, files, scale, int(weights["seed"]), weights.get("fills", ()), inputs, forced
    )
    noise = Floor(draft, subject, legacy).measure(WAYS, FURTHER, progress=progress)
    return draft, {"noise": noise, "reproduced": reproduced}


def _training(known: _Known, legacy: RemoteSession | Ranks, progress: Progress) -> tuple[Draft, dict[str, Any]]:
    draft, step = known.draft(), known.step()
    again, reproduced = _trained_again(known, draft, step, legacy, progress)
    noise = Floor(draft, step, legacy).measure(TRAINING_WAYS, FURTHER_OF_TRAINING, progress=progress)
    draft.raise_table_noise("parameters", adaptive_steps(again, known.record.manifest["weights"]["shapes"]))
    return draft, {"noise": noise, "reproduced": reproduced}


def _trajectory(known: _Known, legacy: RemoteSession | Ranks, progress: Progress) -> tuple[Draft, dict[str, Any]]:
    """Reproduce the first steps; it has no noise, as float32 engines part ways at the first tie."""
    draft = known.draft()
    _, reproduced = _trained_again(known, draft, replace(known.step(), forced={}), legacy, progress)
    return draft, {"noise": None, "reproduced": {**reproduced, "steps": REPEATED_STEPS}}


def _trained_again(
    known: _Known, draft: Draft, step: Training, legacy: RemoteSession | Ranks, progress: Progress
) -> tuple[Run, dict[str, Any]]:
    progress("float64 truth")
    settings = legacy.configure(**TRUTH)
    known.require_weights(legacy)
    again = trained(legacy, step, "fp64", steps=REPEATED_STEPS, draws=step.draws, forced=step.forced or None)
    if step.batch.steps > REPEATED_STEPS:
        known = replace(known, record=known.record.until_step(REPEATED_STEPS))
    return again, _reproduced(known, draft, again, legacy, settings, limit=REPEATABLE_STEP)


def _recipe(known: _Known, legacy: RemoteSession | Ranks, progress: Progress) -> tuple[Draft, dict[str, Any]]:
    """Reproduce all of it by making it anew; nothing of it is a float32 run of the detector."""
    assert isinstance(legacy, RemoteSession)
    manifest, entries, tensors = freeze_recipe(known.case, legacy, progress=progress)
    draft = known.draft()
    worst = _Worst(str(known.record.folder))
    for key, entry in draft.entries.items():
        if entry.role == "image":
            continue  # written anew, with what its format holds of the time
        if key not in entries or entries[key].shape != draft.entries[key].shape:
            raise ParityError(f"{known.record.folder}: the legacy engine gives no {key} like the record's any more")
        worst.add(key, tensors[key], draft.tensors[key], limit=REPEATABLE)
    return draft, {"noise": None, "reproduced": _said(worst, legacy, manifest["settings"], REPEATABLE)}


class _Worst:
    """The greatest relative RMS error that was met on the way."""

    def __init__(self, what: str) -> None:
        self.what, self.error, self.count = what, 0.0, 0

    def add(self, key: str, actual: Tensor, expected: Tensor, *, limit: float) -> None:
        """Measure one array.

        Raises:
            ParityError: it is not what the record holds.
        """
        same = actual.shape == expected.shape
        error = measure(actual, expected).rel_rms if same else float("inf")
        if not error <= limit:
            raise ParityError(
                f"{self.what}: the legacy engine does not reproduce the truth: {key} differs by {error:.1e} of its"
                f" size, {limit:g} may be; the noise stays as it was"
            )
        self.error, self.count = max(self.error, error), self.count + 1


def _reproduced(
    known: _Known, draft: Draft, again: Run, legacy: RemoteSession | Ranks, settings: Settings, *, limit: float
) -> dict[str, Any]:
    """Compare a float64 run with all that the record holds of it; return what the manifest says of that."""
    worst = _Worst(str(known.record.folder))
    for key, entry in _of_the_whole_run(known):
        actual = recorded_part(entry, key, again, draft.tensors)
        if actual is None:
            raise ParityError(f"{known.record.folder}: the legacy engine gives no {key} any more")
        worst.add(key, actual, draft.tensors[key], limit=limit)
    _require_choices(known, again)
    return _said(worst, legacy, settings, limit)


def _require_choices(known: _Known, again: Run) -> None:
    """Raise ``ParityError`` where a float64 run chooses otherwise; an order that is left open is free."""
    case, stored = known.case, known.stored
    for stage in dict.fromkeys(said["stage"] for said in known.record.manifest["decisions"].values()):
        if stage not in known.record.checks(case).stages:
            continue
        for result in compare_decisions(again, stored, case, stage=stage, mode=CASCADE, dtype="fp64"):
            if not result.verdict.passes:
                raise ParityError(
                    f"{known.record.folder}: the legacy engine does not reproduce the truth: {result.name} chooses"
                    f" otherwise ({result.note or result.verdict}); the noise stays as it was"
                )


def _of_the_whole_run(known: _Known) -> Iterator[tuple[str, Any]]:
    """Yield the arrays that a run from the pixels on gives: outputs, and what decisions chose from."""
    for key, entry in known.record.entries.items():
        of_decision = entry.role == "decision" and key.endswith(("/scores", "/boxes"))
        of_cascade = not entry.modes or CASCADE in entry.modes
        if of_cascade and (entry.role == "output" or of_decision):
            yield key, entry


def _said(worst: _Worst, legacy: RemoteSession | Ranks, settings: Settings, limit: float) -> dict[str, Any]:
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "engine": legacy.fingerprint(),
        "settings": settings,
        "arrays": worst.count,
        "greatest_rel_rms": worst.error,
        "limit": limit,
    }
