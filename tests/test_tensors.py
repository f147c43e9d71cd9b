"""``compare.tensors`` against a plain float64 reference."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from parity.compare import tensors
from parity.compare.tensors import measure, relative

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
EXACT = (torch.int64, torch.int32, torch.uint8, torch.bool)


def shapes(*, max_dims: int = 3, max_side: int = 5, min_side: int = 0) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(st.integers(min_side, max_side), max_size=max_dims).map(tuple)


def pairs(*, min_side: int = 0, dtypes: tuple[torch.dtype, ...] = FLOATS + EXACT) -> st.SearchStrategy[Any]:
    """Two tensors of one shape, each of its own dtype and scale."""
    scales = st.sampled_from([1e-6, 1.0, 100.0])
    return st.builds(
        _pair,
        shapes(min_side=min_side),
        st.sampled_from(dtypes),
        st.sampled_from(dtypes),
        scales,
        st.integers(0, 2**31),
    )


def _pair(shape: tuple[int, ...], first: torch.dtype, second: torch.dtype, scale: float, seed: int) -> tuple[Any, Any]:
    generator = torch.Generator().manual_seed(seed)
    expected = (torch.rand(shape, generator=generator, dtype=torch.float64) * scale).to(second)
    noise = torch.rand(shape, generator=generator, dtype=torch.float64) * scale * 0.01
    return (expected.double() + noise).to(first), expected


def close(value: float, *, rel: float = 1e-6) -> Any:
    """Near ``value`` relative to it alone: pytest's default lets everything below 1e-12 pass for zero."""
    return pytest.approx(value, rel=rel, abs=0.0)


def error_of(actual: Tensor, expected: Tensor) -> np.ndarray:
    """The reference: subtract in float64; what float32 cannot hold of a difference is a rounding, tested apart."""
    return np.abs(actual.double().numpy() - expected.double().numpy())


@given(pairs(min_side=1))
def test_greatest_error_is_the_references(pair: tuple[Tensor, Tensor]) -> None:
    found = measure(*pair)
    assert found.max_abs == close(error_of(*pair).max(initial=0.0), rel=1e-6)
    assert found.expected_max == np.abs(pair[1].double().numpy()).max()


@given(pairs())
def test_rms_is_the_references(pair: tuple[Tensor, Tensor]) -> None:
    found, error = measure(*pair), error_of(*pair)
    assert found.count == error.size
    assert found.rms == close(math.sqrt(np.square(error).mean()) if error.size else 0.0, rel=1e-5)
    truth = pair[1].double().numpy()
    assert found.expected_rms == close(math.sqrt(np.square(truth).mean()) if truth.size else 0.0, rel=1e-5)


@given(pairs(min_side=1, dtypes=(torch.float64,)), st.floats(0.0, 0.01))
def test_over_count_is_the_references(pair: tuple[Tensor, Tensor], allowance: float) -> None:
    assert measure(*pair, allowance=allowance).over == int((error_of(*pair) > allowance).sum())


@given(pairs(min_side=1))
def test_worst_index_points_at_the_greatest_error(pair: tuple[Tensor, Tensor]) -> None:
    found = measure(*pair)
    assert len(found.worst_index) == pair[0].dim()
    assert error_of(*pair)[found.worst_index] == close(found.max_abs, rel=1e-6)


@given(pairs(min_side=1, dtypes=(torch.float64,)), st.randoms(use_true_random=False))
def test_a_permutation_of_both_changes_no_figure(pair: tuple[Tensor, Tensor], random: Any) -> None:
    order = list(range(pair[0].numel()))
    random.shuffle(order)
    before = measure(*(t.reshape(-1) for t in pair), allowance=1e-3)
    after = measure(*(t.reshape(-1)[order] for t in pair), allowance=1e-3)
    assert (after.max_abs, after.over, after.count) == (before.max_abs, before.over, before.count)
    assert after.rms == close(before.rms, rel=1e-12)


@given(pairs(min_side=2, dtypes=(torch.float32,)))
def test_a_non_contiguous_tensor_counts_like_its_copy(pair: tuple[Tensor, Tensor]) -> None:
    assume(pair[0].dim() >= 2)
    actual, expected = (tensor.transpose(0, 1) for tensor in pair)
    found, copied = measure(actual, expected), measure(actual.contiguous(), expected.contiguous())
    assert not actual.is_contiguous()
    assert found == copied


@given(pairs())
def test_a_tensor_is_equal_to_itself(pair: tuple[Tensor, Tensor]) -> None:
    found = measure(pair[0], pair[0].clone(), allowance=0.0)
    assert (found.max_abs, found.rms, found.over, found.finite) == (0.0, 0.0, 0, True)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 4, 2)])
def test_a_tensor_without_elements_has_no_error_and_no_place(shape: tuple[int, ...]) -> None:
    found = measure(torch.empty(shape), torch.empty(shape))
    assert (found.count, found.max_abs, found.rms, found.worst_index, found.finite) == (0, 0.0, 0.0, (), True)


def test_a_scalar_has_the_empty_index() -> None:
    found = measure(torch.tensor(3.0), torch.tensor(1.0))
    assert (found.max_abs, found.worst_index, found.count) == (2.0, (), 1)


@given(pairs(min_side=1, dtypes=(torch.float32, torch.float64)), st.sampled_from([math.nan, math.inf, -math.inf]))
def test_what_is_not_finite_is_told_with_its_place(pair: tuple[Tensor, Tensor], value: float) -> None:
    for changed in (0, 1):
        both = [tensor.clone() for tensor in pair]
        both[changed].reshape(-1)[-1] = value
        found = measure(*both)
        assert not found.finite
        assert found.worst_index == tuple(side - 1 for side in pair[0].shape)


@given(pairs(min_side=2, dtypes=(torch.float64,)))
def test_the_figures_cover_what_is_finite(pair: tuple[Tensor, Tensor]) -> None:
    assume(pair[0].dim() >= 1)
    actual, expected = (tensor.reshape(-1).clone() for tensor in pair)
    actual[0] = math.nan
    found = measure(actual, expected, allowance=1e-3)
    error = error_of(actual[1:], expected[1:])
    assert found.max_abs == error.max()
    assert found.over == int((error > 1e-3).sum())


def test_equal_infinities_are_still_not_finite() -> None:
    both = torch.tensor([1.0, math.inf])
    assert not measure(both, both.clone()).finite


def test_squares_beyond_float32_do_not_overflow() -> None:
    expected = torch.tensor([1e30, -2e30])
    found = measure(expected * 1.5, expected)
    assert found.finite
    assert found.rms == close(math.sqrt((0.5e30**2 + 1e30**2) / 2), rel=1e-6)
    assert found.max_abs == close(1e30, rel=1e-6)
    assert found.worst_index == (1,)


def test_small_errors_of_float32_do_not_vanish() -> None:
    """Their squares underflow in float32, the RMS error must not become 0 beside a greatest error above it."""
    expected = torch.zeros(4)
    found = measure(torch.full((4,), 1e-25), expected)
    assert found.rms == close(1e-25, rel=1e-3)


def test_a_difference_that_overflows_float32_is_not_called_equal() -> None:
    found = measure(torch.tensor([3e38]), torch.tensor([-3e38]), allowance=1.0)
    assert not found.finite or found.max_abs > 1e38


@pytest.mark.parametrize("dtype", [torch.float16, torch.int64, torch.bool])
def test_mixed_dtypes_are_subtracted_in_float64(dtype: torch.dtype) -> None:
    found = measure(torch.tensor([1, 0], dtype=dtype), torch.tensor([1.0, 1e-12], dtype=torch.float64))
    assert found.max_abs == 1e-12
    assert found.worst_index == (1,)


def test_bools_that_differ_are_off_by_one() -> None:
    found = measure(torch.tensor([True, False, True]), torch.tensor([True, True, True]), allowance=0.0)
    assert (found.max_abs, found.over, found.worst_index) == (1.0, 1, (1,))


def test_uint8_does_not_wrap_around() -> None:
    assert measure(torch.tensor([0], dtype=torch.uint8), torch.tensor([255], dtype=torch.uint8)).max_abs == 255.0


@pytest.mark.parametrize("count", [tensors.CHUNK - 1, tensors.CHUNK, tensors.CHUNK + 1, 2 * tensors.CHUNK + 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_the_last_element_is_seen_whatever_the_pieces(count: int, dtype: torch.dtype) -> None:
    expected = torch.zeros(count, dtype=dtype)
    actual = expected.clone()
    actual[0], actual[-1] = 1, 2
    found = measure(actual, expected, allowance=1.5)
    assert (found.max_abs, found.over, found.worst_index, found.count) == (2.0, 1, (count - 1,), count)
    assert found.rms == close(math.sqrt(5.0 / count))


def test_the_first_place_that_is_not_finite_wins_across_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "CHUNK", 4)
    actual = torch.zeros(3, 5)
    actual[1, 1] = math.nan
    actual[2, 2] = math.inf
    actual[0, 0] = 9.0
    found = measure(actual, torch.zeros(3, 5))
    assert (found.finite, found.worst_index, found.max_abs) == (False, (1, 1), 9.0)


@given(pairs(min_side=1, dtypes=(torch.float64,)))
def test_the_size_of_the_pieces_changes_no_figure(pair: tuple[Tensor, Tensor]) -> None:
    whole = measure(*pair, allowance=1e-3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensors, "CHUNK", 3)
        pieces = measure(*pair, allowance=1e-3)
    assert (pieces.max_abs, pieces.over, pieces.worst_index) == (whole.max_abs, whole.over, whole.worst_index)
    assert pieces.rms == close(whole.rms, rel=1e-12)


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shapes differ: \(2,\) and \(1, 2\)"):
        measure(torch.zeros(2), torch.zeros(1, 2))


def test_relative_of_no_error_is_zero_even_where_the_truth_is_zero() -> None:
    assert relative(0.0, 0.0) == 0.0
    assert relative(0.0, 5.0) == 0.0


def test_relative_of_an_error_where_the_truth_is_zero_is_infinite() -> None:
    assert relative(1e-9, 0.0) == math.inf
    assert relative(1.0, 4.0) == 0.25


def test_rel_rms_is_relative_to_the_truth() -> None:
    assert measure(torch.tensor([2.2]).double(), torch.tensor([2.0]).double()).rel_rms == close(0.1, rel=1e-6)
