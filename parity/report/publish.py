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
from parity.report.results import Report


def publish(
    report: Report, folder: Path, *, curves: Sequence[Curve] = (), run_folder: Path | None = None
) -> Iterator[str]:
    """Write a run into ``folder``; yield a line for people about each page that was written.

    What else was found in the run lies in ``run_folder``, if that is another one.
    The history beside the run is brought up to date if there is one, or if the run lies in a folder called
    ``reports``: whoever writes a run to /tmp/x does not want a page in /tmp.
    """
    history = keeps_history(folder)
    before = partial(keep_before_replacing, folder) if history else None
    page = write_report(report, folder, curves=curves, run_folder=run_folder, history=history, before=before)
    yield f"report: {page}"
    yield from remembered(folder)


def remembered(folder: Path) -> Iterator[str]:
    """Bring the history beside a run up to date, if it belongs to one; yield a line for people.

    A history that cannot be written is told: what the run itself found does not hang on it.
    """
    if keeps_history(folder):
        try:
            yield f"history: {update_history(folder.parent)}"
        except ParityError as error:
            yield f"history: left as it was; {error}"
