"""What every scheduler shares: the book of jobs, answers that are read, commands, directives, wrong options."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from parity.clusters.book import Book, Job, judge
from parity.clusters.schedulers import SCHEDULERS, Request
from parity.clusters.tasks import module_call, node_command
from parity.errors import ParityError

Command = Callable[..., tuple[int, str, str]]
CASE = "ddq_fcn_r50_12e"


@pytest.mark.parametrize(
    ("scheduler", "printed", "said"),
    [
        ("slurm", "PENDING\n", "pending"),
        ("slurm", "RUNNING\n", "running"),
        ("slurm", "STAGE_OUT\n", "running"),
        ("slurm", "TIMEOUT\n", "over"),
        ("slurm", "", "over"),
        ("slurm", ParityError("squeue failed: slurm_load_jobs error: Invalid job id specified"), "over"),
        ("slurm", ParityError("squeue failed: Unable to contact slurm controller"), "unreachable"),
        ("donau", "jobId   7\nstate   PENDING\n", "pending"),
        ("donau", "  state: RUNNING\n", "running"),
        ("donau", "STATE  SUCCEEDED\n", "over"),
        ("donau", ParityError("djob failed: job 7 does not exist"), "over"),
        ("donau", ParityError("djob failed: token expired, dlogin first"), "unreachable"),
    ],
)
def test_a_queue_is_read(
    scheduler: str, printed: str | ParityError, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parity.clusters.schedulers._run", answering(printed))
    assert SCHEDULERS[scheduler].state("7") == said


def answering(printed: str | ParityError) -> Callable[[object], str]:
    def run(words: object) -> str:
        if isinstance(printed, ParityError):
            raise printed
        return printed

    return run


def test_the_command_of_a_task_is_the_users_own() -> None:
    call = module_call("ap", CASE, gpus=8, extra=("--coco-root", "/data/my coco"))
    command = node_command("ap", call, gpus=8, nodes=1, name="x")
    assert command == f"{sys.executable} -m pytest parity -m full_ap --case {CASE} --gpus 8 --coco-root '/data/my coco'"
    training = node_command("train", module_call("train", CASE, gpus=8), gpus=8, nodes=1, name="x")
    run = "torch.distributed.run --nnodes=1 --nproc-per-node=8 --standalone --module"
    assert training == f"{sys.executable} -m {run} parity train {CASE} --engine new"
    assert "torch.distributed" not in node_command("train", call, gpus=1, nodes=1, name="x")


def test_slurms_directives_are_these() -> None:
    request = Request(2, 8, 48, memory=300000, seconds=90061, account="me", partition="gpu", directives=("--qos=high",))
    assert SCHEDULERS["slurm"].directives(request, name="x", log=Path("/a/log.txt")) == [
        "#SBATCH --job-name=x",
        "#SBATCH --nodes=2",
        "#SBATCH --ntasks-per-node=1",
        "#SBATCH --cpus-per-task=48",
        "#SBATCH --gres=gpu:8",
        "#SBATCH --mem=300000M",
        "#SBATCH --time=1-01:01:01",
        "#SBATCH --account=me",
        "#SBATCH --partition=gpu",
        "#SBATCH --output=/a/log.txt",
        "#SBATCH --open-mode=append",
        "#SBATCH --signal=B:TERM@60",
        "#SBATCH --no-requeue",
        "#SBATCH --qos=high",
    ]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--queue", "x"), "--queue: slurm has no such thing"),
        (("--scheduler", "donau", "--partition", "x"), "--partition: donau has no such thing"),
        (("--nodes", "0"), "--nodes 0: give at least 1"),
        (("--gpus", "-1"), "--gpus -1: give at least 0"),
        (("--time", "12h"), "--time 12h: give [days-]hours:minutes:seconds, such as 12:00:00"),
        (("--time", "00:00:00"), "--time 00:00:00: give"),
        (("--account", "a\nrm"), "a line's end or a quote cannot be in a directive"),
        (("--task", "dance"), "invalid choice: 'dance'"),
        (("--directive", "a\nrm"), "--directive 'a\\nrm': a line's end cannot be in a directive"),
        (("--options=--a 'b",), "--options --a 'b: No closing quotation"),
    ],
)
def test_a_wrong_option_is_one_line(parity_command: Command, book: Book, words: tuple[str, ...], text: str) -> None:
    status, _, err = parity_command("submit", CASE, "--scheduler", "slurm", *words, "--state", book.folder, "--dry-run")
    assert (status, err.count("\n")) == (2, 1)
    assert text in err


def test_a_command_that_is_missing_is_one_line(
    parity_command: Command, book: Book, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    status, _, err = parity_command("submit", CASE, "--scheduler", "donau", "--state", book.folder)
    assert (status, err) == (2, "parity: dsub: no such command; submit from a login node of the cluster\n")
    assert list(book.jobs()) == []


@pytest.mark.parametrize(
    ("said", "started", "cancelled", "state"),
    [
        ("pending", False, False, "pending"),
        ("pending", True, False, "running"),
        ("running", False, False, "running"),
        ("over", True, False, "lost"),
        ("over", False, True, "cancelled"),
        ("unreachable", True, False, "unknown"),
    ],
)
def test_the_queues_word_is_weighed(said: str, started: bool, cancelled: bool, state: str) -> None:
    assert judge(said, started=started, cancelled=cancelled) == state


def test_jobs_opened_at_once_get_numbers_of_their_own(book: Book) -> None:
    found: list[Job] = []
    open_one = lambda: found.append(book.open(task="ap", case=CASE, scheduler="slurm"))  # noqa: E731
    threads = [threading.Thread(target=open_one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(job.number for job in found) == list(range(1, 9))


def test_a_submission_that_was_interrupted_is_in_the_book(parity_command: Command, book: Book) -> None:
    book.save(book.open(task="ap", case=CASE, scheduler="slurm"))
    assert "   1  unknown " in parity_command("jobs", "--state", book.folder)[1]
    status, _, err = parity_command("jobs", "follow", 1, "--state", book.folder)
    assert status == 2
    assert "job 1 has no id of slurm: its submission was interrupted" in err


def test_an_empty_book_and_a_damaged_one_are_told(parity_command: Command, book: Book) -> None:
    assert parity_command("jobs", "--state", book.folder) == (0, f"{book.folder}: no job\n", "")
    assert "has no job 7" in parity_command("jobs", "cancel", 7, "--state", book.folder)[2]
    assert "needs the job's number" in parity_command("jobs", "follow", "--state", book.folder)[2]
    job = book.open(task="ap", case=CASE, scheduler="slurm")
    (job.folder / "job.json").write_text('{"number": 1}')
    status, _, err = parity_command("jobs", "--state", book.folder)
    assert (status, err.count("\n")) == (2, 1)
    assert "job.json is damaged" in err


def test_the_state_folder_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PARITY_STATE", str(tmp_path))
    assert Book().folder == tmp_path / "jobs"
    monkeypatch.delenv("PARITY_STATE")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert Book().folder == tmp_path / "xdg" / "parity" / "jobs"
