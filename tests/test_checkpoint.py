"""Reading a ``.pth`` of any layout without running its pickle, and writing one.

The files are written here as mmcv 1.4.7, mmengine 0.6.0 and mmengine 0.10.7 write them, global by global:
a class of theirs is pickled under its own name, without the package.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from parity.errors import ParityError
from parity.weights.checkpoint import LEFT, read_checkpoint, write_checkpoint

State = dict[str, torch.Tensor]


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], type]:
    """Return a function that makes a class which pickles under a full name that need not be installed here."""
    with contextlib.suppress(ImportError):  # pickling imports the package of a stand-in: it must not see any of them
        importlib.import_module("mmengine.runner")

    def make(full_name: str, base: type = object) -> type:
        module_name, name = full_name.rsplit(".", 1)
        module = types.ModuleType(module_name)
        kind = type(name, (base,), {"__module__": module_name})
        setattr(module, name, kind)
        monkeypatch.setitem(sys.modules, module_name, module)
        return kind

    return make


def weights(value: float = 1.0) -> State:
    return OrderedDict(
        [
            ("conv.weight", torch.full((2, 3), value)),
            ("bn.running_mean", torch.full((2,), value)),
            ("bn.num_batches_tracked", torch.tensor(7)),
        ]
    )


def values(state: State) -> dict[str, float]:
    return {name: float(tensor.flatten()[0]) for name, tensor in state.items()}


TRAINED = {"conv.weight": 1.0, "bn.running_mean": 1.0, "bn.num_batches_tracked": 7.0}


def mmengine_file(path: Path, foreign: Callable[..., type], *, ema: bool, **extra: Any) -> Path:
    """Write what ``Runner.save_checkpoint`` writes; with EMA, ``state_dict`` is the average, the trained lie apart."""
    history = foreign("mmengine.logging.history_buffer.HistoryBuffer")
    history.min = lambda self: 0  # type: ignore[attr-defined]
    history.min.__qualname__ = "HistoryBuffer.min"  # type: ignore[attr-defined]
    history.min.__module__ = history.__module__  # type: ignore[attr-defined]
    loss = history.__new__(history)
    loss.__dict__.update(max_length=1000000, _log_history=np.array([0.5]), _count_history=np.array([1]))
    loss.__dict__["_statistics_methods"] = {"min": history.min}  # type: ignore[attr-defined]
    content = {
        "meta": {
            "epoch": 12,
            "iter": 7,
            "cfg": "model = dict()\n",
            "seed": 3,
            "experiment_name": "ddq",
            "mmengine_version": "0.10.7",
            "dataset_meta": {"classes": ("person", "dog"), "palette": [(1, 2, 3)]},
        },
        "state_dict": weights(2.0) if ema else weights(),
        "message_hub": {
            "log_scalars": OrderedDict(train=loss),
            "runtime_info": OrderedDict(best=np.float64(0.4), cfg="x"),
            "resumed_keys": OrderedDict(),
        },
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "param_schedulers": [{"last_step": 1, "base_values": [np.float32(0.1)]}],
    }
    if ema:
        content["ema_state_dict"] = OrderedDict(
            [("steps", torch.tensor(5)), *((f"module.{name}", value) for name, value in weights().items())]
        )
    torch.save({**content, **extra}, path)
    return path


def mmcv_file(path: Path, *, ema: bool, priority: str = "") -> Path:
    """Write what mmcv 1.x writes; its EMA hook keeps a buffer a parameter, exchanged where it runs first."""
    exchanged = bool(priority)
    state = weights(2.0 if exchanged else 1.0)
    state["bn.running_mean"].fill_(1.0)
    if ema:
        state = OrderedDict([("ema_conv_weight", torch.full((2, 3), 1.0 if exchanged else 2.0)), *state.items()])
    hook = f"custom_hooks = [dict(type='ExpMomentumEMAHook', momentum=0.1{priority})]\n"
    meta = {
        "config": "model = dict(type='DDQ')\n" + (hook if ema else ""),
        "env_info": "sys.platform: linux",
        "hook_msgs": {"best_score": np.float64(0.4)},
        "mmcv_version": "1.4.7",
        "CLASSES": ("person", "dog"),
    }
    torch.save({"meta": meta, "state_dict": state, "optimizer": {"state": {}, "param_groups": []}}, path)
    return path


def test_mmengine_layout(tmp_path: Path, foreign: Callable[..., type]) -> None:
    found = read_checkpoint(mmengine_file(tmp_path / "a.pth", foreign, ema=False))
    assert values(found.state) == TRAINED
    assert (found.origin, found.classes) == ("weights of a mmengine checkpoint", ("person", "dog"))
    assert found.left is None


def test_mmengine_keeps_the_average_as_state_dict(tmp_path: Path, foreign: Callable[..., type]) -> None:
    path = mmengine_file(tmp_path / "a.pth", foreign, ema=True)
    trained, averaged = read_checkpoint(path), read_checkpoint(path, ema=True)
    assert values(trained.state) == TRAINED
    assert values(averaged.state) == {**TRAINED, "conv.weight": 2.0, "bn.running_mean": 2.0}
    assert trained.origin == "trained weights, not the averaged (EMA) ones of a mmengine checkpoint"
    assert averaged.origin == "averaged (EMA) weights of a mmengine checkpoint"


def test_another_writer_keeps_the_average_apart(tmp_path: Path) -> None:
    torch.save({"state_dict": weights(), "ema_state_dict": weights(2.0)}, tmp_path / "a.pth")
    assert values(read_checkpoint(tmp_path / "a.pth").state) == TRAINED
    assert values(read_checkpoint(tmp_path / "a.pth", ema=True).state)["conv.weight"] == 2.0


def test_averages_of_other_names_are_refused(tmp_path: Path) -> None:
    average = {**weights(2.0), "model.extra": torch.ones(1)}
    torch.save({"state_dict": weights(), "ema_state_dict": average}, tmp_path / "a.pth")
    with pytest.raises(ParityError, match=r"state_dict and ema_state_dict differ in 1 names \['model\.extra'\]"):
        read_checkpoint(tmp_path / "a.pth", ema=True)


@pytest.mark.parametrize("priority", ["", ", priority=49", ", priority='ABOVE_NORMAL'"])
def test_mmcv_keeps_the_average_in_buffers(tmp_path: Path, priority: str) -> None:
    path = mmcv_file(tmp_path / "a.pth", ema=True, priority=priority)
    assert values(read_checkpoint(path).state) == TRAINED
    assert values(read_checkpoint(path, ema=True).state) == {**TRAINED, "conv.weight": 2.0}
    assert read_checkpoint(path).classes == ("person", "dog")


def test_mmcv_layout_without_averages(tmp_path: Path) -> None:
    path = mmcv_file(tmp_path / "a.pth", ema=False)
    assert values(read_checkpoint(path).state) == TRAINED
    with pytest.raises(ParityError, match=r"a\.pth holds no averaged \(EMA\) weights: leave --ema away"):
        read_checkpoint(path, ema=True)


@pytest.mark.parametrize("config", ["not python (", "x = 1", "x = dict(type='EMAHook', priority=70)"])
def test_an_unclear_configuration_means_the_order_of_mmcv_itself(tmp_path: Path, config: str) -> None:
    state = {**weights(), "ema_conv_weight": torch.full((2, 3), 2.0)}
    torch.save({"meta": {"config": config, "mmcv_version": "1.4.7"}, "state_dict": state}, tmp_path / "a.pth")
    assert values(read_checkpoint(tmp_path / "a.pth").state) == TRAINED


@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize(
    ("content", "layout"),
    [({"model": weights(), "epoch": 3}, "model"), (weights(), "bare"), ({"state_dict": weights()}, "state_dict")],
)
def test_other_layouts(tmp_path: Path, content: Any, layout: str, new_format: bool) -> None:
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=new_format)
    found = read_checkpoint(tmp_path / "a.pth")
    assert values(found.state) == TRAINED
    assert found.origin == f"weights of a {layout} checkpoint"


@pytest.mark.parametrize("prefix", ["module.", "module.module."])
def test_a_distributed_wrapper_is_taken_off(tmp_path: Path, prefix: str) -> None:
    torch.save({"state_dict": {f"{prefix}{name}": value for name, value in weights().items()}}, tmp_path / "a.pth")
    assert values(read_checkpoint(tmp_path / "a.pth").state) == TRAINED


def test_a_module_of_that_name_is_no_wrapper(tmp_path: Path) -> None:
    torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "a.pth")
    assert sorted(read_checkpoint(tmp_path / "a.pth").state) == ["b", "module.a"]


@pytest.mark.parametrize("package", ["mmcv.utils.config", "mmengine.config.config"])
def test_a_configuration_in_the_meta_is_let_through(tmp_path: Path, foreign: Callable[..., type], package: str) -> None:
    nested = foreign(f"{package}.ConfigDict", dict)(type="DDQ")
    torch.save({"meta": {"cfg": nested}, "state_dict": weights()}, tmp_path / "a.pth")
    assert values(read_checkpoint(tmp_path / "a.pth").state) == TRAINED
    whole = foreign(f"{package}.Config")()
    whole.__dict__["text"] = "x = 1"
    torch.save({"meta": {"cfg": whole}, "state_dict": weights()}, tmp_path / "a.pth")
    assert values(read_checkpoint(tmp_path / "a.pth").state) == TRAINED


class _Runs:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch was_run",), r"posix\.system"),
        (eval, ("open('was_run', 'w')",), r"builtins\.eval"),
        (Path, ("x",), r"pathlib\.Path"),
        (getattr, (OrderedDict, "fromkeys"), r"builtins\.getattr"),
    ],
)
def test_a_pickle_that_asks_for_more_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: Any, arguments: Any, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": weights(), "meta": _Runs(function, *arguments)}, tmp_path / "bad.pth")
    message = rf"bad\.pth: its pickle asks for {name}, which no checkpoint of mmcv or mmengine needs: refused"
    with pytest.raises(ParityError, match=message) as refused:
        read_checkpoint(tmp_path / "bad.pth")
    assert "\n" not in str(refused.value)
    assert "--trust-pickle" in str(refused.value)
    assert not (tmp_path / "was_run").exists()


def test_a_pickle_is_run_only_when_it_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": weights(), "meta": _Runs(eval, "open('was_run', 'w').close()")}, "bad.pth")
    assert values(read_checkpoint(Path("bad.pth"), trust_pickle=True).state) == TRAINED
    assert Path("was_run").exists()


def test_what_is_let_through_is_inert(tmp_path: Path) -> None:
    """An array is no place to hide a weight, nor anything that numpy would unpickle."""
    torch.save({"state_dict": {"a": np.ones(2, dtype=object)}}, tmp_path / "a.pth")
    with pytest.raises(ParityError, match=r"a\.pth: 1 entries of its state dict are no tensors \['a'\]"):
        read_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize("keep", [0, 10, 300, -200])
@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "before torch 1.6"])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: int, new_format: bool) -> None:
    torch.save({"state_dict": weights()}, tmp_path / "a.pth", _use_new_zipfile_serialization=new_format)
    (tmp_path / "a.pth").write_bytes((tmp_path / "a.pth").read_bytes()[:keep])
    with pytest.raises(ParityError, match=r"a\.pth is (no checkpoint but an? (empty|zip) file|damaged)") as refused:
        read_checkpoint(tmp_path / "a.pth")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, r"holds no state dict: .* it has nothing"),
        ({"epoch": 3, "weights": {}}, r"holds no state dict: .* it has epoch, weights"),
        ([torch.ones(1)], r"holds no state dict but a list"),
        ({"state_dict": {"a": 1, "b": torch.ones(1)}}, r"1 entries of its state dict are no tensors \['a'\]"),
        ({"state_dict": {"a": torch.ones(2, 2).to_sparse()}}, r"1 entries of its state dict are sparse \['a'\]"),
    ],
)
def test_a_file_without_weights_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ParityError, match=message):
        read_checkpoint(tmp_path / "a.pth")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"none\.pth: No such file or directory"):
        read_checkpoint(tmp_path / "none.pth")
    with pytest.raises(ParityError, match=r" is a folder, not a checkpoint"):
        read_checkpoint(tmp_path)


def test_a_plain_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(pickle.dumps({"state_dict": {"a": [1.0]}}))
    with pytest.raises(ParityError, match=r"a\.pth is no checkpoint but a pickle that torch\.save did not write"):
        read_checkpoint(tmp_path / "a.pth")


def test_a_written_file_is_plain_and_repeatable(tmp_path: Path) -> None:
    source = tmp_path / "in.pth"
    source.write_bytes(b"")
    for name in ("a.pth", "b.pth"):
        write_checkpoint(tmp_path / name, weights(), source=source, meta={"x": 1}, left={"c": torch.ones(1)})
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()
    content = torch.load(tmp_path / "a.pth", weights_only=True)
    assert list(content) == ["meta", "state_dict", LEFT]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pth", "b.pth", "in.pth"]
    assert (tmp_path / "a.pth").stat().st_mode & 0o044


def test_the_input_is_never_written(tmp_path: Path) -> None:
    source = tmp_path / "in.pth"
    torch.save(weights(), source)
    before = source.read_bytes()
    os.link(source, tmp_path / "other_name.pth")
    (tmp_path / "latest.pth").symlink_to(source)
    for name in ("in.pth", "other_name.pth", "latest.pth"):
        with pytest.raises(ParityError, match=rf"{name} is the input itself: name another output"):
            write_checkpoint(tmp_path / name, weights(), source=source, meta={}, left=None)
    assert source.read_bytes() == before


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "in.pth"
    torch.save(weights(), source)
    with pytest.raises(ParityError, match=r"out\.pth cannot be written: No such file or directory"):
        write_checkpoint(tmp_path / "nowhere" / "out.pth", weights(), source=source, meta={}, left=None)

    def full(content: Any, file: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(ParityError, match=r"out\.pth cannot be written: No space left on device"):
        write_checkpoint(tmp_path / "out.pth", weights(), source=source, meta={}, left=None)
    assert [path.name for path in tmp_path.iterdir()] == ["in.pth"]


class Renaming(torch.nn.Linear):
    """Takes a state dict without versions for one of an early release, as mmdet's anchor-free heads do."""

    _version = 1

    def _load_from_state_dict(self, state: State, prefix: str, metadata: dict[str, Any], *rest: Any) -> None:
        if metadata.get("version") is None:
            state[f"{prefix}weight"] = torch.zeros(3, 2)
        super()._load_from_state_dict(state, prefix, metadata, *rest)


@pytest.mark.parametrize(("keep", "loaded"), [(True, 1.0), (False, 0.0)])
def test_written_names_are_those_of_the_present_version(tmp_path: Path, keep: bool, loaded: float) -> None:
    state = {"head.cls.weight": torch.ones(3, 2), "head.cls.bias": torch.ones(3)}
    write_checkpoint(tmp_path / "out.pth", state, source=tmp_path / "in.pth", meta={}, left=None)
    written = torch.load(tmp_path / "out.pth", weights_only=True)["state_dict"]
    assert dict(written._metadata) == {module: {"version": 2} for module in ("", "head", "head.cls")}
    model = torch.nn.ModuleDict({"head": torch.nn.ModuleDict({"cls": Renaming(2, 3)})})
    model.load_state_dict(written if keep else OrderedDict(written.items()))
    assert float(model["head"]["cls"].weight.detach().mean()) == loaded
