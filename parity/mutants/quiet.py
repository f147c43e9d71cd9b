"""Make the benign changes, one at a time, and see whether anything cries wolf."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from parity.cases.base import Batch, Case
from parity.engines.host import RemoteSession
from parity.errors import ParityError
from parity.mutants.bench import PASSES, Bench, Catch, first_divergence
from parity.mutants.benign import Benign
from parity.records.freeze import freeze
from parity.records.store import write_record

# Situations that no committed record has: they are frozen on the spot, from a live legacy engine.
LIVE = {
    "another-seed": Batch(seed=101, sizes=((64, 96), (48, 80))),
    "other-sizes": Batch(seed=102, sizes=((40, 104), (72, 56))),
    "one-odd-image": Batch(seed=103, sizes=((33, 65),)),
}


@dataclass(frozen=True)
class Quiet:
    """One benign change in one case; ``alarm`` is what it set off, ``None`` if nothing."""

    change: str
    case: str
    why: str
    alarm: Catch | None
    records: tuple[str, ...]


def try_changes(bench: Bench, changes: Sequence[Benign]) -> Iterator[Quiet]:
    """Check a case's every stage, mode and dtype under one benign change after the other.

    Raises:
        ParityError: the unchanged engine diverges.
    """
    for mode, dtype in PASSES:
        bench.verify(mode, dtype)
    records = tuple(record.id for record in bench.records)
    for change in changes:
        if change.concerns(bench.case.id):
            with change.apply():
                alarm = first_divergence(bench.checker, bench.records)
            yield Quiet(change.id, bench.case.id, change.why, alarm, records)


def try_live(case: Case, connect: Callable[[], RemoteSession]) -> Iterator[Quiet]:
    """Freeze other seeds and sizes from the live legacy engine, and check them like committed records."""
    with connect() as legacy, tempfile.TemporaryDirectory() as folder:
        for name, batch in LIVE.items():
            write_record(
                Path(folder) / case.id / name, *freeze(case, name, batch, legacy, progress=_silent), force=False
            )
        bench = Bench(case, Path(folder))
        for record in bench.records:
            alarm = first_divergence(bench.checker, [record])
            yield Quiet(record.id, case.id, "frozen live: another situation is the same detector", alarm, (record.id,))


def _silent(_: str) -> None:
    """Tell nobody how far freezing has come."""


def chosen(changes: Sequence[Benign], pattern: str) -> tuple[Benign, ...]:
    """Return the changes whose id matches ``pattern`` (fnmatch); none is a ``ParityError``."""
    found = tuple(change for change in changes if fnmatchcase(change.id, pattern))
    if not found:
        raise ParityError(f"--mutant {pattern}: no such benign change")
    return found
