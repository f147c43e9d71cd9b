"""``history.jsonl``: a line a run, appended and never rewritten; a line that cannot be read costs that line alone.

Each line holds all that is kept of its run, so that no run hangs on another one's line. Of several lines of one run,
known by its folder's name and by when it began, the last counts. A ``history.json`` of an earlier version is read
with it, and stays as it is.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import msgspec

from parity.errors import ParityError
from parity.locks import take
from parity.report.history import LETTERS, NO_CHECK, History, Key, Run, Told, in_time

LOG, OLD = "history.jsonl", "history.json"
SCHEMA = 2  # of a line; 1 is that of history.json, which held all runs
PATIENCE = 60.0  # seconds to wait for another process that brings the same history up to date


class Group(msgspec.Struct, frozen=True):
    """The checks of one record in one mode, dtype and device; a letter and a share of the budget for each stage."""

    case: str
    record: str
    mode: str
    dtype: str
    device: str
    stages: list[str]
    verdicts: str
    used: list[float | None]


class Line(Told, frozen=True, kw_only=True):
    """One run as it is written."""

    checks: list[Group]
    schema: int = SCHEMA


@dataclass
class Log:
    """What was read: the history, the name and beginning of what has a line, and why what was left out was."""

    history: History
    written: set[tuple[str, str]] = field(default_factory=set)
    unreadable: dict[str, str] = field(default_factory=dict)


@contextmanager
def open_log(folder: Path) -> Iterator[BinaryIO]:
    """Open the log of a folder of runs to read it and to append, and keep other processes out.

    Raises:
        ParityError: it cannot be opened, or another process holds it for longer than ``PATIENCE`` seconds.
    """
    path = folder / LOG
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    except (OSError, ValueError) as error:
        raise ParityError(f"{path} cannot be written: {getattr(error, 'strerror', '') or error}") from None
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        take(descriptor, patience=PATIENCE, busy=f"another process is writing {path}: wait for it")
        yield file


def read_history(folder: Path) -> Log:
    """Return what is written of a folder's runs: of the log, and of what an earlier version left."""
    try:
        content = (folder / LOG).read_bytes()
    except FileNotFoundError:
        content = b""
    except OSError as error:
        raise ParityError(f"{folder / LOG} cannot be read: {error.strerror}") from None
    return read_log(folder, content)


def read_log(folder: Path, content: bytes) -> Log:
    """Return what the bytes of a log say, and ``history.json`` beside it: of runs in both, the log's."""
    old, unreadable = _read_old(folder / OLD)
    lines: list[Line] = []
    for number, text in enumerate(content.split(b"\n"), start=1):
        if text.strip():
            try:
                lines.append(_read_line(text))
            except (msgspec.DecodeError, ValueError, RecursionError) as error:
                unreadable[f"{LOG}, line {number}"] = f"left out: {error}"
    return Log(_joined(old, lines), {(line.name, line.when) for line in lines}, unreadable)


def append(file: BinaryIO, history: History, runs: Iterable[Run]) -> None:
    """Write a line for each of these runs of a history behind what is there; all of it or nothing.

    Raises:
        ParityError: it cannot be written.
    """
    lines = b"".join(msgspec.json.encode(_line(history, run)) + b"\n" for run in runs)
    if not lines:
        return
    end = file.seek(0, os.SEEK_END)
    if end and _last_byte(file, end) != b"\n":  # a line that was torn by a full disk or a machine that went down
        lines = b"\n" + lines
    try:
        if file.write(lines) != len(lines):
            raise OSError(0, "no space is left, or a quota is reached")
    except OSError as error:
        file.truncate(end)
        raise ParityError(f"{LOG} cannot be written: {error.strerror}") from None


def require_writable(history: History, run: Run) -> None:
    """Refuse a run whose line could not be read again, whatever its results file holds.

    Raises:
        ParityError: a figure is not finite or too large, or a name is no text.
    """
    try:
        _read_line(msgspec.json.encode(_line(history, run)))
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError, TypeError) as error:
        raise ParityError(f"its results are damaged: {error}") from None


def _last_byte(file: BinaryIO, end: int) -> bytes:
    file.seek(end - 1)
    return file.read(1)


def _read_line(text: bytes) -> Line:
    """Return a line.

    Raises:
        msgspec.DecodeError, ValueError: it is damaged, or of a later version.
    """
    line = msgspec.json.decode(text, type=Line)
    if line.schema != SCHEMA:
        raise ValueError(f"it has schema {line.schema}, this version reads {SCHEMA}: update parity")
    figures = [line.seconds, *line.ap.values()]
    for group in line.checks:
        if not len(group.stages) == len(group.verdicts) == len(group.used) or set(group.verdicts) - set(LETTERS):
            raise ValueError(f"the checks of {group.case}/{group.record} are damaged")
        figures += [used for used in group.used if used is not None]
    if not all(map(math.isfinite, figures)):
        raise ValueError("a figure is not finite")
    return line


def _read_old(path: Path) -> tuple[History, dict[str, str]]:
    """Return the history that an earlier version wrote as one file; one that is damaged is left out, and as it is."""
    try:
        history = msgspec.json.decode(path.read_bytes(), type=History)
    except FileNotFoundError:
        return History(), {}
    except (OSError, msgspec.DecodeError, RecursionError) as error:
        return History(), {OLD: f"left out: {error}"}
    if history.schema != 1:
        return History(), {OLD: f"left out: it has schema {history.schema}, this version reads 1: update parity"}
    good = [run for run in history.runs if _fits(run, len(history.checks))]
    damaged = len(history.runs) - len(good)
    return History(history.checks, good), {OLD: f"{damaged} of its runs are damaged"} if damaged else {}


def _fits(run: Run, checks: int) -> bool:
    figures = [run.seconds, *run.ap.values(), *(used for used in run.used if used is not None)]
    known = not set(run.verdicts) - {NO_CHECK, *LETTERS}
    return known and len(run.verdicts) == len(run.used) <= checks and all(map(math.isfinite, figures))


def _joined(old: History, lines: Sequence[Line]) -> History:
    """Return one history: every check that some run made, and the last line of every run, by time."""
    last = {(line.name, line.when): line for line in lines}
    found = [({key: place for place, key in enumerate(_keys(line))}, line) for line in last.values()]
    checks = list(dict.fromkeys([*old.checks, *(key for keys, _ in found for key in keys)]))
    runs = [run for run in old.runs if (run.name, run.when) not in last]
    return in_time(History(checks, [*runs, *(_run(line, keys, checks) for keys, line in found)]))


def _keys(line: Line) -> Iterator[Key]:
    for group in line.checks:
        for stage in group.stages:
            yield group.case, group.record, stage, group.mode, group.dtype, group.device


def _run(line: Line, keys: Mapping[Key, int], checks: Sequence[Key]) -> Run:
    verdicts = "".join(group.verdicts for group in line.checks)
    used = [share for group in line.checks for share in group.used]
    places = [keys.get(check) for check in checks]
    while places and places[-1] is None:  # what only later runs have
        places.pop()
    return Run(
        **{name: getattr(line, name) for name in Told.__struct_fields__},
        verdicts="".join(NO_CHECK if place is None else verdicts[place] for place in places),
        used=[None if place is None else used[place] for place in places],
    )


def _line(history: History, run: Run) -> Line:
    groups: dict[tuple[str, str, str, str, str], list[tuple[str, str, float | None]]] = {}
    for key, letter, used in zip(history.checks, run.verdicts, run.used, strict=False):
        case, record, stage, mode, dtype, device = key
        if letter != NO_CHECK:
            groups.setdefault((case, record, mode, dtype, device), []).append((stage, letter, used))
    checks = [
        Group(*key, list(stages), "".join(letters), list(shares))
        for key, found in groups.items()
        for stages, letters, shares in [zip(*found, strict=True)]
    ]
    return Line(**{name: getattr(run, name) for name in Told.__struct_fields__}, checks=checks)
