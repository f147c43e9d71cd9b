"""pytest's side: what is collected, what is a usage error, and that workers' results come together."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import parity
from conftest import CASE
from parity.cases.base import Case
from parity.cases.registry import all_cases, find_case
from parity.compare.tensors import measure
from parity.records.kinds import checks_in
from parity.records.locate import default_fixtures, find_records
from parity.records.store import sha256

ROOT = Path(parity.__file__).resolve().parents[1]
FAST = ("--stage", "preprocess", "--dtype", "fp32")
Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]


def python(*words: object, folder: Path = ROOT) -> Done:
    """Run Python as a user would, not as a worker of the pytest that runs this."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def suite(*words: object, folder: Path = ROOT) -> Done:
    return python("-m", "pytest", "parity", "-q", "-p", "no:cacheprovider", *words, folder=folder)


COLLECT = """
import sys, pytest
status = pytest.main(["parity", "--collect-only", "-q", "-p", "no:cacheprovider"])
heavy = sorted({"torch", "mmdet", "mmcv", "mmengine", "safetensors"} & set(sys.modules))
print("HEAVY", heavy, int(status))
"""


@pytest.fixture(scope="module")
def collected() -> Done:
    return python("-c", COLLECT)


def test_collection_imports_neither_torch_nor_an_engine(collected: Done) -> None:
    assert collected.stdout.strip().splitlines()[-1] == "HEAVY [] 0", collected.stdout + collected.stderr


def test_there_is_one_test_for_every_stage_mode_and_dtype_of_every_record(collected: Done, case: Case) -> None:
    ids = {line.split("[", 1)[1].rstrip("]") for line in collected.stdout.splitlines() if "test_stage[" in line}
    folders = find_records(default_fixtures(), case=CASE)
    expected = {
        f"{CASE}-{folder.name}-{stage}-{mode}-{dtype}-cpu"
        for folder in folders
        for checks in [checks_in(case, folder)]
        for stage in checks.stages
        for mode in checks.modes
        for dtype in checks.dtypes
    }
    assert {"padded", "train-two-sizes", "trajectory", "recipe"} <= {folder.name for folder in folders}
    assert f"{CASE}-padded-neck-isolated-fp32-cpu" in expected
    assert {id_ for id_ in ids if id_.startswith(f"{CASE}-")} == expected


def test_options_narrow_the_collection_down() -> None:
    done = suite("--collect-only", "--case", CASE, "--mode", "isolated", *FAST)
    ids = [line.split("[", 1)[1] for line in done.stdout.splitlines() if "test_stage[" in line]
    assert ids
    assert all("-preprocess-isolated-fp32-cpu" in name for name in ids)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--stage", "decodr"), f"--stage decodr: {CASE} has no such stage: did you mean 'decoder'?"),
        (("--case", "ddq_detr_4scale_r50"), f"unknown case 'ddq_detr_4scale_r50': did you mean '{CASE}'?"),
        (("--mode", "both"), "invalid choice: 'both'"),
        (("--worker-memory", "much"), "--worker-memory much: give a size, such as 16G"),
    ],
)
def test_a_wrong_option_is_a_usage_error(words: tuple[str, ...], message: str) -> None:
    case = () if "--case" in words else ("--case", CASE)
    done = suite(*words, *case)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def results_of(folder: Path) -> list[dict[str, Any]]:
    report = json.loads((folder / "results.json").read_text())
    results: list[dict[str, Any]] = [{**result, "seconds": 0} for result in report["results"]]
    return sorted(results, key=lambda result: (result["record"], result["mode"]))


def test_results_gathered_from_workers_equal_those_of_one_process(tmp_path: Path) -> None:
    words = ("--case", CASE, "--mode", "isolated", *FAST)
    alone = suite(*words, "--report-dir", tmp_path / "alone")
    spread = suite(*words, "--report-dir", tmp_path / "spread", "-n", "2")
    assert (alone.returncode, spread.returncode) == (0, 0), alone.stdout + spread.stdout
    assert results_of(tmp_path / "spread") == results_of(tmp_path / "alone")
    case = find_case(CASE)
    checks = [checks_in(case, folder) for folder in find_records(default_fixtures(), case=CASE)]
    expected = sum("preprocess" in each.stages and "isolated" in each.modes for each in checks)
    assert len(results_of(tmp_path / "alone")) == expected
    for done in (alone, spread):
        assert "stage checks the same; 0 flips, each judged" in done.stdout
        assert re.search(r"^preprocess ✓ [<\d]+ %$", done.stdout, re.MULTILINE), done.stdout
        assert f"report: {tmp_path}" in done.stdout


@pytest.fixture
def altered_repository(record_folder: Path, tmp_path: Path) -> Path:
    """Return a copy of the package beside one record whose truth is altered."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "parity", tmp_path / "parity", ignore=ignored)
    shutil.copytree(record_folder, tmp_path / "fixtures" / CASE / "padded")
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    path = tmp_path / "fixtures" / CASE / "padded" / "manifest.json"
    manifest = json.loads(path.read_text())
    tensors = load_file(path.with_name("preprocess.safetensors"))
    image = tensors["preprocess/image"] = 1.01 * tensors["preprocess/image"]
    save_file(tensors, path.with_name("preprocess.safetensors"))
    size = measure(torch.zeros_like(image), image)
    figures = {"max": size.expected_max, "rms": size.expected_rms, "sha256": sha256(image), "noise": {}}
    manifest["tensors"]["preprocess/image"].update(figures)
    path.write_text(json.dumps(manifest))
    return tmp_path


def test_a_stage_that_diverges_fails_with_the_message_alone(altered_repository: Path) -> None:
    done = suite("--case", CASE, *FAST, "--mode", "isolated", folder=altered_repository)
    name = f"{CASE}-padded-preprocess-isolated-fp32-cpu"
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "stage 'preprocess' is not the same: diverged" in done.stdout
    assert f'to reproduce: pytest parity -k "{name}"' in done.stdout
    assert f"first diverging stage: {name}" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_damaged_record_fails_with_one_line(altered_repository: Path) -> None:
    (altered_repository / "fixtures" / CASE / "padded" / "preprocess.safetensors").write_bytes(b"cut")
    done = suite("--case", CASE, *FAST, "--mode", "isolated", folder=altered_repository)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "preprocess.safetensors is damaged" in done.stdout
    assert "Traceback" not in done.stdout


def test_no_record_at_all_is_a_usage_error(altered_repository: Path) -> None:
    shutil.rmtree(altered_repository / "fixtures" / CASE)
    done = suite(folder=altered_repository)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "holds no record of any case: `parity freeze` makes one" in done.stdout + done.stderr


def test_fuzzing_is_collected_only_where_it_is_asked_for(collected: Done) -> None:
    assert "test_fuzz" not in collected.stdout
    asked = suite("--collect-only", "--fuzz", "5", "-k", "test_fuzz").stdout
    assert {line.split("[")[1].rstrip("]") for line in asked.splitlines() if "test_fuzz[" in line} == set(all_cases())


def test_fuzzing_without_a_legacy_engine_is_skipped_and_fails_for_a_case_that_is_named() -> None:
    words = ("--fuzz", "5", "-k", f"test_fuzz and {CASE}", "--legacy-root", "", "-rs")
    missing = "engine ddq_mmdet3rc runs a checkout: clone"
    skipped = suite(*words)
    assert skipped.returncode == 0, skipped.stdout
    assert missing in skipped.stdout
    named = suite(*words, "--case", CASE)
    assert named.returncode == 1
    assert missing in named.stdout
