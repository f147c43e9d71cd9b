"""A hostile checkpoint: on every path that loads one, nothing runs, and one line says why."""

from __future__ import annotations

import argparse
import pickle
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hostile_checkpoints import VARIANTS, checkpoint, write, write_shards

import parity
from parity.ap.weights import weights_of
from parity.drafting.values import checkpoint_values
from parity.engines.environment import legacy_python
from parity.engines.initialisation import without_pretrained
from parity.errors import ParityError
from parity.training.command import expect_plain_checkpoint
from parity.weights import guarded
from parity.weights.checkpoint import read_checkpoint

Command = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("kind", sorted(set(VARIANTS) - {"a second pickle in the zip", "a second member of its name"}))
def test_a_hostile_file_would_run_if_it_were_trusted(kind: str, tmp_path: Path) -> None:
    """Or else the tests below would hold for files that do nothing."""
    path, mark = write(kind, tmp_path)
    if "plain pickle" in kind:
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert mark.exists()


@pytest.mark.parametrize("kind", VARIANTS)
@pytest.mark.parametrize("name", ["model.pth", "model.pth.tar", "model.bin"])
def test_reading_runs_nothing(kind: str, name: str, tmp_path: Path) -> None:
    path, mark = write(kind, tmp_path, name=name)
    with pytest.raises(ParityError) as refused:
        read_checkpoint(path)
    assert str(path) in str(refused.value)
    assert str(refused.value).isprintable()
    assert not mark.exists()


def test_reading_a_hostile_shard_runs_nothing(tmp_path: Path) -> None:
    index, mark = write_shards(tmp_path)
    with pytest.raises(ParityError, match=r"model-1\.bin: its pickle asks for builtins\.exec"):
        read_checkpoint(index)
    assert not mark.exists()


def one_line(err: str, path: Path) -> bool:
    return err.startswith("parity: ") and err.count("\n") == 1 and str(path) in err


@pytest.mark.parametrize("kind", VARIANTS)
def test_convert_runs_nothing(kind: str, tmp_path: Path, parity_command: Command) -> None:
    path, mark = write(kind, tmp_path)
    status, out, err = parity_command("convert", "ddq_fcn_r50_12e", path, tmp_path / "out.pth")
    assert (status, out) == (2, "")
    assert one_line(err, path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.pth"]
    assert not mark.exists()


@pytest.mark.parametrize("kind", VARIANTS)
def test_coco_labels_runs_nothing(kind: str, tmp_path: Path, parity_command: Command) -> None:
    path, mark = write(kind, tmp_path)
    status, out, err = parity_command("coco", "labels", path, tmp_path / "out.pth", "--80")
    assert (status, out) == (2, "")
    assert one_line(err, path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.pth"]
    assert not mark.exists()


@pytest.mark.parametrize("option", ["checkpoint", "new_checkpoint"])
@pytest.mark.parametrize("kind", VARIANTS)
def test_a_new_case_runs_nothing(kind: str, option: str, tmp_path: Path) -> None:
    path, mark = write(kind, tmp_path)
    torch.save(checkpoint(), tmp_path / "good.pth")
    given = {"checkpoint": tmp_path / "good.pth", "new_checkpoint": None, "trust_pickle": False, option: path}
    with pytest.raises(ParityError, match=r"model\.pth"):
        checkpoint_values(argparse.Namespace(**given))
    assert not mark.exists()


@pytest.mark.parametrize("kind", VARIANTS)
def test_ap_runs_nothing(kind: str, tmp_path: Path) -> None:
    path, mark = write(kind, tmp_path)
    case = SimpleNamespace(id="a", legacy="mmdet2", new="mmdet3", rules=())
    subject: Any = SimpleNamespace(case=case, shipped=None, checkpoint=path)
    with pytest.raises(ParityError, match=r"model\.pth") as refused:
        weights_of(subject, SimpleNamespace(folder=tmp_path / "ap"))  # type: ignore[arg-type]
    assert "; --trust-pickle" not in str(refused.value)  # this command has no such option
    assert not mark.exists()
    assert not (tmp_path / "ap").exists()


@pytest.mark.parametrize("engine", ["new", "legacy"])
@pytest.mark.parametrize("kind", VARIANTS)
def test_a_training_that_goes_on_runs_nothing(kind: str, engine: str, tmp_path: Path, parity_command: Command) -> None:
    """mmengine names its last checkpoint in a file, mmcv 1.x links to it; neither training is even started."""
    name = "epoch_1.pth" if engine == "new" else "latest.pth"
    path, mark = write(kind, tmp_path, name=name)
    if engine == "new":
        (tmp_path / "last_checkpoint").write_text(str(path))
    words = ("--legacy-root", tmp_path, "--legacy-python", sys.executable) if engine == "legacy" else ()
    status, out, err = parity_command(
        "train", "ddq_fcn_r50_12e", "--engine", engine, "--resume", "--gpus", 0, "--work-dir", tmp_path, *words
    )
    assert (status, out) == (2, "")
    assert one_line(err, path)
    assert not mark.exists()
    assert not (tmp_path / "job.json").exists()


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("nowhere.pth", r"last_checkpoint names 'nowhere\.pth', which is no file here: correct or remove it"),
        ("https://host/model.pth", r"last_checkpoint names 'https://host/model\.pth', which is no file here"),
        ("/", r"/ is a folder, not a checkpoint"),
        ("a\0b", r"last_checkpoint names 'a\\x00b', which is no file here"),
    ],
)
def test_a_last_checkpoint_that_is_none_is_named(named: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "last_checkpoint").write_text(named)
    with pytest.raises(ParityError, match=message):
        expect_plain_checkpoint(tmp_path)


def test_a_damaged_or_other_last_checkpoint_is_told_before_the_training_starts(tmp_path: Path) -> None:
    expect_plain_checkpoint(tmp_path)  # nothing to go on from: it begins anew
    torch.save(checkpoint(), tmp_path / "latest.pth")
    expect_plain_checkpoint(tmp_path)
    (tmp_path / "latest.pth").write_bytes((tmp_path / "latest.pth").read_bytes()[:-40])
    with pytest.raises(ParityError, match=r"latest\.pth is no checkpoint but a zip file that is damaged or cut short"):
        expect_plain_checkpoint(tmp_path)
    (tmp_path / "latest.pth").unlink()
    (tmp_path / "latest.pth").symlink_to("gone.pth")
    with pytest.raises(ParityError, match=r"latest\.pth: No such file or directory"):
        expect_plain_checkpoint(tmp_path)


# What the trainings' own code loads, whoever names it (load_from, init_cfg, a file just downloaded).

LOADED = sorted(kind for kind in VARIANTS if "second" not in kind and "plain" not in kind)


@pytest.mark.parametrize("old", [False, True], ids=["torch today", "torch 1.9"])
@pytest.mark.parametrize("kind", LOADED)
def test_the_guarded_load_runs_nothing(kind: str, old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, mark = write(kind, tmp_path)
    if old:
        as_old_torch(monkeypatch)
    asks = r"asks for (builtins\.)?exec, which no checkpoint"
    too_new = r"is refused \(.*Unsupported operand"  # torch's own restricted unpickler knows no protocol 4
    with pytest.raises(ParityError, match=rf"model\.pth: its pickle ({asks}|{too_new})"):
        guarded.load(str(path), map_location="cpu", weights_only=False)
    assert not mark.exists()


def as_old_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch know of unpickling only, as before it had a restricted unpickler."""
    monkeypatch.delattr(torch.serialization, "clear_safe_globals")
    plain = guarded._plain_load
    monkeypatch.setattr(guarded, "_plain_load", lambda f, **words: plain(f, weights_only=False, **words))


def kept_by_frameworks() -> dict[str, Any]:
    from mmengine.logging import HistoryBuffer

    history = HistoryBuffer([1.5, 2.5], [1, 1])
    return checkpoint(
        message_hub={"log_scalars": OrderedDict(loss=history), "runtime_info": {"best": np.float64(0.4)}},
        param_schedulers=[{"base_values": [np.float32(0.1)], "last_step": 1}],
        optimizer={"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
    )


@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("old", [False, True], ids=["torch today", "torch 1.9"])
def test_the_guarded_load_gives_what_frameworks_keep(
    old: bool, new_format: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(kept_by_frameworks(), tmp_path / "a.pth", _use_new_zipfile_serialization=new_format)
    if old:
        as_old_torch(monkeypatch)
    loaded = guarded.load(tmp_path / "a.pth", map_location="cpu")
    history = loaded["message_hub"]["log_scalars"]["loss"]
    assert (history.mean(), history.min(), history.statistics("max")) == (2.0, 1.5, 2.5)
    assert loaded["message_hub"]["runtime_info"]["best"] == 0.4
    assert loaded["param_schedulers"][0]["base_values"] == [np.float32(0.1)]
    assert loaded["state_dict"]["backbone.conv1.weight"].tolist() == [1, 1]


def test_the_guarded_load_takes_no_name_that_others_have_allowed(tmp_path: Path) -> None:
    torch.save(checkpoint(extra=Path("x")), tmp_path / "a.pth")
    with torch.serialization.safe_globals([type(Path("x"))]):
        before = set(torch.serialization.get_safe_globals())  # torch keeps them in no order
        with pytest.raises(ParityError, match=r"its pickle asks for pathlib\.PosixPath"):
            guarded.load(tmp_path / "a.pth")
        assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("old", [False, True], ids=["torch today", "torch 1.9"])
def test_a_program_of_torchscript_is_refused(old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "a.pth"))
    if old:
        as_old_torch(monkeypatch)
    with pytest.raises(ParityError, match=r"a\.pth: its pickle is refused \(.*TorchScript"):
        guarded.load(tmp_path / "a.pth")


@pytest.mark.parametrize(("owner", "name"), [("HistoryBuffer", "__init__"), ("HistoryBuffer", "none"), ("dict", "get")])
def test_only_methods_of_a_history_are_looked_up(owner: str, name: str) -> None:
    from mmengine.logging import HistoryBuffer

    assert guarded._method(HistoryBuffer, "min") is HistoryBuffer.min
    with pytest.raises(pickle.UnpicklingError, match="getattr"):
        guarded._method({"HistoryBuffer": HistoryBuffer, "dict": dict}[owner], name)
    with pytest.raises(pickle.UnpicklingError, match="encode"):
        guarded._latin_1("a", "rot13")


def test_mmengine_itself_loads_through_the_guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmengine.runner.checkpoint import CheckpointLoader

    monkeypatch.setattr(torch, "load", torch.load)
    monkeypatch.setattr(torch.serialization, "load", torch.serialization.load)
    guarded.install()
    path, mark = write("message hub", tmp_path)
    with pytest.raises(ParityError, match=r"its pickle asks for exec"):
        CheckpointLoader.load_checkpoint(str(path), "cpu")
    torch.save(kept_by_frameworks(), tmp_path / "good.pth")
    assert CheckpointLoader.load_checkpoint(str(tmp_path / "good.pth"), "cpu")["meta"]["epoch"] == 1
    assert not mark.exists()


IN_OLD_TORCH = """
import sys, torch
from parity.errors import ParityError
from parity.weights import guarded
guarded.install()
for path in sys.argv[1:]:
    try:
        print(len(torch.load(path, map_location="cpu")["state_dict"]))
    except ParityError as error:
        print(error)
"""


@pytest.mark.legacy
@pytest.mark.parametrize("engine", ["mmdet2", "ddq_mmdet3rc"])
def test_the_legacy_interpreters_run_nothing(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    try:
        python = legacy_python(engine, request.config.getoption("legacy_python") if engine == "mmdet2" else None)
    except ParityError as error:
        pytest.skip(str(error))
    paths, marks = [], []
    for number, kind in enumerate(LOADED):
        (tmp_path / str(number)).mkdir()
        path, mark = write(kind, tmp_path / str(number))
        paths.append(path)
        marks.append(mark)
    torch.save(checkpoint(hub={"best": np.float64(0.4)}), tmp_path / "good.pth")
    words = [python, "-c", IN_OLD_TORCH, *map(str, paths), str(tmp_path / "good.pth")]
    environment = {"PYTHONPATH": str(Path(parity.__file__).parents[1]), "PATH": ""}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert lines[-1:] == ["2"], done.stderr
    assert [line.split(": ", 1)[0] for line in lines[:-1]] == list(map(str, paths))
    assert all("its pickle asks for " in line and ".exec, which no checkpoint" in line for line in lines[:-1])
    assert not any(mark.exists() for mark in marks)


@pytest.mark.parametrize("kind", ["Pretrained", "mmengine.Pretrained", "PretrainedInit"])
def test_what_is_frozen_begins_from_no_checkpoint(kind: str) -> None:
    """Whatever its scope: a record is made from synthetic weights, and no file of a config is ever opened."""
    config = {"backbone": {"init_cfg": {"type": kind, "checkpoint": "hostile.pth"}}, "neck": [{"pretrained": "b.pth"}]}
    assert without_pretrained(config) == ["model.backbone: hostile.pth", "model.neck[0]: b.pth"]
    assert config == {"backbone": {"init_cfg": None}, "neck": [{"pretrained": None}]}
