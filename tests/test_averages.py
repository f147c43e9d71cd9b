"""Averaged (EMA) weights are taken from wherever a framework keeps them, and mentioned where they are not asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from parity.errors import ParityError
from parity.weights.checkpoint import read_checkpoint

State = dict[str, Tensor]


def weights(value: float = 1.0) -> State:
    return {
        "backbone.conv1.weight": torch.full((2, 3), value),
        "backbone.bn1.running_mean": torch.full((2,), value),
        "backbone.bn1.num_batches_tracked": torch.tensor(7),
        "head.bias": torch.full((2,), value),
    }


def below(prefix: str, state: Mapping[str, Tensor]) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


def parameters(value: float) -> State:
    return {name: tensor for name, tensor in weights(value).items() if name.endswith(("weight", "bias"))}


COUNTER = {"steps": torch.tensor(5)}
PLACES: dict[str, tuple[Any, str]] = {
    "ema": ({"model": weights(), "ema": weights(2)}, "ema"),
    "ema.module, as RT-DETR": ({"model": weights(), "ema": {"module": weights(2), "updates": 3}}, "ema.module"),
    "ema.state_dict": ({"model": weights(), "ema": {"state_dict": weights(2), "decay": 0.99}}, "ema.state_dict"),
    "state_dict_ema, as timm": ({"state_dict": weights(), "state_dict_ema": weights(2)}, "state_dict_ema"),
    "ema_state_dict": ({"state_dict": weights(), "ema_state_dict": weights(2)}, "ema_state_dict"),
    "ema_state": ({"model": weights(), "ema_state": weights(2)}, "ema_state"),
    "model_ema": ({"model": weights(), "model_ema": weights(2)}, "model_ema"),
    "ema_model, as DINO": ({"model": weights(), "ema_model": below("module.", weights(2))}, "ema_model"),
    "module_ema": ({"module": weights(), "module_ema": weights(2)}, "module_ema"),
    "model_ema_state_dict": ({"model": weights(), "model_ema_state_dict": weights(2)}, "model_ema_state_dict"),
    "EMA": ({"model": weights(), "EMA": weights(2)}, "EMA"),
    "swa": (
        {"model": weights(), "swa_model": {"n_averaged": torch.tensor(3), **below("module.", weights(2))}},
        "swa_model",
    ),
    "a callback": (
        {"state_dict": weights(), "callbacks": {"EMACallback": {"w": weights(2)}}},
        "callbacks.EMACallback.w",
    ),
    "deep": ({"state_dict": weights(), "a": {"b": {"ema": {"shadow": weights(2)}}}}, "a.b.ema.shadow"),
    "a counter among them": ({"model": weights(), "ema": {**COUNTER, **below("module.", weights(2))}}, "ema"),
    "both wrapped": ({"model": below("module.", weights()), "ema": below("module.", weights(2))}, "ema"),
    "two wrappers": ({"model": weights(), "ema": below("module.model.", weights(2))}, "ema"),
    "no buffers": ({"model": weights(), "ema": {**parameters(2)}}, "ema"),
    "bare": ({**weights(), **below("ema_model.", weights(2))}, "ema_model"),
    "prefix": ({"state_dict": {**weights(), **below("ema.module.", weights(2))}}, "ema"),
    "both prefixed": ({"state_dict": {**below("model.", weights()), **below("model_ema.", weights(2))}}, "model_ema"),
    "prefixes of two": (
        {"state_dict": {**below("online_model.", weights()), **below("ema_model.module.", weights(2)), **COUNTER}},
        "ema_model",
    ),
    "wrapped prefix": ({"state_dict": below("module.", {**weights(), **below("ema.", weights(2))})}, "ema"),
    "mmcv's buffers": (
        {
            "state_dict": {**weights(), "ema_backbone_conv1_weight": torch.full((2, 3), 2.0)},
            "meta": {"mmcv_version": "1"},
        },
        "ema_ buffers",
    ),
    "mmcv's buffers, wrapped": (
        {"state_dict": below("module.", {**weights(), "ema_backbone_conv1_weight": torch.full((2, 3), 2.0)})},
        "ema_ buffers",
    ),
}


def first(state: Mapping[str, Tensor]) -> float:
    return float(next(value for name, value in state.items() if name.endswith("conv1.weight")).flatten()[0])


@pytest.mark.parametrize("kind", PLACES)
def test_averages_are_taken_where_they_are_and_mentioned_where_they_are_not_asked_for(
    kind: str, tmp_path: Path
) -> None:
    content, place = PLACES[kind]
    torch.save(content, tmp_path / "model.pth")
    averaged, trained = read_checkpoint(tmp_path / "model.pth", ema=True), read_checkpoint(tmp_path / "model.pth")
    assert (first(averaged.state), first(trained.state)) == (2.0, 1.0)
    assert averaged.state.keys() == trained.state.keys()
    assert len(trained.state) == 4
    assert averaged.origin.startswith("averaged (EMA) weights of a")
    assert averaged.remarks == ()
    assert trained.origin.startswith("trained weights, not the averaged (EMA) ones of a")
    assert trained.remarks == (f"the file has averaged (EMA) weights, too, in {place}: --ema takes them",)
    assert first(read_checkpoint(tmp_path / "model.pth", ema_from=place).state) == 2.0


NO_AVERAGE: dict[str, Any] = {
    "none": {"state_dict": weights(), "optimizer": {"state": {}}},
    "an empty one": {"state_dict": weights(), "ema": {}},
    "none kept": {"state_dict": weights(), "ema": None, "ema_decay": 0.99},
    "other words": {"state_dict": weights(), "schema": weights(2), "cinema_model": weights(2)},
    "a module of that name": {"state_dict": {**weights(), "backbone.ema.weight": torch.ones(2)}},
    "an optimizer's": {"state_dict": weights(), "optimizer": {"ema": weights(2)}},
}


@pytest.mark.parametrize("kind", NO_AVERAGE)
def test_where_there_are_none_it_is_said_where_was_looked(kind: str, tmp_path: Path) -> None:
    torch.save(NO_AVERAGE[kind], tmp_path / "model.pth")
    assert read_checkpoint(tmp_path / "model.pth").remarks == ()
    message = (
        r"model\.pth holds no averaged \(EMA\) weights: leave --ema away; looked at keys .*ema\.module.*state_dict_ema"
    )
    with pytest.raises(ParityError, match=message):
        read_checkpoint(tmp_path / "model.pth", ema=True)


def test_of_several_one_is_taken_and_the_others_named(tmp_path: Path) -> None:
    torch.save({"model": weights(), "ema": {"module": weights(3)}, "model_ema": weights(2)}, tmp_path / "model.pth")
    path = tmp_path / "model.pth"
    taken = read_checkpoint(path, ema=True)
    assert first(taken.state) == 2.0
    assert taken.remarks == (
        "averaged (EMA) weights are in 2 places: those of model_ema are taken; --ema-from takes ema.module",
    )
    assert first(read_checkpoint(path, ema_from="ema.module").state) == 3.0
    assert read_checkpoint(path).remarks == (
        "the file has averaged (EMA) weights, too, in model_ema, ema.module: --ema takes them,"
        " --ema-from PLACE those of one place",
    )
    with pytest.raises(
        ParityError, match=r"no averaged \(EMA\) weights in 'x': they are in \['ema\.module', 'model_ema'\]"
    ):
        read_checkpoint(path, ema_from="x")


def test_averages_alone_are_taken_only_if_asked_for(tmp_path: Path) -> None:
    torch.save({"model_ema": weights(2)}, tmp_path / "model.pth")
    with pytest.raises(ParityError, match=r"holds averaged \(EMA\) weights only, in model_ema: --ema takes them"):
        read_checkpoint(tmp_path / "model.pth")
    taken = read_checkpoint(tmp_path / "model.pth", ema=True)
    assert (first(taken.state), taken.origin) == (2.0, "averaged (EMA) weights of a model_ema checkpoint")


@pytest.mark.parametrize("missing", ["head.bias", "backbone.conv1.weight"])
def test_averages_that_lack_a_parameter_are_refused_and_the_trained_read(missing: str, tmp_path: Path) -> None:
    averaged = {name: value for name, value in weights(2).items() if name != missing}
    torch.save({"model": weights(), "ema": averaged}, tmp_path / "model.pth")
    assert first(read_checkpoint(tmp_path / "model.pth").state) == 1.0
    with pytest.raises(ParityError, match=rf"model\.pth: state_dict and ema differ in 1 names \['{missing}'\]"):
        read_checkpoint(tmp_path / "model.pth", ema=True)


def test_the_command_says_what_was_taken(tmp_path: Path, parity_command: Callable[..., tuple[int, str, str]]) -> None:
    state = {"bbox_head.fc_cls.weight": torch.ones(91, 4).half(), "backbone.conv1.weight": torch.ones(2, 2)}
    averaged = {name: value * 2 for name, value in state.items()}
    torch.save({"model": state, "ema": {"module": averaged}}, tmp_path / "in.pth")
    status, out, _ = parity_command("coco", "labels", tmp_path / "in.pth", tmp_path / "out.pth", "--80")
    assert status == 0
    assert "  the file has averaged (EMA) weights, too, in ema.module: --ema takes them\n" in out
    assert "  1 of 2 tensors are float16, such as 'bbox_head.fc_cls.weight': they stay float16\n" in out
    status, out, _ = parity_command(
        "coco", "labels", tmp_path / "in.pth", tmp_path / "out.pth", "--80", "--ema-from", "ema.module"
    )
    assert (status, "averaged (EMA) weights of a model checkpoint" in out) == (0, True)
    assert first(read_checkpoint(tmp_path / "out.pth").state) == 2.0


def test_thousands_of_averages_take_no_time(tmp_path: Path) -> None:
    many = {f"ema{number}.a": torch.ones(1) for number in range(20_000)}
    torch.save({"state_dict": {"a": torch.ones(1), **many}}, tmp_path / "model.pth")
    assert len(read_checkpoint(tmp_path / "model.pth").averages) == 20
    torch.save({"model": weights(), **{f"ema{number}": weights() for number in range(100)}}, tmp_path / "model.pth")
    assert len(read_checkpoint(tmp_path / "model.pth").averages) == 20
