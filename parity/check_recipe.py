"""Judge the new engine's recipe against a frozen one. One function a stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from parity.cases.base import INITIALISATION, SCHEDULE, SETTINGS, TRAIN_IMAGES, TRAIN_PIPELINE, Case, base_name
from parity.compare.budgets import allowance
from parity.compare.known import known_deviations
from parity.compare.laws import compare_laws, compare_texts, laws_of, plain_text
from parity.compare.pipeline import other_questions
from parity.compare.schedule import differences
from parity.compare.stage import compare_tensors
from parity.engines.session import Session
from parity.records.kinds import ISOLATED
from parity.records.layout import StoredTensors
from parity.records.store import Record
from parity.report.results import StageResult, TensorResult
from parity.settings.judge import Texts, results, table

# The new engine draws with other seeds than the legacy one: with the same ones two engines that draw in the same
# order would have the same values, and the test of their laws would test nothing.
OTHER_SEEDS = 1000
TABLES = ("names", "law", "fixed", "quantiles")


@dataclass(frozen=True)
class Judged:
    """What a stage's check found."""

    tensors: tuple[TensorResult, ...]
    notes: tuple[str, ...] = ()


def check_recipe(session: Session, case: Case, record: Record, stages: Sequence[str]) -> Iterator[StageResult]:
    """Yield the result of every given stage, or of all that the case declares."""
    stored = StoredTensors(record)
    for stage in stages:
        start = time.perf_counter()
        judged = CHECKS[stage](session, case, stored)
        seconds = round(time.perf_counter() - start, 3)
        device = session.engine.device
        blank = StageResult(case.id, record.id, stage, ISOLATED, "fp64", device, seconds, judged.tensors)
        yield replace(blank, notes=(*judged.notes, *known_deviations(judged.tensors)))


def check_schedule(session: Session, case: Case, stored: StoredTensors) -> Judged:
    """Compare the rates exactly (to float64's rounding), and say at which iterations they differ."""
    run = session.recipe(case.id, SCHEDULE)
    iterations, expected = stored[f"{SCHEDULE}/iterations"], stored[f"{SCHEDULE}/learning_rate_at"]
    rates = run.tensors["learning_rate"]
    run.tensors["learning_rate_at"] = rates[iterations[iterations < len(rates)]]
    tensors = compare_tensors(run, stored, case, stage=SCHEDULE, mode=ISOLATED, dtype="fp64")
    actual = run.tensors["learning_rate_at"]
    if actual.shape != expected.shape:
        groups = f"{rates.shape[1]} base rates, expected {expected.shape[1]}"
        length = f"{len(rates)} iterations, expected {stored.record.manifest['recipe'][SCHEDULE]['iterations']}"
        return Judged(tensors, (f"the schedules are not of one form: {length}; {groups}",))
    entry = stored.record.entries[f"{SCHEDULE}/learning_rate_at"]
    limit = allowance("fp64", ISOLATED, expected_max=entry.max, expected_rms=entry.rms, measured=None).max
    return Judged(tensors, differences(actual, expected, iterations, allowance=limit))


def check_initialisation(session: Session, case: Case, stored: StoredTensors) -> Judged:
    """Compare the law of every parameter's initial values, and the names of the checkpoints they give way to."""
    seeds = len(stored.record.manifest["recipe"][INITIALISATION]["seeds"])
    run = session.recipe(case.id, INITIALISATION, seeds=list(range(OTHER_SEEDS, OTHER_SEEDS + seeds)))
    frozen = {name: stored[f"{INITIALISATION}/{name}"] for name in (*TABLES, "pretrained")}
    actual = laws_of(run.tensors, seeds=seeds, sample="samples")
    expected = laws_of(frozen, seeds=seeds, sample="quantiles")
    checkpoints = compare_texts("pretrained", run.tensors["pretrained"], frozen["pretrained"])
    return Judged((checkpoints, *compare_laws(actual, expected)))


def check_train_pipeline(session: Session, case: Case, stored: StoredTensors, *, stage: str) -> Judged:
    """Show the new engine's pipeline the same files with the same draws, and compare everything."""
    record = stored.record
    files = [stored[key].numpy().tobytes() for key in record.image_files(stage)]
    forced = {
        entry.name: stored[key]
        for key, entry in record.entries.items()
        if entry.stage == stage and base_name(entry.name) == "draws"
    }
    annotations = stored[f"{stage}/annotations"].numpy().tobytes()
    facts = record.manifest["recipe"][stage]
    settings = {name: facts[name] for name in ("epochs", "seed")}
    run = session.recipe(case.id, stage, files=files, annotations=annotations, forced=forced, **settings)
    tensors = compare_tensors(run, stored, case, stage=stage, mode=ISOLATED, dtype="fp64")
    return Judged(tensors, other_questions(run.tensors, forced))


def check_settings(session: Session, case: Case, stored: StoredTensors) -> Judged:
    """Pair every setting of both configs, and compare what is in force."""
    run = session.recipe(case.id, SETTINGS)
    frozen = {name: stored[f"{SETTINGS}/{name}"] for name in run.tensors}
    return Judged(*results(table(case, _texts(run.tensors), _texts(frozen))))


def _texts(tensors: Mapping[str, Tensor]) -> Texts:
    return Texts(*(plain_text(tensors[name]) for name in ("dialect", "config", "in_force")))


CHECKS: dict[str, Callable[[Session, Case, StoredTensors], Judged]] = {
    SCHEDULE: check_schedule,
    INITIALISATION: check_initialisation,
    TRAIN_PIPELINE: partial(check_train_pipeline, stage=TRAIN_PIPELINE),
    TRAIN_IMAGES: partial(check_train_pipeline, stage=TRAIN_IMAGES),
    SETTINGS: check_settings,
}
