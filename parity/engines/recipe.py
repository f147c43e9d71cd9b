"""What is asked of an engine about the set-up of its training: one function a stage. Runs in both interpreters."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from functools import partial
from typing import Any, Callable, Dict, Iterator, Sequence

from parity.cases.base import INITIALISATION, SCHEDULE, SETTINGS, TRAIN_IMAGES, TRAIN_PIPELINE, Case
from parity.engines import initialisation
from parity.engines.base import Engine, Run
from parity.engines.numerics import in_force
from parity.engines.train_pipeline import train_pipeline
from parity.engines.training_setup import settings


def schedule(engine: Engine, case: Case) -> Run:
    """Return the rates of every iteration of the published schedule (see ``engines.schedules``)."""
    rates = engine.schedule(case)
    return Run(dict(rates), produced={SCHEDULE: tuple(rates)})


def initialise(engine: Engine, case: Case, seeds: Sequence[int]) -> Run:
    """Return the laws of the initial values over the seeds (see ``engines.initialisation``)."""
    make, checkpoints = engine.initialiser(case)
    with in_force({"threads": 1}):  # random numbers come one by one; more threads only wait for each other
        laws = initialisation.tables(initialisation.gather(make, seeds))
    laws["pretrained"] = initialisation.text("\n".join(checkpoints))
    return Run(laws, produced={INITIALISATION: tuple(laws)})


STAGES: Dict[str, Callable[..., Run]] = {
    SCHEDULE: schedule,
    INITIALISATION: initialise,
    TRAIN_PIPELINE: train_pipeline,
    TRAIN_IMAGES: partial(train_pipeline, stage=TRAIN_IMAGES),
    SETTINGS: settings,
}


def run(engine: Engine, case: Case, stage: str, arguments: Dict[str, Any]) -> Run:
    """Run one stage of the recipe, without the engines' log lines: there are several for each parameter."""
    with _without_logs():
        return STAGES[stage](engine, case, **arguments)


@contextmanager
def _without_logs() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
