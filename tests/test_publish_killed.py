"""A report that is killed while it is written loses no run and mixes none; the next one leaves nothing unfinished."""

from __future__ import annotations

import random
from pathlib import Path

from kills import KILLS, hidden, killed
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


def test_a_kill_at_any_moment_loses_no_run_and_mixes_none(tmp_path: Path) -> None:
    folder, moment, first = tmp_path / "reports" / "latest", random.Random(15), 0
    finished: set[str] = set()
    for _ in range(KILLS):
        done = killed(WRITER, folder, first, moment=moment, most=1.5)
        finished |= {f"run-{number}" for number in done}
        first += len(done) + 1  # the one that was being written is never written again
        there = name_of(folder) if (folder / RESULTS).exists() else ""
        if (folder / "index.html").exists():
            assert there in (folder / "index.html").read_text("utf-8")
        assert not finished - in_history(folder.parent) - {there}
        # The next start.
        assert list_of(numbered(first), folder)[1].startswith("history: /")
        finished |= {f"run-{first}", *filter(None, [there])}
        assert name_of(folder) == f"run-{first}"
        assert f"run-{first}" in (folder / "index.html").read_text("utf-8")
        assert not finished - in_history(folder.parent)
        assert list(hidden(tmp_path)) == []
        first += 1
    # Nothing is in the history that nobody wrote.
    assert in_history(folder.parent) <= {f"run-{number}" for number in range(first)}
