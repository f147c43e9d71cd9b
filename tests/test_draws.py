"""Draws: recorded from one run, replayed in another, and none that goes unseen."""

from typing import Any

import pytest
import torch

from parity.errors import ParityError
from parity.taps.draws import DrawTaps


def step() -> list[torch.Tensor]:
    """Draw in the ways that the engines do."""
    like = torch.zeros(2, 3)
    return [
        torch.rand_like(like),
        torch.randint_like(like, 0, 80),
        torch.randint_like(like, 5),
        torch.rand(2, 2, dtype=torch.float64),
        torch.randn((4,)),
        torch.randint(3, (2,)),
        torch.randint(1, high=7, size=(2,)),
        torch.randperm(6),
    ]


def taps(**options: Any) -> DrawTaps:
    return DrawTaps(lambda: "loss", **options)


def test_what_one_run_drew_the_next_is_given() -> None:
    with taps(seed=1) as first:
        drawn = step()
    with taps(given=first.drawn, seed=2) as second:
        again = step()
    assert [tensor.tolist() for tensor in again] == [tensor.tolist() for tensor in drawn]
    assert [tensor.dtype for tensor in again] == [tensor.dtype for tensor in drawn]
    assert list(first.drawn) == list(second.drawn)
    assert set(first.stages.values()) == {"loss"}
    assert "randint(0,80).0" in first.drawn
    assert "randint(1,7).0" in first.drawn


def test_other_seeds_draw_other_numbers() -> None:
    runs = []
    for seed in (1, 2):
        with taps(seed=seed):
            runs.append([tensor.tolist() for tensor in step()])
    assert runs[0] != runs[1]


def test_both_dtypes_get_the_same_numbers() -> None:
    with taps(seed=3) as first:
        single = torch.rand(100)
    with taps(given=first.drawn):
        double = torch.rand(100, dtype=torch.float64)
    assert double.dtype is torch.float64
    assert single.double().tolist() == double.tolist()


def test_a_draw_of_another_shape_is_made_anew_and_named_alike() -> None:
    with taps(seed=1) as first:
        torch.rand(3)
    with taps(given=first.drawn) as second:
        assert torch.rand(4).shape == (4,)
    assert second.drawn["rand().0"].shape == (4,)


@pytest.mark.parametrize("draw", [lambda: torch.nn.functional.dropout(torch.ones(9)), lambda: torch.ones(3).normal_()])
def test_a_draw_that_is_not_recorded_is_an_error(draw: Any) -> None:
    with pytest.raises(ParityError, match="in a way that is not recorded"), taps():
        draw()


def test_torch_is_left_as_it_was() -> None:
    before = torch.rand, torch.randint_like
    with taps():
        pass
    assert (torch.rand, torch.randint_like) == before
