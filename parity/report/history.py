"""What every run of a folder found, kept small; ``history_log`` keeps it, and it outlives the runs' own folders.

A run is known by its folder's name and by when it began: a folder that is written anew (``reports/latest``) adds a
run to the history, and one that is deleted keeps its figures there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from parity.compare.verdicts import Verdict
from parity.report.ap_figures import AP, CaseAp
from parity.report.diff import surroundings
from parity.report.order import in_order, rerun
from parity.report.results import RESULTS, Report, StageResult

NO_CHECK = "."
Key = tuple[str, str, str, str, str, str]  # of a check: case, record, stage, mode, dtype, device
_LETTERS = dict(zip(Verdict, "ewcidntsxm", strict=True))  # one letter a check: a year of nights stays small
LETTERS = {letter: verdict for verdict, letter in _LETTERS.items()}


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of one run, whatever way its checks are.

    Attributes:
        name: of its folder.
        when: it began: ISO 8601, UTC.
        source: size and time of the files it was read from: what tells whether they were written anew.
        first: id of the first check that diverged; ``rerun`` is the command for it.
        seconds: the sum of all checks'.
        surroundings: versions, commit, driver: see ``diff.surroundings``.
        ap: case and figure -> percent, where AP was measured; ``problems`` are what lies beyond its limits.
    """

    name: str
    when: str
    source: str
    verdict: Verdict
    passed: int
    ran: int
    flips: int
    seconds: float
    first: str
    rerun: str
    surroundings: dict[str, str]
    ap: dict[str, float] = {}
    problems: list[str] = []


class Run(Told, frozen=True, kw_only=True):
    """One run; ``verdicts`` and ``used`` go with the history's ``checks``.

    Attributes:
        verdicts: one letter a check, ``.`` where it was not run.
        used: the greatest share of its budget that a tensor of the check used; nothing where there is no such figure.
    """

    verdicts: str
    used: list[float | None]

    @property
    def passes(self) -> bool:
        """Whether all checks passed, and AP lies within its limits where it was measured."""
        return self.verdict.passes and not self.problems

    @property
    def device(self) -> str:
        """Where the new engine ran, and the series where it has one: runs are compared with runs of the same."""
        return ", ".join(filter(None, (self.surroundings.get("device"), self.surroundings.get("series"))))

    @property
    def commit(self) -> str:
        """The commit it was run from, if it is known."""
        return self.surroundings.get("commit", "")


class History(msgspec.Struct, frozen=True):
    """All runs that are known, oldest first; ``checks`` are (case, record, stage, mode, dtype, device)."""

    checks: list[Key] = []
    runs: list[Run] = []
    schema: int = 1  # of ``history.json``, which earlier versions wrote


class Checked(msgspec.Struct, frozen=True):
    """One check of a run: its verdict and the share of its budget that it used, infinite without such a figure."""

    verdict: Verdict
    used: float


def checks_of_run(history: History, run: Run) -> dict[str, Checked]:
    """Return id -> what was found, of every check that was run."""
    return {
        "-".join(key): Checked(LETTERS[letter], math.inf if used is None else used)
        for key, letter, used in zip(history.checks, run.verdicts, run.used, strict=False)
        if letter != NO_CHECK
    }


def last_green(history: History, run: Run) -> Run | None:
    """Return the newest earlier run on the same device that passed, and that ran the check which now diverges first."""
    for earlier in reversed(history.runs[: history.runs.index(run)]):
        if earlier.device == run.device and earlier.passes:
            checks = checks_of_run(history, earlier)
            if not run.first or run.first in checks:
                return earlier
    return None


def in_time(history: History) -> History:
    """Return the history with its runs in the order in which they began."""
    return History(history.checks, sorted(history.runs, key=lambda run: (run.when, run.name)))


def present(folder: Path, runs: Iterable[Run]) -> Iterator[Run]:
    """Yield the runs whose results still lie in the folder as they were read."""
    for run in runs:
        path = folder / run.name / RESULTS
        if path.is_file() and source_of(path) == run.source:
            yield run


def source_of(path: Path) -> str:
    """Return size and time of the files that a run is read from: what tells whether they were written anew."""
    files = [file.stat() for file in (path, path.with_name(AP)) if file.is_file()]
    return "-".join(f"{status.st_size}-{status.st_mtime_ns}" for status in files)


def added(history: History, report: Report, *, name: str, source: str, ap: Sequence[CaseAp] = ()) -> History:
    """Return the history with one more run; a run that was merely touched or copied back takes its own place."""
    results = in_order(report.results)
    found = {_key(result): Checked(result.verdict, result.used) for result in results}
    known = set(history.checks)
    checks = [*history.checks, *(key for key in found if key not in known)]
    first = next((result for result in results if not result.verdict.passes), None)
    run = Run(
        name=name,
        when=str(report.environment.get("when", "")) or _written_at(source),
        source=source,
        verdict=report.verdict,
        passed=sum(result.verdict.passes for result in results),
        ran=len(results),
        flips=sum(decision.flips for result in results for decision in result.decisions),
        seconds=round(sum(result.seconds for result in results), 1),
        first=first.id if first else "",
        rerun=rerun(first) if first else "",
        surroundings=surroundings(report.environment),
        verdicts="".join(_LETTERS[found[check].verdict] if check in found else NO_CHECK for check in checks),
        used=[_figure(found, check) for check in checks],
        ap=_ap_figures(ap),
        problems=[f"AP of {case.case}: {problem}" for case in ap for problem in case.problems],
    )
    others = [other for other in history.runs if (other.name, other.when) != (run.name, run.when)]
    return History(checks, [*others, run])


def _key(result: StageResult) -> Key:
    return result.case, result.record, result.stage, result.mode, result.dtype, result.device


def _ap_figures(ap: Sequence[CaseAp]) -> dict[str, float]:
    """Return each case's AP by both engines, and how many of their detections match, in percent."""
    found: dict[str, float] = {}
    for case in ap:
        for engine, figures in (("legacy", case.legacy.figures), ("new", case.new.figures)):
            found.update({f"{case.case} {name} {engine}": round(value, 3) for name, value in figures.items()})
        found[f"{case.case} matched"] = round(100.0 * case.detections.share, 3)
    return {name: value for name, value in found.items() if value >= 0.0}


def _figure(found: Mapping[Key, Checked], check: Key) -> float | None:
    used = found[check].used if check in found else math.inf
    return float(f"{used:.4g}") if math.isfinite(used) else None


def _written_at(source: str) -> str:
    """Return when a results file of schema 1 was written: it does not tell when it was begun."""
    return datetime.fromtimestamp(int(source.split("-")[1]) / 1e9, UTC).isoformat(timespec="seconds")
