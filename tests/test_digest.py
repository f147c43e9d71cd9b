"""What is kept of a tensor: samples, and block sums that no single change escapes."""

from __future__ import annotations

import hashlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parity.records.digest import (
    BLOCK,
    SAMPLES,
    WHOLE_UP_TO,
    kept,
    kinds_for,
    projections,
    sample_indices,
    samples,
    signs,
)

PINNED_PLACES = [427135, 303732, 430808, 223440]
PINNED_SHA = "3f0216b013105b1f"
PINNED_SIGNS = "adbfb114addb4f96"


def counts(*, smallest: int = 1, greatest: int = 5 * BLOCK + 3) -> st.SearchStrategy[int]:
    return st.integers(smallest, greatest)


@given(counts(), st.data())
def test_a_change_of_one_element_moves_one_projection_by_an_eighth_of_it(count: int, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, count - 1))
    tensor = torch.zeros(count)
    changed = tensor.clone()
    changed[place] += 4.0
    moved = projections("a", changed) - projections("a", tensor)
    assert moved.nonzero().flatten().tolist() == [place // BLOCK]
    assert abs(float(moved[place // BLOCK])) == 0.5


@given(counts())
def test_there_is_one_projection_a_block(count: int) -> None:
    found = projections("a", torch.ones(count, 1, dtype=torch.float32))
    assert found.shape == (-(-count // BLOCK),)
    assert found.dtype is torch.float64


@given(counts(smallest=1000, greatest=4000))
def test_signs_are_plus_and_minus_one_about_evenly(count: int) -> None:
    found = signs("a", count)
    assert set(found.tolist()) == {-1.0, 1.0}
    assert abs(float(found.mean())) < 0.15


@given(counts(), counts())
def test_the_first_signs_do_not_depend_on_how_many_are_asked_for(few: int, more: int) -> None:
    common = min(few, more)
    assert signs("a", few)[:common].tolist() == signs("a", more)[:common].tolist()


def test_signs_depend_on_the_name() -> None:
    assert signs("a", 64).tolist() != signs("b", 64).tolist()


def test_sample_places_are_pinned() -> None:
    """Records hold what lies at these places: another place is another schema."""
    places = sample_indices("hidden_states[0]", 460_800)
    assert places[:4].tolist() == PINNED_PLACES
    assert hashlib.sha256(places.numpy().astype("<i8").tobytes()).hexdigest()[:16] == PINNED_SHA
    assert hashlib.sha256(signs("hidden_states[0]", 4096).numpy().tobytes()).hexdigest()[:16] == PINNED_SIGNS


@given(counts())
def test_sample_places_lie_in_the_tensor(count: int) -> None:
    places = sample_indices("a", count)
    assert places.shape == (SAMPLES,)
    assert 0 <= int(places.min()) <= int(places.max()) < count


def test_samples_are_entries_in_their_own_dtype() -> None:
    tensor = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    found = samples("a", tensor.t())
    assert found.dtype is torch.float32
    assert found.tolist() == tensor.t().flatten()[sample_indices("a", 24)].tolist()


@pytest.mark.parametrize("count", [0, 1, WHOLE_UP_TO])
def test_a_small_tensor_is_kept_whole(count: int) -> None:
    assert kinds_for(torch.zeros(count), needed_whole=False) == ("whole",)


def test_a_large_tensor_is_digested_unless_it_is_needed() -> None:
    large = torch.zeros(WHOLE_UP_TO + 1)
    assert kinds_for(large, needed_whole=False) == ("samples", "projections")
    assert kinds_for(large, needed_whole=True) == ("whole",)


def test_a_large_tensor_of_integers_is_kept_whole() -> None:
    assert kinds_for(torch.zeros(WHOLE_UP_TO + 1, dtype=torch.int64), needed_whole=False) == ("whole",)


def test_kept_of_the_whole_is_the_tensor_itself() -> None:
    tensor = torch.rand(3)
    assert kept("whole", "a", tensor) is tensor
    assert kept("projections", "a", tensor).tolist() == projections("a", tensor).tolist()
