"""``parity train``: how a training is started, and one that really runs, is interrupted and goes on."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile_checkpoints import write
from torch import Tensor

from parity.cases.registry import find_case
from parity.coco.synthesize import synthesize
from parity.engines.environment import legacy_python
from parity.engines.published import change
from parity.engines.session import Session
from parity.errors import ParityError
from parity.training import command
from parity.training.command import prepare
from parity.training.freeze_batches import dump
from parity.training.frozen_batches import FrozenBatches, feed, read_manifest
from parity.weights.synthetic import uniform

CASE = "ddq_fcn_r50_12e"
BATCHES, SEED = 2, 3
# A small backbone and small images, so that the real thing takes seconds; two batches are an epoch.
SMALL = (
    "model.backbone.init_cfg=None",
    "model.backbone.depth=18",
    "model.neck.0.in_channels=[64, 128, 256, 512]",
)
SMALL_DATA = "train_dataloader.dataset.pipeline.2.scale=(144, 88)"
Command = Callable[..., tuple[int, str, str]]


def options(tmp_path: Path, **given: Any) -> argparse.Namespace:
    usual: dict[str, Any] = {
        "case": CASE,
        "engine": "new",
        "gpus": 8,
        "resume": False,
        "offline": False,
        "work_dir": tmp_path / "work",
        "data_root": None,
        "batches": None,
        "cfg_option": [],
        "seed": None,
        "max_steps": 0,
        "legacy_root": None,
        "legacy_python": None,
    }
    return argparse.Namespace(**{**usual, **given})


def job(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "work" / "job.json").read_text())
    return found


def test_eight_gpus_are_eight_processes_of_the_published_config(tmp_path: Path) -> None:
    launch = prepare(options(tmp_path))
    assert launch.command[:3] == (sys.executable, "-m", "torch.distributed.run")
    assert "--nproc_per_node=8" in launch.command
    assert launch.command[-2].endswith("driver.py")
    assert launch.command[-1] == str(tmp_path / "work" / "job.json")
    assert job(tmp_path)["config"].endswith("ports/configs/ddq-fcn_r50_8xb2-12e_coco.py")
    assert job(tmp_path)["options"] == []
    assert launch.environment.keys() == {"PYTHONPATH"}


@pytest.mark.parametrize(("gpus", "visible"), [(1, None), (0, "")])
def test_one_gpu_or_none_is_one_process(tmp_path: Path, gpus: int, visible: str | None) -> None:
    launch = prepare(options(tmp_path, gpus=gpus))
    assert launch.command[:-1] == (sys.executable, str(command.DRIVER))
    assert launch.environment.get("CUDA_VISIBLE_DEVICES") == visible


def test_the_legacy_interpreter_gets_this_package_and_nothing_else_of_ours(tmp_path: Path) -> None:
    launch = prepare(options(tmp_path, engine="legacy", legacy_root=str(tmp_path), legacy_python=sys.executable))
    assert launch.command[0] == sys.executable
    assert job(tmp_path)["root"] == str(tmp_path.resolve())
    assert job(tmp_path)["config"] == find_case(CASE).configs["ddq_mmdet2"]  # below the root, or among mmdet's own
    with zipfile.ZipFile(launch.environment["PYTHONPATH"]) as archive:
        assert {name.split("/")[0] for name in archive.namelist()} == {"parity"}


def test_a_stock_detector_needs_no_checkout(tmp_path: Path) -> None:
    stock = "stock_retinanet_r50_1x"
    prepare(options(tmp_path, case=stock, engine="legacy", legacy_python=sys.executable))
    assert (job(tmp_path)["engine"], job(tmp_path)["root"]) == ("mmdet2", "")
    assert job(tmp_path)["config"] == find_case(stock).configs["mmdet2"]


@pytest.mark.parametrize("resume", [False, True])
def test_no_training_may_run_what_a_checkpoint_asks_for(
    resume: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is torch's switch for that ever set, nor is the user's own handed on."""
    started = []
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    monkeypatch.setattr(command.subprocess, "run", lambda words, *, env, check: started.append(env) or Done())
    command.train(options(tmp_path, resume=resume))
    assert "PYTHONPATH" in started[0]
    assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" not in started[0]


class Done:
    """A process that has ended well."""

    returncode = 0


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no checkout": ({"engine": "legacy"}, r"clone .*DDQ, branch main, and name its folder with --legacy-root"),
    "another host": (
        {"engine": "legacy", "legacy_root": ".", "legacy_python": "ssh=host//python=py"},
        r"--legacy-python ssh=host//python=py: a training is started where its interpreter is",
    ),
    "fewer than no GPU": ({"gpus": -1}, r"--gpus and --max-steps: give 0 or more"),
    "a word for an option": ({"cfg_option": ["lr"]}, r"--cfg-option lr: write it as KEY=VALUE"),
    "no data": ({"data_root": Path("nowhere")}, r"--data-root nowhere: no such folder"),
    "no seed": ({"seed": -1}, r"--seed -1: from 0 to 4294967295"),
    "no folder": ({"work_dir": Path("/dev/null/x")}, r"--work-dir /dev/null/x cannot be written: Not a directory"),
    "no batches": ({"batches": Path("nowhere")}, r"--batches nowhere: no frozen batches"),
    "mmdet 2 on two GPUs": (
        {"engine": "legacy", "legacy_root": ".", "batches": Path(), "gpus": 2},
        r"mmdet 2 is fed them on one GPU",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_call_is_refused_before_anything_is_written(wrong: str, tmp_path: Path) -> None:
    given, message = WRONG[wrong]
    with pytest.raises(ParityError, match=message):
        prepare(options(tmp_path, **given))
    assert not (tmp_path / "work").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="tests what happens without a CUDA device; here is one")
def test_more_gpus_than_there_are_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    status = run_command("train", CASE, "--engine", "new", "--gpus", "1", "--work-dir", tmp_path / "work")
    err = capfd.readouterr().err
    assert status == 2
    assert re.search(r"^parity: --gpus 1: torch \S+ sees 0 here; --gpus 0 is the CPU$", err, re.MULTILINE)
    assert f"parity: the training of {CASE} ended with status 2: its own output is above" in err


def test_paths_of_the_config_follow_the_data_root() -> None:
    from mmengine.config import Config

    plain = {
        "data_root": "data/coco/",
        "loader": {"dataset": {"ann_file": "data/coco/a.json", "prefix": ("data/coco/train/", 3)}, "lr": 0.1},
    }
    config = change(Config(plain), data_root="/coco", options=["loader.lr=0.2", "name=x"])
    assert config.loader.dataset == {"ann_file": "/coco/a.json", "prefix": ("/coco/train/", 3)}
    assert (config.loader.lr, config.name, config.data_root) == (0.2, "x", "/coco/")
    assert change(Config(plain), data_root="", options=[]).loader.dataset.ann_file == "data/coco/a.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder with a COCO, frozen batches of it, and weights to begin with."""
    folder = tmp_path_factory.mktemp("training")
    coco = synthesize(folder / "coco", images=6, val=1)
    torch.set_num_threads(1)
    settings = {"data_root": str(coco), "seed": SEED, "options": [SMALL_DATA]}
    dump(Session("mmdet3"), CASE, folder / "batches", count=BATCHES, **settings)
    state = small_model().state_dict()  # with its metadata: without, mmdet 2 takes other names for older ones
    for name, tensor in state.items():
        tensor.copy_(filled(name, tensor))
    torch.save({"meta": {}, "state_dict": state}, folder / "start.pth")
    yield folder
    shutil.rmtree(folder)  # a gigabyte of checkpoints


def filled(name: str, tensor: Tensor) -> Tensor:
    """Return default-initialised values, moved a little so that no bias is 0."""
    if not tensor.is_floating_point() or "running" in name:
        return tensor
    moved: Tensor = tensor + 0.01 * torch.from_numpy(uniform(1, name, tensor.numel())).reshape(tensor.shape).float()
    return moved


def small_config() -> Any:
    session = Session("mmdet3")
    config = session.engine.config(find_case(CASE))  # type: ignore[attr-defined]
    return change(config, data_root="", options=SMALL)


def small_model() -> Any:
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    config = small_config()
    feed(config, "")
    return MODELS.build(config.model)


def train(folder: Path, work: Path, *words: object, engine: str = "new") -> list[dict[str, Any]]:
    """Run ``parity train`` on the frozen batches, on one thread of the CPU; return the steps that it logged."""
    changes = [word for option in SMALL for word in ("--cfg-option", option)]
    where = ("--gpus", 0, "--work-dir", work, "--batches", folder / "batches")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        assert run_command("train", CASE, "--engine", engine, *where, *changes, *words) == 0
    return [json.loads(line) for line in (work / command.LOG).read_text().splitlines()[1:]]


@pytest.fixture(scope="module")
def unbroken(folder: Path) -> list[dict[str, Any]]:
    """Train for three steps: an epoch and a half."""
    return train(folder, folder / "unbroken", "--cfg-option", f"load_from={folder / 'start.pth'}", "--max-steps", 3)


def run_command(*words: object) -> int:
    from parity.cli import main

    return main([str(word) for word in words])


def test_the_first_losses_are_those_of_the_loaders_own_batches(folder: Path, unbroken: list[dict[str, Any]]) -> None:
    """Bit for bit: mmengine's loop on dumped batches, and the detector called on what the loader itself gives."""
    expected = [losses_of_the_loader(folder)]
    assert [step["losses"] for step in unbroken[:1]] == expected


def losses_of_the_loader(folder: Path) -> dict[str, float]:
    from mmengine.runner import Runner, set_random_seed

    config = change(small_config(), data_root=str(folder / "coco"), options=[SMALL_DATA])
    config.train_dataloader.num_workers, config.train_dataloader.persistent_workers = 0, False
    model = small_model().train()
    model.load_state_dict(torch.load(folder / "start.pth")["state_dict"])
    set_random_seed(SEED)
    data = model.data_preprocessor(next(iter(Runner.build_dataloader(config.train_dataloader, seed=SEED))), True)
    named = model.parse_losses(model.loss(data["inputs"], data["data_samples"]))[1]
    return {name: value.item() for name, value in named.items()}


def test_a_training_that_is_resumed_makes_the_steps_it_would_have_made(
    folder: Path, unbroken: list[dict[str, Any]]
) -> None:
    """It goes on from the end of the first epoch, and makes the step that was lost again."""
    work = Path(shutil.copytree(folder / "unbroken", folder / "broken"))
    lost = (work / command.LOG).read_text().replace('"epoch": 2', '"epoch": 77')
    (work / command.LOG).write_text(lost)
    resumed = train(folder, work, "--resume", "--max-steps", 3)
    assert [(step["step"], step["epoch"]) for step in resumed] == [(1, 1), (2, 1), (3, 2)]
    for key in ("lr", "losses", "grad_norm"):
        assert [step[key] for step in resumed] == [step[key] for step in unbroken]


def test_a_work_folder_is_not_trained_in_twice(
    folder: Path, unbroken: list[dict[str, Any]], parity_command: Command
) -> None:
    status, _, err = parity_command("train", CASE, "--engine", "new", "--work-dir", folder / "unbroken")
    assert status == 2
    assert "unbroken holds a training: --resume goes on with it, --work-dir names another folder" in err


def test_a_batch_comes_back_as_it_was_frozen(folder: Path) -> None:
    batches = FrozenBatches(str(folder / "batches"))
    assert len(batches) == BATCHES
    tensors, ready = batches.tensors(1), batches[1]
    assert ready["inputs"].tolist() == tensors["image"].tolist()
    assert [sample.gt_instances.bboxes.tolist() for sample in ready["data_samples"]] == [
        tensors[f"gt_boxes[{index}]"].tolist() for index in range(2)
    ]
    assert ready["data_samples"][0].batch_input_shape == tuple(tensors["image"].shape[-2:])
    objects = [len(tensors[f"gt_labels[{index}]"]) for index in range(2)]
    assert read_manifest(str(folder / "batches"))["batches"][1]["objects"] == objects
    assert min(objects) > 0


def test_a_damaged_batch_is_refused(folder: Path, tmp_path: Path) -> None:
    manifest = read_manifest(str(folder / "batches"))
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ParityError, match=r"batch-00000\.safetensors: No such file .*freeze the batches again"):
        FrozenBatches(str(tmp_path)).tensors(0)
    (tmp_path / "batch-00000.safetensors").write_bytes(b"other")
    with pytest.raises(ParityError, match=r"batch-00000\.safetensors does not have the SHA-256"):
        FrozenBatches(str(tmp_path)).tensors(0)


@pytest.mark.parametrize(
    "altered",
    [
        {"schema": 2},
        {"batches": []},
        {"batches": [{"file": "../x", "sha256": "0"}]},
        {"batches": [{"file": "x"}]},
        None,
    ],
)
def test_a_manifest_that_is_not_right_is_refused(altered: Any, folder: Path, tmp_path: Path) -> None:
    if altered is not None:
        manifest = {**read_manifest(str(folder / "batches")), **altered}
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ParityError, match=r"manifest\.json is (no manifest|of another schema)"):
        read_manifest(str(tmp_path))


def test_the_same_seed_freezes_the_same_batches(folder: Path, parity_command: Command) -> None:
    status, out, err = parity_command(
        "freeze", CASE, "--batches", 1, "--engine", "new", "--data-root", folder / "coco", "--seed", SEED,
        "--cfg-option", SMALL_DATA, "--out", folder / "again",
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert out.endswith(f"frozen: {folder / 'again'}\n")
    first = [hashlib.sha256((folder / name / "batch-00000.safetensors").read_bytes()) for name in ("again", "batches")]
    assert first[0].digest() == first[1].digest()
    status, _, err = parity_command("freeze", CASE, "--batches", 1, "--engine", "new", "--out", folder / "again")
    assert (status, err) == (2, f"parity: {folder / 'again'} exists; --force replaces it, --out writes elsewhere\n")
    status, _, err = parity_command("freeze", CASE, "--batches", 0, "--engine", "new")
    assert (status, err) == (2, "parity: --batches 0: give 1 or more\n")


@pytest.mark.legacy
def test_both_engines_log_the_same_losses_on_the_same_batches(
    folder: Path, unbroken: list[dict[str, Any]], request: pytest.FixtureRequest
) -> None:
    """The real loops of mmcv 1.x and of mmengine; in float32, so the first steps only. Names and weights are alike."""
    words = (*legacy_words(request), "--max-steps", 2)
    start = ("--cfg-option", f"load_from={folder / 'start.pth'}")
    legacy = train(folder, folder / "legacy", *words, *start, engine="legacy")
    for actual, expected in zip(unbroken, legacy, strict=False):
        assert actual["lr"] == pytest.approx(expected["lr"], rel=1e-12)
        assert actual["losses"] == pytest.approx(expected["losses"], rel=1e-5)  # measured: 3e-6


def legacy_words(request: pytest.FixtureRequest) -> tuple[object, ...]:
    """Return what names the legacy engine, or skip where it is not to be had."""
    root, python = request.config.getoption("legacy_root"), request.config.getoption("legacy_python")
    if not root or not (Path(root) / find_case(CASE).configs["ddq_mmdet2"]).is_file():
        pytest.skip("needs a DDQ checkout of branch main: --legacy-root DIR")
    try:
        return ("--legacy-root", root, "--legacy-python", legacy_python("ddq_mmdet2", python))
    except ParityError as error:
        pytest.skip(str(error))


@pytest.mark.legacy
def test_the_legacy_engine_goes_on_from_its_own_checkpoint(folder: Path, request: pytest.FixtureRequest) -> None:
    """What mmcv 1.x keeps in a checkpoint is let through, in torch 1.9 as well."""
    words, work = legacy_words(request), folder / "legacy-resumed"
    start = ("--cfg-option", f"load_from={folder / 'start.pth'}")
    unbroken = train(folder, work, *words, *start, "--max-steps", 3, engine="legacy")
    assert (work / "latest.pth").exists()
    resumed = train(folder, work, *words, "--resume", "--max-steps", 3, engine="legacy")
    assert [step["losses"] for step in resumed] == [step["losses"] for step in unbroken]


def test_a_start_that_asks_for_more_than_data_ends_the_training_in_one_line(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, mark = write("optimizer state", tmp_path)
    where = ("--gpus", 0, "--work-dir", tmp_path / "work", "--batches", folder / "batches", "--max-steps", 1)
    changes = [word for option in SMALL for word in ("--cfg-option", option)]
    start = ("--cfg-option", f"load_from={path}")
    assert run_command("train", CASE, "--engine", "new", *where, *changes, *start) == 2
    out, err = capfd.readouterr()
    assert f"load_from begins from {path}: it is here, {path}\n" in out
    assert (
        f"\nparity: {path}: its pickle asks for exec, which no checkpoint of mmcv or mmengine needs: refused\n" in err
    )
    assert "Traceback" not in err
    assert not mark.exists()


def test_offline_a_training_that_would_download_is_not_started(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    where = ("--gpus", 0, "--work-dir", tmp_path / "work", "--batches", folder / "batches", "--max-steps", 1)
    assert run_command("train", CASE, "--engine", "new", *where, "--offline") == 2
    refused = (
        "parity: --offline: model.backbone.init_cfg begins from torchvision://resnet50, which is not here: put https"
    )
    assert refused in capfd.readouterr().err
