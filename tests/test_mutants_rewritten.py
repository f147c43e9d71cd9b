"""The benign rewritings: the same function, by another way, and really another way."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from parity.compare.tensors import measure
from parity.mutants import rewritten
from parity.mutants.plant import wrapped

CONVOLUTION = "torch.nn.modules.conv:Conv2d._conv_forward"
LINEAR = "torch.nn.modules.linear:Linear.forward"
NORM = "torch.nn.modules.normalization"
BATCH_NORM = "torch.nn.modules.batchnorm:_BatchNorm.forward"


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def filled(module: nn.Module) -> nn.Module:
    """Return a module in float64 whose every number is drawn, variances positive."""
    generator = torch.Generator().manual_seed(0)
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.data = torch.rand(tensor.shape, generator=generator, dtype=torch.float64) + 0.5
    return module.double().eval()


def always(replacement: Any) -> Callable[[Any], Any]:
    return lambda _original: replacement


def maps(channels: int) -> Tensor:
    return torch.randn(2, channels, 7, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


WAYS = [
    ("linear-matmul", nn.Linear(9, 5), LINEAR, rewritten.linear_matmul),
    ("linear-without-bias", nn.Linear(9, 5, bias=False), LINEAR, rewritten.linear_matmul),
    ("linear-rows", nn.Linear(9, 5), LINEAR, rewritten.linear_rows),
    ("unfold", nn.Conv2d(6, 4, 3, stride=2, padding=1), CONVOLUTION, rewritten.convolution_unfold),
    (
        "unfold-dilated",
        nn.Conv2d(6, 4, 3, padding=2, dilation=2, bias=False),
        CONVOLUTION,
        rewritten.convolution_unfold,
    ),
    ("halves", nn.Conv2d(6, 5, 3, padding=1), CONVOLUTION, rewritten.convolution_halves),
    ("batch-norm", nn.BatchNorm2d(6), BATCH_NORM, always(rewritten.batch_norm)),
    ("batch-norm-scale", nn.BatchNorm2d(6), BATCH_NORM, always(rewritten.batch_norm_scale)),
    ("group-norm", nn.GroupNorm(3, 6), f"{NORM}:GroupNorm.forward", always(rewritten.group_norm)),
    ("layer-norm", nn.LayerNorm(9), f"{NORM}:LayerNorm.forward", always(rewritten.layer_norm)),
]


@pytest.mark.parametrize(("module", "target", "wrap"), [way[1:] for way in WAYS], ids=[way[0] for way in WAYS])
def test_a_layer_is_the_same_by_another_way(module: nn.Module, target: str, wrap: Any) -> None:
    module = filled(copy.deepcopy(module))
    called = []

    def counted(original: Any) -> Any:
        forward = wrap(original)

        def call(*args: Any, **kwargs: Any) -> Any:
            called.append(forward)
            return forward(*args, **kwargs)

        return call

    expected = module(maps(6))
    with wrapped(target, counted)():
        actual = module(maps(6))
    assert called
    assert measure(actual, expected).rel_rms < 1e-14


@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
def test_a_function_is_the_same_by_another_way(name: str) -> None:
    original = getattr(torch.Tensor, name)
    arguments = (-1,) if name == "softmax" else ()
    other = getattr(rewritten, name)(original)
    assert measure(other(maps(3), *arguments), original(maps(3), *arguments)).rel_rms < 1e-14


def test_softmax_in_another_dtype_is_left_alone() -> None:
    explicit = rewritten.softmax(torch.softmax)
    assert explicit(torch.ones(2), -1, dtype=torch.float64).dtype is torch.float64


class Block(nn.Module):
    """A block as ResNet's: two convolutions, each with its norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))


class Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = Block()
        self.neck = nn.Identity()


CHANGES = (
    "folded",
    "not_in_place",
    "frozen",
    "channels_last_weights",
    "unaligned",
    "hooked",
    "batch_reversed",
    "batch_split",
)


@pytest.mark.parametrize("name", CHANGES)
def test_a_detector_is_the_same_and_is_left_as_it_was(name: str) -> None:
    detector = filled(Detector())
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    modules = [id(module) for module in detector.modules()]
    expected = detector.backbone(maps(3))
    with getattr(rewritten, name)(detector):
        actual = detector.backbone(maps(3))
    assert measure(actual.detach(), expected.detach()).rel_rms < 1e-14
    assert modules == [id(module) for module in detector.modules()]
    assert all(parameter.requires_grad for parameter in detector.parameters())
    for key, value in detector.state_dict().items():
        assert measure(value, before[key]).max_abs == 0.0
        assert value.is_contiguous()


def test_folding_leaves_no_norm_behind() -> None:
    detector = filled(Detector())
    with rewritten.folded(detector):
        assert not any(isinstance(module, nn.BatchNorm2d) for module in detector.modules())
    assert sum(isinstance(module, nn.BatchNorm2d) for module in detector.modules()) == 2


def test_images_are_split_out_of_lists_and_dictionaries() -> None:
    first, second = torch.arange(4.0).view(2, 2), torch.arange(6.0).view(2, 3)
    parts = [{"a": [first[i : i + 1]], "b": (second[i : i + 1], None)} for i in range(2)]
    joined = rewritten._joined(parts)
    assert measure(joined["a"][0], first).max_abs == 0.0
    assert measure(joined["b"][0], second).max_abs == 0.0
    assert joined["b"][1] is None
    assert rewritten._images(([first], {"x": second})) == 2
