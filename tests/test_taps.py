"""What is recorded in a running model, and that nothing of the recording stays behind."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from parity.cases.base import Call, Stage
from parity.taps import islands
from parity.taps.decisions import DecisionTaps
from parity.taps.islands import IslandTaps
from parity.taps.stages import StageTaps, replaced, resolve

STAGES = (
    Stage("body", (Call("body", {"input": "image"}, "features"),)),
    Stage("head", (Call("head.predict", {"features": "features"}, ("scores", "order")),), writes_state=("seen",)),
)
STATE = {"seen": (lambda model: torch.tensor([model.head.seen]), lambda model, value: None)}


class Head(nn.Module):
    """Works in place on what it is given, as ResNet's ReLU does."""

    seen = 0
    fails = False

    def predict(self, features: Tensor) -> tuple[Tensor, Tensor]:
        torch.relu_(features)
        self.seen += 1
        if self.fails:
            raise RuntimeError("inside the head")
        return features, features.sum(0).argsort(descending=True)


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(3, 5)
        self.head = Head()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        image.sort()  # outside of every stage
        return self.head.predict(self.body(image))


@pytest.fixture
def model() -> Toy:
    torch.manual_seed(0)
    return Toy().eval()


@pytest.fixture
def image() -> Tensor:
    return torch.linspace(-1.0, 1.0, 6).reshape(2, 3)


def all_taps(model: nn.Module, **forced: Tensor) -> Any:
    stages = StageTaps(model, STAGES, STATE)
    return stages, DecisionTaps(lambda: stages.stage, forced), IslandTaps(lambda: stages.stage, promote=True)


PATCHED = ("topk", "sort", "argsort", "float", *islands.TENSOR_METHODS, *islands.FUNCTIONS)


def everything_patched() -> dict[tuple[str, str], Any]:
    """Return every function that taps wrap, as found now: for a class what it has itself, too."""
    found: dict[tuple[str, str], Any] = {}
    for name in PATCHED:
        found["torch", name] = getattr(torch, name, None)
        found["Tensor", name] = getattr(torch.Tensor, name, None)
        found["own", name] = vars(torch.Tensor).get(name)
    return found


def test_the_captured_value_is_not_the_one_altered_in_place_later(model: Toy, image: Tensor) -> None:
    expected = model.body(image)
    with torch.no_grad(), StageTaps(model, STAGES, STATE) as taps:
        model(image)
    assert bool((expected < 0).any())
    assert taps.tensors["features"].tolist() == expected.tolist()
    assert taps.tensors["scores"].tolist() == expected.relu().tolist()


def test_stages_tell_what_they_wrote_and_their_state(model: Toy, image: Tensor) -> None:
    with torch.no_grad(), StageTaps(model, STAGES, STATE) as taps:
        model(image)
    assert taps.produced == {"body": ("features",), "head": ("scores", "order", "seen")}
    assert taps.tensors["seen"].tolist() == [1]
    assert taps.stage is None


def test_the_tapped_result_is_bit_identical(model: Toy, image: Tensor) -> None:
    bare = model(image.clone())
    stages, decisions, found = all_taps(model)
    with torch.no_grad(), stages, decisions, found:
        tapped = model(image.clone())
    assert [t.tolist() for t in tapped] == [t.tolist() for t in bare]


def test_nothing_stays_behind_on_the_instances(model: Toy, image: Tensor) -> None:
    before = [set(vars(module)) for module in model.modules()]
    with torch.no_grad(), StageTaps(model, STAGES, STATE):
        assert "forward" in vars(model.body)
        model(image)
    assert [set(vars(module)) - {"seen"} for module in model.modules()] == before


def test_the_functions_are_the_originals_again(model: Toy, image: Tensor) -> None:
    before = everything_patched()
    stages, decisions, found = all_taps(model)
    with torch.no_grad(), stages, decisions, found:
        during = everything_patched()
        model(image)
    after = everything_patched()
    assert all(after[key] is before[key] for key in before), [key for key in before if after[key] is not before[key]]
    assert during["torch", "topk"] is not before["torch", "topk"]
    assert during["own", "float"] is not before["own", "float"]


def test_an_exception_inside_restores_all_as_well(model: Toy, image: Tensor) -> None:
    before = everything_patched()
    model.head.fails = True
    stages, decisions, found = all_taps(model)
    with pytest.raises(RuntimeError, match="inside the head"), stages, decisions, found:
        model(image)
    assert all(everything_patched()[key] is before[key] for key in before)
    assert "predict" not in vars(model.head)
    assert "forward" not in vars(model.body)


def test_a_stage_that_failed_is_not_taken_for_running(model: Toy, image: Tensor) -> None:
    model.head.fails = True
    with StageTaps(model, STAGES, STATE) as taps:
        with pytest.raises(RuntimeError, match="inside the head"):
            model(image)
        assert taps.stage is None


def test_an_attribute_that_an_instance_had_is_put_back() -> None:
    thing = SimpleNamespace(method="own")
    with replaced(thing, "method", "other"):
        assert thing.method == "other"
    assert thing.method == "own"


def test_a_path_to_a_module_means_its_forward(model: Toy) -> None:
    assert resolve(model, "body") == (model.body, "forward")
    assert resolve(model, "head.predict") == (model.head, "predict")


def test_a_path_that_is_not_there_is_told_by_name(model: Toy) -> None:
    with pytest.raises(AttributeError, match="predikt"):
        resolve(model, "head.predikt")


def test_a_result_of_another_length_is_refused(model: Toy, image: Tensor) -> None:
    stages = (Stage("head", (Call("head.predict", {}, ("scores",)),)),)
    with (
        StageTaps(model, stages, {}),
        pytest.raises(ValueError, match="2 elements where the case declares 1"),
    ):
        model.head.predict(model.body(image).detach())
