"""Matchings (Hungarian and its copies) as decisions: recorded, forced, judged."""

from typing import Any

import pytest
import scipy.optimize
import torch

from parity.compare.decisions import Choice, Tolerance, judge, margins
from parity.engines.base import Run
from parity.records.draft import as_choice
from parity.records.layout import recorded_part
from parity.records.store import Entry
from parity.taps.decisions import Decision, DecisionTaps


def costs(rows: int = 40, columns: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.rand(rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def decide(cost: torch.Tensor, forced: Any = None) -> tuple[Any, Decision]:
    with DecisionTaps(lambda: "loss", forced) as taps:
        pairs = scipy.optimize.linear_sum_assignment(cost.numpy())
    return pairs, taps.decisions["loss.assignment.0"]


def frozen(cost: torch.Tensor) -> Choice:
    return as_choice(decide(cost)[1])


def test_a_matching_is_recorded_as_pairs() -> None:
    (rows, columns), decision = decide(costs())
    assert sorted(decision.chosen.tolist()) == sorted((rows * 3 + columns).tolist())
    assert decision.settings == {"columns": 3.0}


def test_a_given_matching_is_gone_on_with() -> None:
    chosen = torch.tensor([0 * 3 + 1, 7 * 3 + 0, 9 * 3 + 2])
    (rows, columns), decision = decide(costs(), {"loss.assignment.0": chosen})
    assert rows.tolist() == [0, 7, 9]
    assert columns.tolist() == [1, 0, 2]
    assert decision.chosen.tolist() != chosen.tolist()  # it still decides for itself, and that is recorded


def test_copies_of_a_column_are_one_choice() -> None:
    cost = costs(12, 2).repeat_interleave(3, dim=1)
    (rows, columns), decision = decide(cost)
    assert len(rows) == 6
    assert {int(pair) % 6 for pair in decision.chosen} == {0, 3}
    (again, same), _ = decide(cost, {"loss.assignment.0": decision.chosen})
    assert (again.tolist(), sorted(same.tolist())) == (rows.tolist(), sorted(columns.tolist()))


def test_which_of_two_equal_objects_a_pair_is_about_is_gone_on_with() -> None:
    cost = torch.tensor([[0.0, 0.0], [0.0, 0.0], [9.0, 9.0]], dtype=torch.float64)  # either row may have either object
    (rows, columns), decision = decide(cost)
    assert decision.chosen.tolist() == [2 * int(row) for row in rows[columns.argsort()]]
    for pairs in ([0, 2], [2, 0]):
        (rows, columns), _ = decide(cost, {"loss.assignment.0": torch.tensor(pairs)})
        assert rows.tolist() == [0, 1]
        assert columns.tolist() == [pairs.index(0), pairs.index(2)]


def test_a_matching_that_does_not_fit_is_refused() -> None:
    (rows, _), decision = decide(costs(), {"loss.assignment.0": torch.tensor([1, 4, 7])})  # column 1 three times
    assert len(rows) == 3
    assert "no column for" in decision.refused


def test_the_same_matching_has_no_flip() -> None:
    truth = frozen(costs())
    assert judge(truth.chosen.flip(0), truth, tolerance=Tolerance(0.0)).flips == 0


def test_a_tie_is_certified_and_its_price_is_told() -> None:
    cost = costs()
    best = int(cost[:, 0].argmin())
    cost[(best + 1) % 40, 0] = cost[best, 0] + 1e-9
    truth = frozen(cost)
    actual = torch.tensor([((best + 1) % 40) * 3 if int(p) == best * 3 else int(p) for p in truth.chosen])
    judged = judge(actual, truth, tolerance=Tolerance(1e-8))
    assert (judged.flips, judged.uncertified) == (2, 0)
    assert judged.needed == pytest.approx(0.5e-9, rel=1e-3)
    assert judge(actual, truth, tolerance=Tolerance(1e-10)).uncertified == 2


@pytest.mark.parametrize("bad", [[0, 3, 3], [0, 1, 2], [0, 3]])
def test_a_matching_that_uses_a_query_twice_or_too_few_is_no_tie(bad: list[int]) -> None:
    truth = frozen(costs())
    assert judge(torch.tensor(bad), truth, tolerance=Tolerance(1e9)).uncertified > 0


def test_the_margin_is_the_cheapest_single_change() -> None:
    cost = torch.tensor([[0.0, 9.0], [0.25, 9.0], [9.0, 0.0], [9.0, 0.75]], dtype=torch.float64)
    assert margins(frozen(cost)).score == 0.25
    swap = torch.tensor([[0.0, 1.0], [1.5, 2.0]], dtype=torch.float64)  # no other row: only a swap
    assert margins(frozen(swap)).score == 0.5


def test_far_pairs_are_not_kept() -> None:
    truth = frozen(costs(900, 4))
    assert truth.candidates is not None
    assert len(truth.candidates) < 100
    assert judge(truth.chosen, truth, tolerance=Tolerance(0.0)).flips == 0


def test_scores_of_too_few_candidates_come_whole() -> None:
    """An engine that matches fewer copies has a smaller matrix: told as a shape, not a crash."""
    where = {"file": "decisions.safetensors", "meaning": "", "unit": "", "sha256": "", "max": 1.0, "rms": 1.0}
    shape: Any = {"shape": (2,), "of_shape": (2,), "dtype": "float64"}
    entry = Entry("loss.assignment.0.scores", "loss", "decision", "whole", ("cascade",), **shape, **where)
    stored = {"loss.assignment.0/candidates": torch.tensor([3, 7])}
    for count, expected in ((10, [3.0, 7.0]), (6, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0])):
        scores = torch.arange(count, dtype=torch.float64)
        decision = Decision("assignment", scores, torch.tensor([0]), settings={"columns": 2.0})
        run = Run({}, {"loss.assignment.0": decision})
        part = recorded_part(entry, "loss.assignment.0/scores", run, stored)
        assert part is not None
        assert part.tolist() == expected
