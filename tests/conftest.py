"""What the harness's own tests share: a repeatable Hypothesis and the frozen records."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from parity.cases.base import Case
from parity.cases.registry import find_case
from parity.clusters.book import Book
from parity.engines.environment import legacy_python
from parity.engines.sandbox import OFF, allowed
from parity.errors import ParityError
from parity.records.locate import default_fixtures
from parity.records.store import Record

CASE = "ddq_detr_4scale_r50_12e"

settings.register_profile("parity", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("parity")

# A command that holds its lines back hangs the test that waits for one; this setting of a developer would hide it.
os.environ.pop("PYTHONUNBUFFERED", None)

# Where the kernel refuses a sandbox, each command that starts a worker says so in a line of its own; that line is for
# tests/test_sandbox.py, which looks at the kernel itself.
if allowed().refused:
    os.environ.setdefault(OFF, "1")


@pytest.fixture(scope="session")
def case() -> Case:
    return find_case(CASE)


@pytest.fixture(scope="session")
def record_folder() -> Path:
    folder = default_fixtures() / CASE / "padded"
    if not (folder / "manifest.json").is_file():
        pytest.fail(f"{folder} is missing: `parity freeze {CASE}` makes it")
    return folder


@pytest.fixture(scope="session")
def mmdet2() -> str:
    """Return the Python that holds mmdet 2.22."""
    try:
        return legacy_python("mmdet2", os.environ.get("PARITY_MMDET2_PYTHON"))
    except ParityError as missing:
        pytest.skip(f"needs mmdet 2.22 in Python 3.8, or its interpreter in PARITY_MMDET2_PYTHON: {missing}")


@pytest.fixture
def record(record_folder: Path) -> Record:
    return Record(record_folder)


@pytest.fixture
def copied_record(record_folder: Path, tmp_path: Path) -> Path:
    """Return a copy of the padded record in a fixtures folder of its own, to be altered."""
    return Path(shutil.copytree(record_folder, tmp_path / "fixtures" / CASE / "padded"))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Return a Chromium without a window, driven by Playwright, which allows one at a time in a process."""
    chromium = os.environ.get("PARITY_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium: apt-get install chromium, or name one by PARITY_CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture
def window(browser: Any) -> Iterator[Any]:
    """Return a `browser_window.Window`; fail if its pages complain or ask for anything but their own files."""
    from browser_window import Window

    window = Window(browser)
    yield window
    window.close()
    assert window.said == []
    assert window.asked == []


@pytest.fixture
def parity_command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs the ``parity`` command here: exit status, stdout and stderr."""
    from parity.cli import main

    def run(*words: object) -> tuple[int, str, str]:
        status = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path / "book")
