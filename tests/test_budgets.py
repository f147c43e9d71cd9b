"""The table of budgets, and the order of verdicts."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.compare.budgets import ANY, ROUNDOFF, TABLE, Allowance, Noise, allowance
from parity.compare.verdicts import Verdict, worst

PASSING = ["equal", "within_budget", "certified"]
ORDER = [*PASSING, "inconclusive", "diverged", "nonfinite", "dtype", "shape", "extra", "missing"]


def figures(*, greatest: float = 1e6) -> st.SearchStrategy[float]:
    return st.floats(1e-9, greatest)


def test_every_row_of_the_table_says_where_it_comes_from() -> None:
    kinds = ("isolated", "cascade", "gradient", "update")
    assert set(TABLE) == {("tf32", ANY), *((dtype, kind) for dtype in ("fp64", "fp32") for kind in kinds)}
    assert all(row.multiple > 1.0 and row.source for row in TABLE.values())


def test_gradients_and_updates_have_rows_of_their_own() -> None:
    def limit(stage: str, dtype: str) -> float:
        return allowance(dtype, "cascade", stage=stage, expected_max=1.0, expected_rms=1.0, measured=None).max

    assert limit("gradients", "fp64") == limit("neck", "fp64")
    assert limit("gradients", "fp32") == pytest.approx(4e-3)  # a kink
    assert limit("optimizer_step", "fp64") == limit("trajectory", "fp64") == pytest.approx(1e-9, rel=0.01)


def test_the_float64_row_is_about_1e_12_of_the_truth() -> None:
    allowed = allowance("fp64", "isolated", expected_max=1.0, expected_rms=1.0, measured=None)
    assert 0.9e-12 < allowed.max < 1.1e-12


def test_float64_does_not_look_at_the_float32_noise() -> None:
    without = allowance("fp64", "cascade", expected_max=2.0, expected_rms=1.0, measured=None)
    assert allowance("fp64", "cascade", expected_max=2.0, expected_rms=1.0, measured=Noise(1.0, 1.0)) == without


def test_float32_is_allowed_a_multiple_of_its_noise() -> None:
    allowed = allowance("fp32", "isolated", expected_max=1.0, expected_rms=1.0, measured=Noise(1e-3, 1e-4))
    assert allowed.max == TABLE["fp32", "isolated"].multiple * 1e-3
    assert allowed.rms == TABLE["fp32", "isolated"].multiple * 1e-4


@pytest.mark.parametrize("stage", ["neck", "gradients", "optimizer_step"])
def test_tf32_is_allowed_what_thirteen_bits_less_cost(stage: str) -> None:
    figures = {"expected_max": 1.0, "expected_rms": 1.0, "measured": Noise(1e-7, 1e-7), "stage": stage}
    allowed = allowance("tf32", "cascade", **figures)
    assert allowed.max == pytest.approx(8.0 * 8192.0 * 1e-7)
    assert allowed.max > allowance("fp32", "cascade", **figures).max


@given(figures(), figures())
def test_the_floor_is_never_below_one_rounding_of_the_truth(size: float, noise: float) -> None:
    measured = Noise(noise * 1e-12, noise * 1e-12)
    allowed = allowance("fp32", "cascade", expected_max=size, expected_rms=size / 2, measured=measured)
    assert allowed.floor.max >= ROUNDOFF["fp32"] * size
    assert allowed.floor.rms >= ROUNDOFF["fp32"] * size / 2


@given(figures(), figures(), figures(), figures())
def test_needed_is_the_smallest_multiple_that_passes(error: float, rms: float, top: float, floor: float) -> None:
    noise = Noise(top, floor)
    needed = Allowance(1.0, noise).needed(max_abs=error, rms=rms)
    just, below = Allowance(needed * (1 + 1e-9), noise), Allowance(needed * (1 - 1e-9), noise)
    assert error <= just.max
    assert rms <= just.rms
    assert error > below.max or rms > below.rms


def test_no_error_needs_nothing_even_of_an_empty_floor() -> None:
    assert Allowance(8.0, Noise(0.0, 0.0)).needed(max_abs=0.0, rms=0.0) == 0.0


def test_an_error_where_no_noise_is_needs_infinitely_much() -> None:
    assert Allowance(8.0, Noise(0.0, 0.0)).needed(max_abs=1e-30, rms=0.0) == math.inf


def test_an_rms_error_alone_uses_up_the_budget() -> None:
    assert Allowance(8.0, Noise(1.0, 0.1)).needed(max_abs=1.0, rms=0.9) == pytest.approx(9.0)


def test_verdicts_are_declared_from_best_to_worst() -> None:
    assert [verdict.value for verdict in Verdict] == ORDER


@pytest.mark.parametrize("value", ORDER)
def test_only_three_verdicts_pass(value: str) -> None:
    assert Verdict(value).passes == (value in ("equal", "within_budget", "certified"))


@given(st.lists(st.sampled_from(list(Verdict)), min_size=1))
def test_worst_is_the_one_declared_last(verdicts: list[Verdict]) -> None:
    assert worst(verdicts).value == ORDER[max(ORDER.index(verdict.value) for verdict in verdicts)]


def test_nothing_compared_is_missing() -> None:
    assert worst([]) is Verdict.MISSING
    assert not worst([]).passes
