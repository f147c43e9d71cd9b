"""Keep a situation that failed: as a record like any other, and as the situation itself."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from parity.atomic import write_text
from parity.cases.base import Batch
from parity.errors import ParityError
from parity.fuzz.live import Kind, Live, Outcome
from parity.fuzz.situations import to_json


@dataclass(frozen=True)
class Saved:
    """Where a failing situation is kept; ``record`` is ``None`` where the legacy engine gave nothing to record."""

    situation: Path
    record: Path | None


def save(live: Live, batch: Batch, outcome: Outcome, folder: Path) -> Saved:
    """Write ``CASE/fuzz-STAGE-DIGEST`` below a folder: a whole record, frozen anew with its noise, and a JSON file.

    Raises:
        ParityError: the disk does not take it, or the legacy engine fails now.
    """
    name = name_of(batch, outcome)
    situation = folder / live.case.id / f"{name}.json"
    _write(situation, to_json(batch))
    has_truth = outcome.kind in (Kind.DIVERGED, Kind.NEW_FAILS)
    return Saved(situation, live.freeze(batch, folder, name).folder if has_truth else None)


def name_of(batch: Batch, outcome: Outcome) -> str:
    """Return the name of a failing situation: the same one for the same situation."""
    where = outcome.first.stage if outcome.first is not None else "error"
    return f"fuzz-{where}-{hashlib.sha256(to_json(batch).encode()).hexdigest()[:8]}"


def _write(path: Path, text: str) -> None:
    """Write a whole file, or nothing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    except OSError as error:
        raise ParityError(f"--save-failing: {path} could not be written: {error.strerror}") from error
