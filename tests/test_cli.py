"""The ``parity`` command: exit statuses, and one line for every mistake."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import CASE
from parity.compare.tensors import measure
from parity.engines.session import Session
from parity.records.store import sha256

Command = Callable[..., tuple[int, str, str]]
FAST = ("--stage", "preprocess", "--mode", "isolated", "--dtype", "fp32")


@pytest.fixture
def refuses(parity_command: Command) -> Callable[..., str]:
    """Return a function that runs a command that must be refused, and returns the one line."""

    def run(*words: object) -> str:
        status, _, err = parity_command(*words)
        line = err.rsplit("\r", 1)[-1]  # a progress bar wipes itself away
        assert status == 2
        assert "Traceback" not in err
        assert err.count("\n") == 1, err
        assert line.startswith("parity: ")
        return line

    return run


def test_cases_lists_the_case_and_its_records(parity_command: Command, copied_record: Path) -> None:
    status, out, _ = parity_command("cases", "--fixtures", copied_record.parents[1])
    assert status == 0
    assert f"{CASE} " in out
    assert "51.3" in out
    assert "records: padded\n" in out


def test_cases_says_where_none_is_frozen(parity_command: Command, tmp_path: Path) -> None:
    assert "records: none frozen" in parity_command("cases", "--fixtures", tmp_path)[1]


def test_an_unknown_case_is_told_with_the_nearest(refuses: Callable[..., str]) -> None:
    err = refuses("check", "ddq_detr_4scale_r50_12")
    assert f"unknown case 'ddq_detr_4scale_r50_12': did you mean '{CASE}'?; `parity cases` lists them all" in err


def test_a_recipe_is_frozen_by_name_and_never_replaced_unasked(refuses: Callable[..., str], tmp_path: Path) -> None:
    freeze = ("freeze", CASE, "--legacy-root", tmp_path, "--record", "recipe")
    assert "no-python: no such program" in refuses(*freeze, "--legacy-python", "no-python", "--out", tmp_path)
    (tmp_path / CASE / "recipe").mkdir(parents=True)
    assert "exists; --force replaces it" in refuses(*freeze, "--out", tmp_path)


def test_a_recipe_is_not_drawn_anew(refuses: Callable[..., str], tmp_path: Path) -> None:
    err = refuses("freeze", CASE, "--legacy-root", tmp_path, "--record", "recipe", "--seed", "3", "--out", tmp_path)
    assert "--record recipe: it holds neither images nor weights" in err


def test_an_unknown_case_to_freeze_is_told_with_the_nearest(refuses: Callable[..., str], tmp_path: Path) -> None:
    assert f"did you mean '{CASE}'?" in refuses("freeze", "ddq_detr_4scale_r50", "--legacy-root", tmp_path)


def test_an_unknown_stage_is_told_with_the_nearest(refuses: Callable[..., str]) -> None:
    err = refuses("check", CASE, "--stage", "decodr")
    assert f"--stage decodr: {CASE} has no such stage: did you mean 'decoder'?; it has preprocess, backbone" in err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("chek",), "invalid choice: 'chek'"),
        ((), "COMMAND"),
        (("check", "--nonsense"), "unrecognized arguments: --nonsense"),
        (("check", "--mode", "both"), "invalid choice: 'both'"),
        (("check", "--dtype", "fp16"), "invalid choice: 'fp16'"),
        (("freeze", CASE, "--legacy-root", ".", "--seed", "many"), "--seed: invalid int value: 'many'"),
        (("report",), "RESULTS.json"),
    ],
)
def test_a_wrong_call_is_one_line(refuses: Callable[..., str], words: tuple[str, ...], text: str) -> None:
    err = refuses(*words)
    assert text in err
    assert "--help tells more" in err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--objects", "3"), "--objects, --steps and --ranks go with --sizes"),
        (("--ranks", "2"), "--objects, --steps and --ranks go with --sizes"),
        (("--sizes", "64x64,64x64", "--ranks", "2"), "--ranks goes with --objects"),
        (("--sizes", "64x64", "--objects", "3", "--ranks", "2"), "--ranks 2: 1 to 1 processes"),
        (("--sizes", "64x64", "--objects", "3", "--ranks", "0"), "--ranks 0: 1 to 1 processes"),
        (("--sizes", "64x64,64x64", "--objects", "3,1", "--ranks", "2", "--steps", "5"), "--ranks and --steps:"),
        (("--batches", "2", "--ranks", "2"), "--ranks goes without --batches only"),
        (("--sizes", "64x64", "--steps", "5"), "--steps goes with --objects"),
        (("--sizes", ""), "--sizes : give height x width for each image"),
        (("--sizes", "64x64", "--record", "../mine"), "--record ../mine: a name, without a folder"),
        (("--sizes", "64x64", "--objects", "²"), "--objects ²: give 0 to 1000"),
        (("--engine", "new"), "--engine goes with --batches only"),
        (("--data-root", "."), "--data-root goes with --batches only"),
        (("--batches", "2", "--sizes", "64x64"), "--sizes goes without --batches only"),
        (("--batches", "2", "--steps", "5"), "--steps goes without --batches only"),
        (("--batches", "2", "--force"), "holds no frozen batches: --force replaces nothing else"),
        (("--batches", "2", "--out", "new", "--cfg-option", "lr"), "--cfg-option lr: write it as KEY=VALUE"),
        (("--batches", "2", "--out", "new", "--data-root", "nowhere"), "--data-root nowhere: no such folder"),
        (
            ("--sizes", "64x64", "--objects", "3,0"),
            "--objects 3,0: give 0 to 1000 for each of the 1 images, such as 3,0",
        ),
        (("--sizes", "64x64", "--objects", "many"), "--objects many: give"),
        (("--sizes", "64x64", "--objects", "3", "--steps", "0"), "--steps 0: a training record has one step or more"),
    ],
)
def test_a_record_that_cannot_be_is_one_line(
    refuses: Callable[..., str], words: tuple[str, ...], text: str, tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert text in refuses("freeze", CASE, "--legacy-root", tmp_path, "--out", tmp_path, *words)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("words", [(), (CASE,)])
def test_fixtures_without_records_name_the_command(
    refuses: Callable[..., str], words: tuple[str, ...], tmp_path: Path
) -> None:
    err = refuses("check", *words, "--fixtures", tmp_path / "none")
    assert f"none holds no record of {CASE}: `parity freeze {CASE}` makes one" in err


@pytest.mark.skipif(torch.cuda.is_available(), reason="tests what happens without a CUDA device; here is one")
def test_a_device_that_is_absent_is_one_line(refuses: Callable[..., str]) -> None:
    assert "--device cuda: torch" in refuses("check", CASE, "--device", "cuda", *FAST)


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "tpu"])
def test_a_device_that_is_none_is_one_line(refuses: Callable[..., str], device: str) -> None:
    assert f"--device {device}" in refuses("check", CASE, "--device", device, *FAST)


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ("128", "give height x width for each image, such as 128x160,96x150"),
        ("axb", "give height x width"),
        ("128x160,", "give height x width"),
        ("1x2x3", "give height x width"),
        ("8x160", "every side has to lie between 32 and 4096 pixels"),
        ("-128x160", "every side has to lie between 32 and 4096 pixels"),
    ],
)
def test_bad_sizes_are_one_line(refuses: Callable[..., str], sizes: str, text: str, tmp_path: Path) -> None:
    err = refuses("freeze", CASE, "--legacy-root", tmp_path, f"--sizes={sizes}", "--out", tmp_path)
    assert f"--sizes {sizes}: {text}" in err


def test_an_unknown_record_is_told_with_the_nearest(refuses: Callable[..., str], tmp_path: Path) -> None:
    err = refuses("freeze", CASE, "--legacy-root", tmp_path, "--record", "paded", "--out", tmp_path)
    assert "declares no record 'paded': did you mean 'padded'?" in err


def test_a_checkout_that_is_missing_is_told(
    refuses: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PARITY_LEGACY_ROOT", raising=False)
    err = refuses("freeze", CASE, "--out", tmp_path)
    assert "engine ddq_mmdet3rc runs a checkout: clone https://github.com/jshilong/DDQ, branch ddq_detr, and" in err


def test_an_existing_record_is_not_frozen_again(refuses: Callable[..., str], copied_record: Path) -> None:
    err = refuses("freeze", CASE, "--legacy-root", ".", "--record", "padded", "--out", copied_record.parents[1])
    assert "padded exists; --force replaces it, --out writes elsewhere" in err


def test_a_missing_legacy_interpreter_is_one_line(refuses: Callable[..., str], tmp_path: Path) -> None:
    err = refuses("freeze", CASE, "--legacy-root", tmp_path, "--legacy-python", "no-python", "--out", tmp_path)
    assert "--legacy-python no-python: no such program" in err


def test_an_environment_that_was_never_made_is_told(
    refuses: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARITY_ENVS", str(tmp_path))
    err = refuses("freeze", CASE, "--legacy-root", tmp_path, "--out", tmp_path)
    assert "engine ddq_mmdet3rc has no environment yet: run `parity env ddq_mmdet3rc`, or give --legacy-python" in err


def test_a_record_that_is_damaged_is_named(refuses: Callable[..., str], copied_record: Path) -> None:
    path = copied_record / "preprocess.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    assert "preprocess.safetensors is damaged" in refuses("check", "--fixtures", copied_record.parents[1], *FAST)


def test_one_record_of_several_that_is_damaged_does_not_end_the_run(
    parity_command: Command, copied_record: Path
) -> None:
    shutil.copytree(copied_record, copied_record.with_name("broken"))
    (copied_record.with_name("broken") / "preprocess.safetensors").write_bytes(b"")
    status, out, _ = parity_command("check", "--fixtures", copied_record.parents[1], *FAST)
    assert status == 1
    assert "preprocess.safetensors is damaged" in out
    assert "NOT the same: 1 of 2 stage checks passed" in out


def test_an_engine_that_crashes_is_a_result_of_that_record(
    parity_command: Command, copied_record: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Session, "preprocess", lambda *_: 1 / 0)
    status, out, _ = parity_command("check", "--fixtures", copied_record.parents[1], *FAST)
    assert status == 1
    assert "ZeroDivisionError: division by zero" in out
    assert "NOT the same: 0 of 1 stage checks passed" in out


def test_a_record_of_another_schema_is_named(refuses: Callable[..., str], copied_record: Path) -> None:
    (copied_record / "manifest.json").write_text('{"schema": 99}')
    err = refuses("check", "--fixtures", copied_record.parents[1], *FAST)
    assert "manifest.json has schema 99, this version reads 1" in err


@pytest.mark.parametrize("field", ["weights", "decisions", "batch", "islands", "engines"])
def test_a_manifest_that_lacks_a_part_is_named(refuses: Callable[..., str], copied_record: Path, field: str) -> None:
    path = copied_record / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest[field]
    path.write_text(json.dumps(manifest))
    assert "manifest.json is damaged" in refuses("check", "--fixtures", copied_record.parents[1], *FAST)


def test_a_json_that_cannot_be_written_is_one_line(
    parity_command: Command, copied_record: Path, tmp_path: Path
) -> None:
    target = tmp_path / "no" / "such" / "folder.json"
    status, _, err = parity_command("check", "--fixtures", copied_record.parents[1], *FAST, "--json", target)
    assert status == 2
    assert (
        err.strip().splitlines()[-1] == f"parity: --json {target}: {target.parent} is no folder that can be written to"
    )
    assert "Traceback" not in err


def test_there_is_no_progress_bar_where_stderr_is_no_terminal(parity_command: Command, copied_record: Path) -> None:
    assert parity_command("check", "--fixtures", copied_record.parents[1], *FAST)[2] == ""


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--stage", "loss", "--mode", "isolated"), "--stage loss --mode isolated: no record of"),
        (("--stage", "trajectory", "--steps", "0"), "--steps 0: compare 1 step or more"),
    ],
)
def test_a_check_that_would_compare_nothing_is_one_line(
    refuses: Callable[..., str], words: tuple[str, ...], text: str
) -> None:
    assert text in refuses("check", CASE, *words)


def test_a_fault_of_its_own_is_no_divergence(parity_command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise IndexError("here")

    monkeypatch.setattr("parity.commands.expected_records", broken)
    status, _, err = parity_command("check", CASE)
    assert status == 2
    assert "IndexError: here" in err
    assert err.endswith("parity: IndexError, a fault of parity itself: the traceback is above\n")


def test_a_results_file_that_is_none_is_one_line(refuses: Callable[..., str], tmp_path: Path) -> None:
    assert "is no results file" in refuses("report", tmp_path / "none.json", "--out", tmp_path)


def test_debug_shows_the_traceback(parity_command: Command) -> None:
    status, _, err = parity_command("--debug", "check", "no_such_case")
    assert status == 2
    assert "Traceback (most recent call last)" in err
    assert "ParityError: unknown case 'no_such_case'" in err


def test_all_well_is_exit_status_0(parity_command: Command, copied_record: Path, tmp_path: Path) -> None:
    target = tmp_path / "results.json"
    status, out, _ = parity_command("check", "--fixtures", copied_record.parents[1], *FAST, "--json", target)
    assert status == 0
    assert "same: 1 of 1 stage checks passed" in out
    written = json.loads(target.read_text())
    assert written["schema"] == 2
    assert [result["stage"] for result in written["results"]] == ["preprocess"]


def test_the_night_writes_its_junit_into_the_folder_that_the_run_makes(
    parity_command: Command, copied_record: Path, tmp_path: Path
) -> None:
    run = tmp_path / "reports" / "tonight"
    words = ("--report-dir", run, "--junit", run / "junit.xml")
    assert parity_command("check", "--fixtures", copied_record.parents[1], *FAST, *words)[0] == 0
    assert {"junit.xml", "results.json", "index.html"} <= {path.name for path in run.iterdir()}


def alter_stored(folder: Path, key: str, *, by: float) -> None:
    """Alter one stored tensor, and its hash and figures with it: what a wrong truth would look like."""
    path = folder / f"{key.split('/')[0]}.safetensors"
    tensors = load_file(path)
    tensors[key] = tensors[key].clone()
    tensors[key].view(-1)[0] += by
    save_file(tensors, path)
    manifest = json.loads((folder / "manifest.json").read_text())
    figures = measure(torch.zeros_like(tensors[key]), tensors[key])
    changed = {"sha256": sha256(tensors[key]), "max": figures.expected_max, "rms": figures.expected_rms}
    manifest["tensors"][key].update(changed)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture
def altered_fixtures(record_folder: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(record_folder, tmp_path / "fixtures" / CASE / "padded"))
    manifest = json.loads((folder / "manifest.json").read_text())
    key = next(key for key in manifest["tensors"] if key.startswith("neck/p4"))
    alter_stored(folder, key, by=0.5)
    return folder.parents[1]


def test_a_diverging_tensor_is_named_with_exit_status_1(parity_command: Command, altered_fixtures: Path) -> None:
    status, out, _ = parity_command(
        "check", CASE, "--fixtures", altered_fixtures, "--stage", "neck", "--mode", "isolated", "--dtype", "fp32"
    )
    assert status == 1
    assert "stage 'neck' is not the same: diverged" in out
    assert "  p4" in out
    assert "  p3" not in out
    assert f"to reproduce: parity check {CASE} --stage neck --mode isolated --dtype fp32" in out
    assert "NOT the same: 0 of 1 stage checks passed" in out
