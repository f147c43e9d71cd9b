"""A gradient norm that is NaN: the known deviation explains what it has to, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from parity.cases.base import GRADIENTS, OPTIMIZER_STEP
from parity.cases.registry import find_case
from parity.compare.stage import compare_tensors
from parity.compare.verdicts import worst
from parity.engines.base import Run
from parity.records.layout import StoredTensors
from parity.records.locate import default_fixtures
from parity.records.store import Record

CASE = find_case("ddq_rcnn_r50_36e")


@pytest.fixture
def stored() -> StoredTensors:
    return StoredTensors(Record(default_fixtures() / CASE.id / "train-no-object"))


@pytest.fixture
def spread(stored: StoredTensors) -> Run:
    """What torch 1.10 and later make of the legacy engine's step: every number of every trained parameter is NaN."""
    record = stored.record
    keys = list(record.keys(stage=OPTIMIZER_STEP, role="output", mode="cascade"))
    run = Run({record.entries[key].name: stored[key].clone() for key in keys})
    run.tensors["norm.nonfinite"] = torch.tensor(1)
    run.rows = {name: tuple(record.rows(f"{OPTIMIZER_STEP}/{name}")) for name in ("parameters", "settings")}
    run.rows[GRADIENTS] = tuple(record.rows(f"{GRADIENTS}/{GRADIENTS}"))
    numbers = (run.tensors["parameters"] != 0.0) & trained(run)[:, None]
    run.tensors["parameters.nonfinite"][numbers] = 1
    run.tensors["parameters"][numbers] = 0.0
    return run


def trained(run: Run) -> torch.Tensor:
    return torch.tensor([row in set(run.rows[GRADIENTS]) for row in run.rows["parameters"]])


def judge(run: Run, stored: StoredTensors, deviations: tuple[object, ...] = CASE.deviations) -> tuple[bool, str]:
    case = replace(CASE, deviations=deviations)
    results = compare_tensors(run, stored, case, stage=OPTIMIZER_STEP, mode="cascade", dtype="fp64")
    notes = [
        result.deviation or result.note for result in results if result.deviation or result.name.startswith("stale")
    ]
    return worst(result.verdict for result in results).passes, "".join(notes)


def test_it_passes_where_it_is_declared_and_is_told(spread: Run, stored: StoredTensors) -> None:
    passes, note = judge(spread, stored)
    assert passes
    assert note.count("the gradient norm NaN: torch 1.9 then clips nothing") == 2  # of the numbers and of their marks


def test_it_diverges_where_it_is_not_declared(spread: Run, stored: StoredTensors) -> None:
    assert judge(spread, stored, ()) == (False, "")


def test_a_step_like_the_legacys_fails_where_they_are_declared_to_differ(spread: Run, stored: StoredTensors) -> None:
    for name in ("parameters", "parameters.nonfinite"):
        spread.tensors[name] = stored[f"{OPTIMIZER_STEP}/{name}"].clone()
    passes, note = judge(spread, stored)
    assert not passes
    assert note.startswith("the engines agree where they are declared to differ: remove it from the case (without any")
    assert judge(spread, stored, ()) == (True, "")


def nan_in_a_frozen_one(run: Run) -> None:
    run.tensors["parameters.nonfinite"][~trained(run)] = 1


def number_in_a_trained_one(run: Run) -> None:
    row, column = (run.tensors["parameters.nonfinite"] == 1).nonzero()[-1].tolist()
    run.tensors["parameters.nonfinite"][row, column] = 0


def a_norm_that_is_a_number(run: Run) -> None:
    del run.tensors["norm.nonfinite"]


def another_frozen_one(run: Run) -> None:
    run.tensors["parameters"][(~trained(run)).nonzero()[0, 0], 0] += 1e-3


@pytest.mark.parametrize(
    "change", [nan_in_a_frozen_one, number_in_a_trained_one, another_frozen_one, a_norm_that_is_a_number]
)
def test_what_else_differs_diverges(change: Callable[[Run], None], spread: Run, stored: StoredTensors) -> None:
    change(spread)
    assert not judge(spread, stored)[0]
