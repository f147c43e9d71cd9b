"""Weight rules drafted without a checkpoint for the stock detectors, held against those that are proven."""

from __future__ import annotations

import pytest

from parity.cases.registry import find_case
from parity.drafting.match import AMBIGUOUS, match
from parity.engines.session import Session
from parity.weights.plan import BACKWARD, plan

ENOUGH = 0.95  # of the keys


@pytest.mark.parametrize("case_id", ["stock_deformable_detr_r50_50e", "stock_fcos_r50_1x"])
def test_drafted_keys_are_right_and_none_is_wrong_silently(case_id: str) -> None:
    case = find_case(case_id)
    targets = Session(case.new).load(case_id, "fp32")
    inverses = [rule for rule in (each.inverse() for each in case.rules) if rule is not None]
    proven = {step.targets[0]: step.sources[0] for step in plan(targets, inverses, ends=BACKWARD)}
    legacy = {source: targets[target] for source, target in proven.items()}
    found = match(legacy, targets, source_values={}, target_values={})
    wrong = [pair for pair in found.pairs if proven[pair.source] != pair.target]
    assert len(found.pairs) - len(wrong) >= ENOUGH * len(legacy)
    assert {pair.how for pair in wrong} <= {AMBIGUOUS}
