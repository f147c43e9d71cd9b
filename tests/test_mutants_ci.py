"""The harness notices thirty planted bugs, and names the stage of each; see docs/mutants.md for all of them."""

from __future__ import annotations

import functools

import pytest

from parity.cases.registry import find_case
from parity.mutants.base import Mutant
from parity.mutants.bench import Bench
from parity.mutants.registry import built_in
from parity.mutants.selections import select
from parity.records.locate import default_fixtures

SELECTED = select(built_in(), "ci")
PAIRS = [
    (mutant, case)
    for case in ("ddq_fcn_r50_12e", "ddq_rcnn_r50_12e", "ddq_detr_5scale_r50_12e")
    for mutant in SELECTED
    if mutant.concerns(case)
]


@functools.lru_cache(maxsize=1)  # one case's detector at a time
def bench(case: str) -> Bench:
    return Bench(find_case(case), default_fixtures())


@pytest.mark.parametrize(("mutant", "case"), PAIRS, ids=[f"{mutant.id}-{case}" for mutant, case in PAIRS])
def test_a_planted_bug_is_caught_in_its_stage(mutant: Mutant, case: str) -> None:
    here = bench(case)
    with mutant.apply():
        catch = here.judge(here.checker_for(mutant))
    assert catch is not None, f"{mutant.id} survived: {mutant.why}"
    assert catch.stage == mutant.stage
    here.verify(catch.mode, catch.dtype)
