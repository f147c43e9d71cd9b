"""Sketches: what an error in a gradient shows in 64 numbers."""

import pytest
import torch

from parity.compare.tensors import measure
from parity.taps.sketch import WIDTH, sketch


def gradient(count: int = 100_000) -> torch.Tensor:
    return torch.randn(count, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def shown(error: torch.Tensor, truth: torch.Tensor) -> float:
    """Return the relative RMS error that a comparison of the sketches reports."""
    return measure(sketch("w", truth + error), sketch("w", truth)).rel_rms


@pytest.mark.parametrize("relative", [1e-11, 1e-6, 1e-2])
def test_a_spread_error_shows_at_its_own_size(relative: float) -> None:
    truth = gradient()
    error = torch.randn(len(truth), dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * relative
    assert 0.7 * relative < shown(error, truth) < 1.4 * relative


@pytest.mark.parametrize("relative", [1e-11, 1e-6, 1e-2])
@pytest.mark.parametrize("place", [0, 4242, 99_999])
def test_an_error_in_one_element_shows_in_full(relative: float, place: int) -> None:
    truth = gradient()
    error = torch.zeros_like(truth)
    error[place] = relative * float(truth.norm())  # of the whole gradient's norm, all in one element
    assert 0.7 * relative < shown(error, truth) < 1.4 * relative


def test_two_elements_that_change_places_show_but_for_one_pair_in_128() -> None:
    truth = gradient(4096)
    generator = torch.Generator().manual_seed(2)
    unseen = 0
    for first, second in torch.randint(len(truth), (2000, 2), generator=generator).tolist():
        error = torch.zeros_like(truth)
        error[first] += truth[second] - truth[first]
        error[second] += truth[first] - truth[second]
        unseen += first != second and shown(error, truth) < 1e-12
    assert unseen <= 2 * 2000 / (2 * WIDTH)  # same sum and same sign: 1 in 128 by chance


def test_a_small_tensor_is_kept_whole() -> None:
    tensor = torch.tensor([3.0, -4.0], dtype=torch.float64)
    assert sketch("bias", tensor)[:2].abs().tolist() == [3.0, 4.0]
    assert sketch("bias", tensor)[2:].tolist() == [0.0] * (WIDTH - 2)


def test_names_have_signs_of_their_own() -> None:
    assert sketch("a", gradient()).tolist() != sketch("b", gradient()).tolist()
