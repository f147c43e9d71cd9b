"""Submissions that are killed, or come together: each job that a scheduler took is in the book, and nothing else is."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest
from kills import KILLS, killed, killed_at_each_step, together

from parity.cli import main
from parity.clusters import book as book_module
from parity.clusters.book import Book, Job

CASE = "ddq_fcn_r50_12e"
# A scheduler that takes everything, and writes down what it took before it answers.
SBATCH = """#!/bin/sh
for script; do :; done
echo "$script" >> "$TAKEN"
echo $$
"""
SUBMITTER = """
import sys
from pathlib import Path
from parity.cli import main

print("ready", flush=True)
if sys.argv[2] != "for ever":
    sys.stdin.readline()
count = 0
while sys.argv[2] == "for ever" or count < int(sys.argv[2]):
    assert main(["submit", "ddq_fcn_r50_12e", "--scheduler", "slurm", "--state", sys.argv[1]]) == 0
    count += 1
"""


@pytest.fixture
def taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file in which the scheduler writes the scripts that it took."""
    place = tmp_path / "bin" / "sbatch"
    place.parent.mkdir()
    place.write_text(SBATCH)
    place.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TAKEN", str(tmp_path / "taken"))
    return tmp_path / "taken"


def assert_whole(book: Book, taken: Path) -> None:
    """All that was taken is in the book, and every folder there is a job's and holds nothing unfinished."""
    jobs = list(Book(book.folder).jobs())
    folders = {job.folder for job in jobs}
    assert {Path(script).parent for script in taken.read_text().splitlines()} <= folders
    assert set(book.folder.glob("*")) == folders
    for job in jobs:
        assert (job.task, job.case, job.scheduler) == ("ap", CASE, "slurm")
        assert {path.name for path in job.folder.iterdir()} == {"job.json", "job.sh", "node.sh"}


def test_a_kill_at_any_moment_leaves_jobs_that_are_whole(book: Book, taken: Path) -> None:
    taken.touch()
    moment = random.Random(15)
    for _ in range(KILLS):
        killed(SUBMITTER, book.folder, "for ever", moment=moment, most=1.0)
        assert_whole(book, taken)
    together(SUBMITTER, (book.folder, 1))
    assert taken.read_text()
    assert_whole(book, taken)


def test_a_kill_before_each_thing_it_does_to_files_leaves_jobs_that_are_whole(book: Book, taken: Path) -> None:
    taken.touch()
    words = ["submit", CASE, "--scheduler", "slurm", "--state", str(book.folder)]
    assert killed_at_each_step(lambda: main(words), book.folder, lambda: assert_whole(book, taken)) > 8
    assert taken.read_text()


def test_of_two_at_once_every_job_is_whole(book: Book, taken: Path) -> None:
    together(SUBMITTER, (book.folder, 6), (book.folder, 6), (book.folder, 6))
    assert_whole(book, taken)
    jobs = list(book.jobs())
    assert len({job.number for job in jobs}) == len(jobs) == 18  # a number may be left out
    assert len(set(taken.read_text().splitlines())) == 18
    assert all(job.scheduler_id for job in jobs)


@pytest.mark.parametrize("left", [(), ("job.sh",), ("job.sh", "node.sh", ".submitting", ".job.json.1-2.part")])
def test_what_was_left_before_the_job_was_in_the_book_goes(book: Book, left: tuple[str, ...]) -> None:
    folder = book.folder / "0007"
    folder.mkdir(parents=True)
    for name in left:
        (folder / name).touch()
    assert list(Book(book.folder).jobs()) == []
    assert not folder.exists()


def test_what_is_left_of_a_job_in_the_book_goes_and_the_job_stays(book: Book) -> None:
    job = book.open(task="ap", case=CASE, scheduler="slurm")
    book.save(job)
    for name in (".submitting", ".job.json.1-2.part"):
        (job.folder / name).touch()
    assert list(Book(book.folder).jobs()) == [job]
    assert [path.name for path in job.folder.iterdir()] == ["job.json"]


def test_what_is_being_submitted_and_what_has_run_stay(book: Book) -> None:
    job = book.open(task="ap", case=CASE, scheduler="slurm")
    ran = book.folder / "0009"
    ran.mkdir()
    (ran / "log.txt").write_text("somebody removed job.json")
    assert list(Book(book.folder).jobs()) == []
    assert job.folder.is_dir()
    assert [path.name for path in ran.iterdir()] == ["log.txt"]
    book.save(job)
    assert list(Book(book.folder).jobs()) == [job]
    assert [path.name for path in job.folder.iterdir()] == ["job.json"]


def test_a_job_that_is_forgotten_half_way_is_swept(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    job = book.open(task="ap", case=CASE, scheduler="slurm")
    (job.folder / "job.sh").touch()
    book.save(job)
    monkeypatch.setattr("parity.clusters.book.shutil.rmtree", stopped)
    with pytest.raises(KeyboardInterrupt):
        book.forget(job)
    monkeypatch.undo()
    assert list(Book(book.folder).jobs()) == []
    assert not job.folder.exists()


def stopped(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_sweep_that_was_overtaken_leaves_what_has_taken_the_place(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It opened the lock of a leftover that another sweep then removed; a new submission has its number by now."""
    left = book.folder / "0001"
    left.mkdir(parents=True)
    (left / ".submitting").touch()
    made: list[Job] = []
    take = book_module.try_take_at

    def overtaken(path: Path, descriptor: int, **options: bool) -> bool:
        if not made:
            shutil.rmtree(left)
            monkeypatch.setattr(book_module, "try_take_at", take)
            made.append(Book(book.folder).open(task="ap", case=CASE, scheduler="slurm"))
            (made[0].folder / "job.sh").touch()
        return take(path, descriptor, **options)

    monkeypatch.setattr(book_module, "try_take_at", overtaken)
    assert list(Book(book.folder).jobs()) == []
    assert made[0].folder == left
    assert {path.name for path in left.iterdir()} == {".submitting", "job.sh"}


def test_a_submission_that_was_overtaken_takes_another_number(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between making its folder and locking it, it was swept; another submission has that number, and has ended."""
    lock, ended = book_module._lock, []

    def overtaken(folder: Path) -> int | None:
        monkeypatch.setattr(book_module, "_lock", lock)
        shutil.rmtree(folder)
        other = Book(book.folder)
        ended.append(other.open(task="ap", case=CASE, scheduler="slurm"))
        other.save(ended[0])
        return lock(folder)

    monkeypatch.setattr(book_module, "_lock", overtaken)
    job = book.open(task="ap", case=CASE, scheduler="slurm")
    assert (ended[0].number, job.number) == (1, 2)
    assert [path.name for path in ended[0].folder.iterdir()] == ["job.json"]
