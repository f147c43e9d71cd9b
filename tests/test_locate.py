"""The first module that differs is found, by what goes in and what comes out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from parity.locate.command import Located, told
from parity.locate.pairs import pair_modules
from parity.locate.search import Finding, first_difference
from parity.taps.modules import ModuleTaps, describe, differ, digest
from parity.weights.plan import plan
from parity.weights.rules import Rename


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.relu = nn.ReLU()
        self.second = nn.Linear(4, 4)
        self.residual = 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.relu(self.first(x))) + self.residual * x


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])
        self.scale = 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = self.scale * block(x)
        return x


def recorded(model: nn.Module, times: int = 1) -> list[dict[str, Any]]:
    taps = ModuleTaps(model, "stage")
    taps.attach(lambda: "stage")
    with torch.no_grad():
        for i in range(times):
            model(torch.arange(8.0).reshape(2, 4) + i)
    taps.detach()
    return taps.events


def same() -> tuple[Net, Net]:
    torch.manual_seed(0)
    first, second = Net().double(), Net().double()
    second.load_state_dict(first.state_dict())
    torch.set_default_dtype(torch.float64)
    return first, second


@pytest.fixture(autouse=True)
def in_float64() -> Any:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def search(change: Callable[[Net], None], times: int = 1) -> Finding | None:
    legacy, new = same()
    change(new)
    pairs = {name: name for name in describe(legacy) if name}
    return first_difference(recorded(new, times), recorded(legacy, times), pairs)


def test_the_same_models_have_no_difference() -> None:
    assert search(lambda net: None) is None


@pytest.mark.parametrize("times", [1, 2])
def test_a_module_whose_output_alone_differs_is_named(times: int) -> None:
    def leak(net: Net) -> None:
        net.blocks[1].relu = nn.LeakyReLU(0.2)

    found = search(leak, times)
    assert found is not None
    assert (found.module, found.what, found.after) == ("blocks.1.relu", "out", "blocks.1.first")


def test_what_a_module_does_around_its_children_is_its_own() -> None:
    def half(net: Net) -> None:
        net.blocks[0].residual = 0.5

    found = search(half)
    assert found is not None
    assert (found.module, found.what) == ("blocks.0", "out")


def test_a_wrong_input_is_the_parent_s() -> None:
    def scale(net: Net) -> None:
        net.scale = 1.0 + 1e-8

    found = search(scale)
    assert found is not None
    assert (found.module, found.inside, found.what) == ("", "blocks.1", "in")


def test_a_digest_tells_a_single_element_and_a_permutation() -> None:
    tensor = torch.arange(1000.0)
    other = tensor.clone()
    other[7] += 1e-4
    assert differ(digest(tensor), digest(other), relative=1e-10)
    assert differ(digest(tensor), digest(tensor.flip(0)), relative=1e-10)
    assert not differ(digest(tensor), digest(tensor * (1 + 1e-15)), relative=1e-10)
    assert differ(digest(tensor), digest(tensor[:-1]), relative=1e-10)


def test_exchanged_axes_are_no_difference_in_themselves() -> None:
    tensor = torch.randn(3, 5)
    assert not differ(digest(tensor), digest(tensor.t().contiguous()), relative=1e-10)
    assert differ(digest(tensor), digest(2 * tensor.t().contiguous()), relative=1e-10)


def test_modules_that_own_the_same_parameters_are_the_same() -> None:
    legacy = ["head.layers.0.attentions.0.proj.weight", "head.layers.0.ffn.weight", "neck.conv.weight"]
    steps = plan(legacy, [Rename(r"head\.layers\.(\d+)\.attentions\.0\.(.+)", r"layers.\1.self_attn.\2"),
                          Rename(r"head\.layers\.(\d+)\.ffn\.(.+)", r"layers.\1.ffn.\2")])  # fmt: skip
    new_modules = ["layers.0.self_attn", "layers.0.self_attn.drop", "neck.conv", "neck", "act"]
    pairs = pair_modules(steps, new_modules, ["head.layers.0.attentions.0.drop", "act"])
    assert pairs["layers.0.self_attn"] == "head.layers.0.attentions.0"
    assert pairs["layers.0.self_attn.proj"] == "head.layers.0.attentions.0.proj"
    assert pairs["neck"] == "neck"
    assert pairs["neck.conv"] == "neck.conv"
    assert pairs["layers.0.self_attn.drop"] == "head.layers.0.attentions.0.drop"
    assert pairs["act"] == "act"


def located(finding: Finding | None, *outputs: str) -> list[str]:
    modules = {"a": {"class": "Conv", "source": "conv.py:3"}}
    owners = [{"path": "neck", "class": "FPN", "source": "fpn.py:9"}]
    return list(told(Located("neck", finding, {"a": "a"}, (modules, modules), (owners, owners), 5, outputs)))


def test_what_was_found_is_told_with_both_sources() -> None:
    lines = located(Finding("a", 0, "out", "", 1, "b"), "p3")
    assert lines[1] == "first difference: a, call 0: the same went in, something else came out"
    assert "  new:    a (Conv, conv.py:3)" in lines
    assert "  legacy: a (Conv, conv.py:3)" in lines


def test_a_difference_outside_of_modules_names_the_stage_s_own_method() -> None:
    lines = located(None, "p3")
    assert lines[1] == "first difference: in the stage's own code, outside of any module: p3"
    assert "  new: neck (FPN, fpn.py:9)" in lines


def test_no_difference_is_told() -> None:
    assert located(None)[1] == "no module differs, and neither does what the stage gives"
