"""A report that is killed while it is written loses no run and mixes none; the next one leaves nothing unfinished."""

from __future__ import annotations

import random
from pathlib import Path

from kills import KILLS, hidden, killed, killed_at_each_step
from report_tools import check, run_of

from parity.report.history_log import read_history
from parity.report.publish import publish
from parity.report.results import RESULTS, Report, read_report

WRITER = """
import sys
from pathlib import Path
from test_publish_killed import list_of, numbered

print("ready", flush=True)
number = int(sys.argv[2])
while True:
    list_of(numbered(number), Path(sys.argv[1]))
    print(number, flush=True)
    number += 1
"""


def numbered(number: int) -> Report:
    """Return a run that its version tells from the others."""
    when = f"2026-11-20T{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}+00:00"
    return run_of(check("backbone"), check("encoder"), when=when, parity=f"run-{number}")


def list_of(report: Report, folder: Path) -> list[str]:
    """Write a run; return what is told of it."""
    return list(publish(report, folder))


def name_of(folder: Path) -> str:
    return str(read_report(folder).environment["parity"])


def in_history(folder: Path) -> set[str]:
    log = read_history(folder)
    assert log.unreadable == {}
    return {run.surroundings["parity"] for run in log.history.runs}


class Runs:
    """Runs that are written into one folder, and what has to hold of it after each kill."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.next = 0
        self.finished: set[str] = set()

    def assert_whole(self) -> None:
        """Nothing that was finished is lost, nothing is mixed; the next start leaves nothing unfinished."""
        there = name_of(self.folder) if (self.folder / RESULTS).exists() else ""
        if (self.folder / "index.html").exists():
            assert there in (self.folder / "index.html").read_text("utf-8")
        assert not self.finished - in_history(self.folder.parent) - {there}
        assert list_of(numbered(self.next), self.folder)[1].startswith("history: /")
        latest = f"run-{self.next}"
        self.finished |= {latest, *filter(None, [there])}
        assert name_of(self.folder) == latest
        assert latest in (self.folder / "index.html").read_text("utf-8")
        assert not self.finished - in_history(self.folder.parent)
        assert list(hidden(self.folder.parent)) == []
        self.next += 1


def test_a_kill_at_any_moment_loses_no_run_and_mixes_none(tmp_path: Path) -> None:
    runs, moment = Runs(tmp_path / "reports" / "latest"), random.Random(15)
    for _ in range(KILLS):
        done = killed(WRITER, runs.folder, runs.next, moment=moment, most=1.5)
        runs.finished |= {f"run-{number}" for number in done}
        runs.next += len(done) + 1  # the one that was being written is never written again
        runs.assert_whole()
    # Nothing is in the history that nobody wrote.
    assert in_history(runs.folder.parent) <= {f"run-{number}" for number in range(runs.next)}


def test_a_kill_before_each_thing_it_does_to_files_loses_no_run_and_mixes_none(tmp_path: Path) -> None:
    runs = Runs(tmp_path / "reports" / "latest")
    runs.assert_whole()

    def checked() -> None:
        runs.next += 1
        runs.assert_whole()

    assert killed_at_each_step(lambda: list_of(numbered(runs.next), runs.folder), tmp_path, checked) > 8
