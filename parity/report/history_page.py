"""The page of the history: since when is it so, and what changed?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from parity.report.diff import Change, environment_changes, moved
from parity.report.figures import duration
from parity.report.files import script_and_hash, templates, write_text
from parity.report.gather import keep
from parity.report.history import Checked, History, Run, checks_of_run, last_green, present
from parity.report.history_log import LOG, OLD, open_log
from parity.report.matrix import percent
from parity.report.order import unique
from parity.report.plotly import SCRIPT, plotly_script

PAGE = "index.html"
_COMMIT = "commit"


@dataclass(frozen=True)
class Standing:
    """How it stands on one device: the run that decides, and what is different from the last green one before it.

    Attributes:
        run: the newest one, unless one before it failed in what nobody checked again.
        since: the run with which the present state, same or not, began; ``runs`` of it followed one another.
        green: the last green run that the newest one can be compared with, if there is any.
        changes: what changed since then, the worse first.
    """

    run: Run
    since: Run
    runs: int
    green: Run | None
    changes: Sequence[Change]

    @property
    def commits(self) -> str:
        """The commits to look among, as git takes them; empty where they are unknown or the same."""
        ends = [run.commit.rstrip("+") for run in (self.green, self.run) if run is not None]
        return f"{ends[0]}..{ends[1]}" if len(ends) == 2 and all(ends) and ends[0] != ends[1] else ""


def update_history(folder: Path) -> Path:
    """Bring ``history.jsonl`` and ``index.html`` of a folder of runs up to date; return the page's path.

    Raises:
        ParityError: a file cannot be written.
    """
    with open_log(folder) as file:
        log = keep(folder, file)
        plotly_script(folder)
        runs = present(folder, log.history.runs)
        linked = {(run.name, run.when) for run in runs if (folder / run.name / PAGE).is_file()}
        page = render_history(log.history, linked=linked, unreadable=log.unreadable)
        return write_text(folder / PAGE, page)


def keeps_history(folder: Path) -> bool:
    """Whether a run written into ``folder`` belongs to a history: beside it lies one, or it is in ``reports``."""
    parent = folder.resolve().parent
    return parent.name == "reports" or any((parent / name).is_file() for name in (LOG, OLD))


def render_history(
    history: History, *, linked: set[tuple[str, str]] | None = None, unreadable: dict[str, str] | None = None
) -> str:
    """Return the page as HTML. All names are escaped; nothing but Plotly's script beside it is loaded."""
    linked = linked or set()
    changes = _changes_by_run(history)
    own = (files("parity.report") / "templates" / "history.js").read_text("utf-8")
    own_script, script_hash = script_and_hash(f"\n{own}")
    standings = [_standing(history, device) for device in _devices(history)]
    view = {
        "standings": standings,
        "good": bool(standings) and all(standing.run.passes for standing in standings),
        "rows": [
            (run, _link(run, linked), [change for change in changes[at] if change.where != _COMMIT])
            for at, run in reversed(list(enumerate(history.runs)))
        ],
        "surroundings": [
            (history.runs[at], change)
            for at in reversed(range(len(history.runs)))
            for change in changes[at]
            if change.where != _COMMIT
        ],
        "unreadable": sorted((unreadable or {}).items()),
        "data": _data(history, changes, linked),
        "script": SCRIPT,
        "own_script": own_script,
        "script_hash": script_hash,
    }
    return templates(duration, day).get_template("history.html.j2").render(view)


def day(when: str) -> str:
    """Return a time for people, to the minute.

    >>> day("2026-11-20T02:00:03+00:00")
    '2026-11-20 02:00'
    """
    return when[:16].replace("T", " ")


def _devices(history: History) -> list[str]:
    """Return the devices, that of the newest run first."""
    return unique(run.device for run in reversed(history.runs))


def _link(run: Run, linked: set[tuple[str, str]]) -> str:
    return f"{run.name}/{PAGE}" if (run.name, run.when) in linked else ""


def _standing(history: History, device: str) -> Standing:
    runs = [run for run in history.runs if run.device == device]
    deciding = _deciding(history, runs)
    since, count = deciding, 0
    for run in reversed(runs[: runs.index(deciding) + 1]):
        if run.passes != deciding.passes:
            break
        since, count = run, count + 1
    green = last_green(history, deciding)
    return Standing(deciding, since, count, green, changed(history, green, deciding) if green else ())


def _deciding(history: History, runs: Sequence[Run]) -> Run:
    """Return the newest run, or the one whose failures, in checks or AP, no later one looked at again.

    A green run of one stage does not make a red night good. A run of as many checks as ever settles them all, so that
    what is checked no more is forgotten.
    """
    again: set[str] = set()
    measured = False
    most = max(run.ran for run in runs)
    for run in reversed(runs):
        checks = checks_of_run(history, run)
        failed = {name for name, found in checks.items() if not found.verdict.passes}
        if failed - again or (run.problems and not measured):
            return run
        again |= checks.keys()
        measured = measured or bool(run.ap)
        if run.ran == most:
            break
    return runs[-1]


def changed(history: History, before: Run, after: Run) -> list[Change]:
    """Return what is different between two runs, the worse first: verdicts, errors beyond noise, surroundings."""
    old, new = checks_of_run(history, before), checks_of_run(history, after)
    changes = [change for name in new for change in _check_change(name, old.get(name), new[name])]
    changes += [Change("check", name, old[name].verdict.value, "", True) for name in old if name not in new]
    changes.sort(key=lambda change: not change.worse)
    return [*changes, *environment_changes({"new": before.surroundings}, {"new": after.surroundings})]


def _check_change(name: str, then: Checked | None, now: Checked) -> list[Change]:
    if then is None:
        return [] if now.verdict.passes else [Change("check", name, "", now.verdict.value, True)]
    if then.verdict.passes != now.verdict.passes:
        return [Change("verdict", name, then.verdict.value, now.verdict.value, not now.verdict.passes)]
    if now.verdict.passes and moved(then.used, now.used):
        words = [f"{percent(found.used)} of its budget" for found in (then, now)]
        return [Change("error", name, words[0], words[1], now.used > then.used)]
    return []


def _changes_by_run(history: History) -> list[list[Change]]:
    """Return of every run how its surroundings differ from those of the run before it on the same device."""
    before: dict[str, Run] = {}
    found = []
    for run in history.runs:
        earlier = before.get(run.device)
        same = {"new": earlier.surroundings} if earlier else None
        found.append(environment_changes(same, {"new": run.surroundings}) if same else [])
        before[run.device] = run
    return found


def _data(history: History, changes: Sequence[Sequence[Change]], linked: set[tuple[str, str]]) -> dict[str, Any]:
    """Return what the plots are drawn from; ``history.jsonl`` has the same for other tools."""
    runs = [
        {
            "name": run.name,
            "when": day(run.when),
            "passes": run.passes,
            "device": run.device,
            "commit": run.commit,
            "passed": run.passed,
            "ran": run.ran,
            "flips": run.flips,
            "seconds": run.seconds,
            "link": _link(run, linked),
            "changes": [str(change) for change in marks],
            "marked": any(change.where != _COMMIT for change in marks),
            "verdicts": run.verdicts,
            "used": run.used,
            "ap": run.ap,
        }
        for run, marks in zip(history.runs, changes, strict=True)
    ]
    return {"checks": history.checks, "runs": runs}
