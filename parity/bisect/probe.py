"""One check command, run often enough to be believed."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Outcome(StrEnum):
    """What a check says of a state. ``unknown`` and ``flaky`` ones are passed over, as ``git bisect skip`` does."""

    GOOD = "good"
    BAD = "bad"
    UNKNOWN = "cannot be told"
    FLAKY = "flaky"

    @property
    def believed(self) -> bool:
        """Whether it says anything."""
        return self in (Outcome.GOOD, Outcome.BAD)


@dataclass(frozen=True)
class Told:
    """An outcome and the exit statuses it comes from; ``None`` is a run that was ended at its time limit."""

    outcome: Outcome
    statuses: tuple[int | None, ...]

    def __str__(self) -> str:
        """Return it for people.

        >>> str(Told(Outcome.FLAKY, (0, 1)))
        'flaky (exit 0, 1)'
        """
        told = ", ".join("time limit" if status is None else str(status) for status in self.statuses)
        return f"{self.outcome.value} (exit {told})"


@dataclass(frozen=True)
class Check:
    """A command and how it is to be run.

    Attributes:
        command: its words; a single one goes through the shell.
        repeat: how many runs have to agree.
        time_limit: seconds for one run; ``None`` is no limit.
        setup: a shell command that makes the state ready; where it fails, nothing can be told.
    """

    command: Sequence[str]
    repeat: int = 2
    time_limit: float | None = None
    setup: str = ""

    def tell(self, folder: Path, environment: Mapping[str, str]) -> Told:
        """Run the command in ``folder`` until ``repeat`` runs agree or two do not; return what they say.

        Exit 0 is good and 1 is bad. Any other status says nothing: 2 is a wrong call or environment, of ``parity`` as
        of pytest; 5 is pytest without a test; a signal is a crash.
        """
        if self.setup:
            status = run(self.setup, folder, environment)
            if status != 0:
                return Told(Outcome.UNKNOWN, (status,))
        statuses: list[int | None] = []
        for _ in range(self.repeat):
            statuses.append(run(self.command, folder, environment, self.time_limit))
            outcome = outcome_of(statuses)
            if not outcome.believed:
                break
        return Told(outcome, tuple(statuses))


def outcome_of(statuses: Sequence[int | None]) -> Outcome:
    """Return what exit statuses say together.

    >>> [outcome_of(statuses).value for statuses in ([0, 0], [1], [0, 1], [0, 2], [None])]
    ['good', 'bad', 'flaky', 'cannot be told', 'cannot be told']
    """
    if any(status not in (0, 1) for status in statuses):
        return Outcome.UNKNOWN
    if len(set(statuses)) > 1:
        return Outcome.FLAKY
    return Outcome.GOOD if statuses[0] == 0 else Outcome.BAD


def run(
    command: Sequence[str] | str, folder: Path, environment: Mapping[str, str], time_limit: float | None = None
) -> int | None:
    """Return the exit status of a command, whose output goes where this process's goes; ``None`` at the time limit.

    127 is a program that there is not, as a shell has it.
    """
    single = command if isinstance(command, str) else command[0] if len(command) == 1 else ""
    words: Sequence[str] | str = single or [*command]
    try:
        started = subprocess.Popen(words, cwd=folder, env=dict(environment), shell=bool(single), start_new_session=True)
    except OSError:
        return 127
    try:
        return started.wait(time_limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if started.poll() is None:  # its children as well: a test runner has workers
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()


def as_typed(command: Sequence[str]) -> str:
    """Return a command as it is typed."""
    return command[0] if len(command) == 1 else shlex.join(command)
