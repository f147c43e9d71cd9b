"""The book of jobs: a folder for each below the state folder, ``job.json`` beside its scripts, log and exit code.

Whoever makes a job's folder holds a lock in it until the job is in the book. What a submission that was killed before
that left behind is removed when the book is next opened.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from parity.atomic import sweep
from parity.clusters.schedulers import PENDING, RUNNING, SCHEDULERS, UNREACHABLE
from parity.errors import DAMAGE, ParityError
from parity.locks import try_take_at
from parity.report.files import write_text

ENDED = ("succeeded", "failed", "cancelled", "lost")
NOTED = "job.json"  # what makes a folder a job of the book
_LOCK = ".submitting"
_BEFORE_NOTED = {"job.sh", "node.sh", _LOCK}  # all that a submission writes before it is in the book


@dataclass(frozen=True)
class Job:
    """One submitted job.

    Attributes:
        number: its own, counted in this book.
        scheduler_id: the scheduler's; empty while it is being submitted.
        submitted: seconds since 1970.
        cancelled: whether ``parity jobs cancel`` was asked to end it.
    """

    number: int
    folder: Path
    task: str
    case: str
    scheduler: str
    scheduler_id: str = ""
    submitted: int = 0
    cancelled: bool = False

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.folder / "log.txt"

    def exit_code(self) -> int | None:
        """Return how it ended, as the job itself wrote it; ``None`` before that."""
        try:
            return int((self.folder / "exit-code").read_text())
        except DAMAGE:
            return None

    def state(self) -> str:
        """Return pending, running, unknown, or one of ``ENDED``."""
        code = self.exit_code()
        if code is not None:
            return "succeeded" if code == 0 else "cancelled" if self.cancelled else "failed"
        if not self.scheduler_id:
            return "unknown"
        said = SCHEDULERS[self.scheduler].state(self.scheduler_id)
        started = (self.folder / "started").exists()
        return judge(said, started=started, cancelled=self.cancelled)


def judge(said: str, *, started: bool, cancelled: bool) -> str:
    """Return the state of a job that has not written how it ended, from what the queue says.

    >>> judge("pending", started=True, cancelled=False)  # the queue lags behind
    'running'
    >>> judge("over", started=True, cancelled=False)  # it was killed before it could write
    'lost'
    """
    if said == UNREACHABLE:
        return "unknown"
    if said in (PENDING, RUNNING):
        return "running" if started else said
    return "cancelled" if cancelled else "lost"


class Book:
    """The jobs below a state folder."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = (folder or default_folder()).resolve()
        self._held: dict[int, int] = {}  # number of a job -> descriptor of its lock
        self._swept = False

    def jobs(self) -> Iterator[Job]:
        """Yield all jobs, oldest first.

        Raises:
            ParityError: behind the last one, if one is damaged: it hides no other.
        """
        self._sweep()
        damaged: ParityError | None = None
        for path in sorted(self.folder.glob(f"[0-9]*/{NOTED}")):
            try:
                job = _read(path)
            except ParityError as error:
                damaged = damaged or error
            else:
                yield job
        if damaged:
            raise damaged

    def find(self, number: int) -> Job:
        """Return a job by its number.

        Raises:
            ParityError: there is none.
        """
        for job in self.jobs():
            if job.number == number:
                return job
        raise ParityError(f"{self.folder} has no job {number}; `parity jobs` lists them")

    def find_submitted(self, number: int) -> Job:
        """Return a job that its scheduler has taken.

        Raises:
            ParityError: there is none, or the scheduler's answer was never noted.
        """
        job = self.find(number)
        if not job.scheduler_id:
            raise ParityError(
                f"job {number} has no id of {job.scheduler}: its submission was interrupted; {job.folder}"
            )
        return job

    def open(self, *, task: str, case: str, scheduler: str) -> Job:
        """Make a new job's folder; two at once get two numbers. It is kept only if the job is saved."""
        self._sweep()
        number = 1 + max((int(path.name) for path in self.folder.glob("[0-9]*") if path.name.isdigit()), default=0)
        while True:
            folder = self.folder / f"{number:04}"
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                folder.mkdir()
                lock = _lock(folder)
            except FileExistsError:
                if not self.folder.is_dir():
                    raise ParityError(f"--state {self.folder}: it is no folder") from None
                number += 1
            except OSError as error:
                raise ParityError(f"--state {self.folder}: {error.strerror}") from None
            else:
                if lock is not None:
                    self._held[number] = lock
                    return Job(number, folder, task, case, scheduler)

    def save(self, job: Job) -> None:
        """Write ``job.json``, whole or not at all."""
        content = {key: value for key, value in asdict(job).items() if key != "folder"}
        write_text(job.folder / NOTED, json.dumps(content, indent=1) + "\n")
        if job.number in self._held:
            with suppress(OSError):
                (job.folder / _LOCK).unlink()
            os.close(self._held.pop(job.number))

    def forget(self, job: Job) -> None:
        """Take a job out of the book, with its folder."""
        with suppress(OSError):
            (job.folder / NOTED).unlink()  # first: a kill on the way leaves what is swept
        shutil.rmtree(job.folder, ignore_errors=True)
        if job.number in self._held:
            os.close(self._held.pop(job.number))

    def _sweep(self) -> None:
        """Remove, once, what submissions left that were killed before their job was in the book."""
        if not self._swept:
            self._swept = True
            for folder in self.folder.glob("[0-9]*"):
                with suppress(OSError):  # a book of somebody else's may be looked at
                    _sweep_job(folder)

    def cancel(self, job: Job) -> Job:
        """Ask the scheduler to end a job, and note that.

        Raises:
            ParityError: it has ended, or the scheduler refuses.
        """
        if job.state() in ENDED:
            raise ParityError(f"job {job.number} has ended: {job.state()}")
        noted = replace(job, cancelled=True)
        self.save(noted)
        try:
            SCHEDULERS[job.scheduler].cancel(job.scheduler_id)
        except ParityError:
            self.save(job)
            raise
        return noted


def default_folder() -> Path:
    """Return ``$PARITY_STATE/jobs``, or the user's state folder."""
    state = os.environ.get("PARITY_STATE")
    if state:
        return Path(state) / "jobs"
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "parity" / "jobs"


def _lock(folder: Path) -> int | None:
    """Lock a job's folder that was just made; ``None`` where a sweep took it for a leftover between the two.

    Then it may be there again, made by another submission, which may even have ended by now.
    """
    path = folder / _LOCK
    with suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        if try_take_at(path, descriptor):
            if list(folder.iterdir()) == [path]:
                return descriptor
            path.unlink(missing_ok=True)
        os.close(descriptor)
    return None


def _sweep_job(folder: Path) -> None:
    """Remove a folder that is not in the book and whose maker is gone; where nobody can tell, it stays."""
    sweep(folder / "*")
    path, noted = folder / _LOCK, folder / NOTED
    there = {each.name for each in folder.iterdir()}
    if (_LOCK not in there) if NOTED in there else there - _BEFORE_NOTED:
        return
    with path.open("ab") as file:
        if not try_take_at(path, file.fileno(), without_locks=False):
            return
        if noted.exists():
            path.unlink()
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _read(path: Path) -> Job:
    try:
        content = json.loads(path.read_text())
        job = Job(**content, folder=path.parent)
    except DAMAGE as error:
        raise ParityError(f"{path} is damaged: {re.sub(r'^.*__init__', 'job', str(error))}") from None
    if job.scheduler not in SCHEDULERS:
        raise ParityError(f"{path} is damaged: no scheduler {job.scheduler!r}")
    return job
