"""Draws: recorded from one run, replayed in another, and none that goes unseen."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from parity.cases.base import Call, Stage
from parity.engines.base import Run
from parity.errors import ParityError
from parity.records.freeze import require_recorded_draws
from parity.taps.draws import DrawTaps
from parity.taps.generators import unrecorded
from parity.taps.stages import StageTaps


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


def test_torch_is_left_as_it_was() -> None:
    before = torch.rand, torch.randint_like
    with taps():
        pass
    assert (torch.rand, torch.randint_like) == before


OTHER_WAYS: dict[str, Callable[[], object]] = {
    "torch": lambda: torch.nn.functional.dropout(torch.ones(9)),
    "numpy": lambda: np.random.rand(),
    "python": lambda: random.random(),
}


class TwoStages(torch.nn.Module):
    """Draws, in its second part, in a way of its own."""

    def __init__(self, way: Callable[[], object]) -> None:
        super().__init__()
        self.body = torch.nn.Identity()
        self.way = way

    def head(self, features: torch.Tensor) -> torch.Tensor:
        """Return the features."""
        self.way()
        return features

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return what the head makes of the body's features."""
        return self.head(self.body(image))


def watched(way: Callable[[], object]) -> StageTaps:
    """Return the taps of one run of a model that draws so in its stage ``head``."""
    stages = (Stage("body", (Call("body", {}, "features"),)), Stage("head", (Call("head", {}, "scores"),)))
    model = TwoStages(way)
    with StageTaps(model, stages, {}) as taps:
        model(torch.ones(2))
    return taps


@pytest.mark.parametrize("generator", OTHER_WAYS)
def test_a_draw_past_the_taps_is_told_with_its_stage_and_leaves_the_generators_as_they_were(generator: str) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index, union-attr]
    found = watched(OTHER_WAYS[generator]).watch
    assert found.stages == {f"draw.unrecorded.head.{generator}": "head"}
    assert unrecorded(found.found) == [f"draw.unrecorded.head.{generator}"]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]  # type: ignore[index, union-attr]


def test_a_run_without_draws_is_told_nothing_of() -> None:
    assert watched(lambda: None).watch.found == {}


def test_an_engine_that_draws_so_gives_no_truth() -> None:
    drawn = watched(OTHER_WAYS["torch"]).watch
    with pytest.raises(ParityError, match=r"not recorded \(draw.unrecorded.head.torch; dropout\?\): set its rate to 0"):
        require_recorded_draws(Run(drawn.found))
    require_recorded_draws(Run({}))
