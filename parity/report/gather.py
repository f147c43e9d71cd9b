"""Runs that lie in a folder and are not in its history yet."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from parity.errors import ParityError
from parity.report.ap_figures import read_ap
from parity.report.history import Run, added, in_time, source_of
from parity.report.history_log import Log, append, open_log, read_log, require_writable
from parity.report.results import RESULTS, read_report


def gather(folder: Path, log: Log, paths: Iterable[Path] | None = None) -> tuple[Log, list[Run]]:
    """Return the log with the runs of ``folder`` that it lacks, and these runs; ``paths``: only these results files.

    A run that cannot be read is left out, whatever it holds, and named.
    """
    history, unreadable, new = log.history, dict(log.unreadable), []
    known = {(run.name, run.source) for run in history.runs}
    for path in sorted(folder.glob(f"*/{RESULTS}")) if paths is None else paths:
        name = path.parent.name
        try:
            source = source_of(path)
            if (name, source) in known:
                continue
            more = added(history, read_report(path), name=name, source=source, ap=read_ap(path.parent))
            require_writable(more, more.runs[-1])
        except ParityError as error:
            unreadable[name] = str(error)
        except Exception as error:  # no single run may cost the others theirs, not even by a fault of ours
            unreadable[name] = f"{path} cannot be read: {type(error).__name__}: {error}"
        else:
            history = more
            new.append(more.runs[-1])
    return Log(in_time(history), log.written, unreadable), new


def keep(folder: Path, file: BinaryIO, paths: Iterable[Path] | None = None) -> Log:
    """Append to a folder's open log what it lacks, and what an earlier version's history holds; return all of it.

    Raises:
        ParityError: the log cannot be written.
    """
    file.seek(0)
    found, new = gather(folder, read_log(folder, file.read()), paths)
    lacking = [run for run in found.history.runs if run in new or (run.name, run.when) not in found.written]
    append(file, found.history, lacking)
    return found


def keep_before_replacing(folder: Path) -> None:
    """Append to the history beside a run's folder the run that lies there, which nobody may have looked at yet.

    Raises:
        ParityError: the history cannot be written.
    """
    if (folder / RESULTS).is_file():
        with open_log(folder.parent) as file:
            keep(folder.parent, file, [folder / RESULTS])
