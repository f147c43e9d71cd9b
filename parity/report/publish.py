"""A run written where people look for it: its own page, and the history that it belongs to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from parity.errors import ParityError
from parity.report.curves import Curve
from parity.report.gather import keep_before_replacing
from parity.report.history_page import keeps_history, update_history
from parity.report.page import write_report
from parity.report.results import RESULTS, Report


class _Taken(Exception):
    """Another run was written into the folder since this one began."""


def publish(
    report: Report,
    folder: Path,
    *,
    curves: Sequence[Curve] = (),
    run_folder: Path | None = None,
    began: float | None = None,
) -> Iterator[str]:
    """Write a run into ``folder``; yield a line for people about each page that was written.

    What else was found in the run lies in ``run_folder``, if that is another one.
    The history beside the run is brought up to date if there is one, or if the run lies in a folder called
    ``reports``: whoever writes a run to /tmp/x does not want a page in /tmp.

    Args:
        began: when this run did, in seconds since 1970: a run that was written into the folder since then is kept, and
            this one gets a folder beside it. ``None`` replaces whatever is there.
    """
    history = keeps_history(folder)
    place, number = folder, 1
    while True:
        before = partial(_before_replacing, place, began=began, history=history)
        try:
            page = write_report(report, place, curves=curves, run_folder=run_folder, history=history, before=before)
            break
        except _Taken:
            number += 1
            place = folder.with_name(f"{folder.resolve().name}-{number}")
    if place != folder:
        yield f"report: another run was written to {folder} meanwhile and is kept; this one is in {place}"
    yield f"report: {page}"
    yield from remembered(place)


def _before_replacing(folder: Path, *, began: float | None, history: bool) -> None:
    results = folder / RESULTS
    if began is not None and results.is_file() and results.stat().st_mtime > began:
        raise _Taken
    if history:
        keep_before_replacing(folder)


def remembered(folder: Path) -> Iterator[str]:
    """Bring the history beside a run up to date, if it belongs to one; yield a line for people.

    A history that cannot be written is told: what the run itself found does not hang on it.
    """
    if keeps_history(folder):
        try:
            yield f"history: {update_history(folder.parent)}"
        except ParityError as error:
            yield f"history: left as it was; {error}"
