"""What the harness's own tests share: a repeatable Hypothesis and the frozen records."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from parity.cases.base import Case
from parity.cases.registry import find_case
from parity.records.locate import default_fixtures
from parity.records.store import Record

CASE = "ddq_detr_4scale_r50_12e"

settings.register_profile("parity", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("parity")


@pytest.fixture(scope="session")
def case() -> Case:
    return find_case(CASE)


@pytest.fixture(scope="session")
def record_folder() -> Path:
    folder = default_fixtures() / CASE / "padded"
    if not (folder / "manifest.json").is_file():
        pytest.fail(f"{folder} is missing: `parity freeze {CASE}` makes it")
    return folder


@pytest.fixture
def record(record_folder: Path) -> Record:
    return Record(record_folder)


@pytest.fixture
def copied_record(record_folder: Path, tmp_path: Path) -> Path:
    """Return a copy of the padded record in a fixtures folder of its own, to be altered."""
    return Path(shutil.copytree(record_folder, tmp_path / "fixtures" / CASE / "padded"))


@pytest.fixture
def parity_command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs the ``parity`` command here: exit status, stdout and stderr."""
    from parity.cli import main

    def run(*words: object) -> tuple[int, str, str]:
        status = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return status, out, err

    return run
