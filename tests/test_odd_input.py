"""Input and machines that nobody expects: one line that says what is wrong, exit status 2, no traceback."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from parity import cli
from parity.clusters.book import Book
from parity.errors import ParityError

Command = Callable[..., tuple[int, str, str]]
CASE = "ddq_fcn_r50_12e"
NESTED = 100_000 * "["
DIGITS = "1" + 400 * "0"


def one_line(found: tuple[int, str, str]) -> str:
    """Return what was said on standard error, which is one line, with exit status 2."""
    status, _, err = found
    assert status == 2
    assert err.startswith("parity: ")
    assert err.count("\n") == 1
    assert "fault of parity" not in err
    return err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_of_few_letters_shows_escapes(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"schema": "\u2713\\ud800"}')
    command = [sys.executable, "-m", "parity", "report", str(tmp_path)]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert rb"has schema '\u2713\ud800', this version reads" in done.stderr


@pytest.mark.parametrize("content", [NESTED, '{"schema": ' + NESTED, f'{{"schema": {DIGITS}}}', "[]", "\0", "\ufeff{}"])
@pytest.mark.parametrize("words", [("report", "results.json"), ("report", "--curves", "results.json")])
def test_a_file_of_anything_is_one_line(
    content: str, words: tuple[str, ...], tmp_path: Path, parity_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("results.json").write_text(content)
    assert "results.json" in one_line(parity_command(*words))


def test_a_link_that_leads_to_itself_is_one_line(tmp_path: Path, parity_command: Command) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert str(loop) in one_line(parity_command("report", loop))
    assert str(loop) in one_line(parity_command("report", "--history", loop))
    assert str(loop) in one_line(parity_command("cases", "--cases", loop))


def test_an_error_of_a_megabyte_is_one_line_and_the_end_of_its_detail(
    parity_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(options: object) -> int:
        raise ParityError("first\n" + 1_000_000 * "x", detail=1_000_000 * "d" + "the end\n")

    monkeypatch.setattr(cli, "_cases", fail)
    status, _, err = parity_command("cases")
    line, _, detail = err.partition("\n")
    assert status == 2
    assert line.startswith("parity: first x")
    assert len(line) < 1100
    assert detail.endswith("the end\n\n")
    assert len(detail) < 8100
    assert len(parity_command("--debug", "cases")[2]) > 1_000_000


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x"), "parity: /x: No space left on device\n"),
        (MemoryError("17 GB"), "parity: memory ran out (17 GB)\n"),
        (RecursionError("deep"), "parity: something that was given is nested too deep (deep)\n"),
    ],
)
def test_what_the_machine_refuses_is_one_line(
    error: BaseException, said: str, parity_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(options: object) -> int:
        raise error

    monkeypatch.setattr(cli, "_cases", fail)
    assert parity_command("cases") == (2, "", said)


def test_a_fault_of_parity_is_told_as_one(parity_command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(options: object) -> int:
        raise RuntimeError("not a loop")

    monkeypatch.setattr(cli, "_cases", fail)
    status, _, err = parity_command("cases")
    assert status == 2
    assert err.endswith("parity: RuntimeError, a fault of parity itself: the traceback is above\n")


def test_a_full_disk_leaves_no_job(book: Book, parity_command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    err = one_line(parity_command("submit", CASE, "--scheduler", "slurm", "--state", book.folder))
    assert "cannot be written: No space left on device" in err
    assert list(book.jobs()) == list(book.folder.iterdir()) == []


def test_a_damaged_job_hides_no_other(book: Book, parity_command: Command) -> None:
    for number in range(3):
        book.save(book.open(task="ap", case=CASE, scheduler="slurm"))
        if number == 0:
            (book.folder / "0001" / "job.json").write_text(NESTED)
    assert book.find(3).number == 3
    status, out, err = parity_command("jobs", "--state", book.folder)
    assert [line.split()[0] for line in out.splitlines()] == ["2", "3"]
    assert (status, err.count("\n")) == (2, 1)
    assert "0001/job.json is damaged" in err
