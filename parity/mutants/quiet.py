"""Make the benign changes, one at a time, and see whether any of them raises an alarm."""

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
from parity.mutants.effects import effects
from parity.records.freeze import freeze
from parity.records.store import write_record

# Situations that no committed record has: they are frozen on the spot, from a live legacy engine.
LIVE = {
    "another-seed": Batch(seed=101, sizes=((64, 96), (48, 80))),
    "other-sizes": Batch(seed=102, sizes=((40, 104), (72, 56))),
    "one-odd-image": Batch(seed=103, sizes=((33, 65),)),
}


SITUATION = "a record frozen live: the engines are the same there, too"


@dataclass(frozen=True)
class Quiet:
    """One benign change in one case.

    Attributes:
        why: why nothing may follow.
        alarm: what it set off, ``None`` if nothing.
        effect: what it was seen to change in a run; empty where that is nothing: it is not checked then, and does not
            count. ``None`` where nobody looked: earlier versions did not, and another situation is no change.
        changes: what it changes, in plain words.
    """

    change: str
    case: str
    why: str
    alarm: Catch | None
    records: tuple[str, ...]
    effect: str | None = None
    changes: str = ""

    @property
    def counts(self) -> bool:
        """Whether it changed something, so that no alarm means something."""
        return self.effect != ""


def try_changes(bench: Bench, changes: Sequence[Benign]) -> Iterator[Quiet]:
    """Check a case's every stage, mode and dtype under one benign change after the other.

    A change that is seen to change nothing in a run is not checked: no alarm would say nothing.

    Raises:
        ParityError: the unchanged engine diverges.
    """
    for mode, dtype in PASSES:
        bench.verify(mode, dtype)
    records = tuple(record.id for record in bench.records)
    concerned = [change for change in changes if change.concerns(bench.case.id)]
    for change, seen in effects(bench, concerned):
        try:
            if isinstance(seen, ParityError):
                raise seen
            alarm = first_divergence(bench.checker, bench.records) if seen else None
        except ParityError as error:  # it changes something after all; the other changes are still to be made
            alarm, seen = Catch("", "", "", "", f"it cannot be checked: {error}"), "an error"
        yield Quiet(change.id, bench.case.id, change.why, alarm, records if seen else (), seen, change.changes)


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
            yield Quiet(record.id, case.id, SITUATION, alarm, (record.id,))


def _silent(_: str) -> None:
    """Say nothing of how far freezing has come."""


def chosen(changes: Sequence[Benign], pattern: str) -> tuple[Benign, ...]:
    """Return the changes whose id matches ``pattern`` (fnmatch); none is a ``ParityError``."""
    found = tuple(change for change in changes if fnmatchcase(change.id, pattern))
    if not found:
        raise ParityError(f"--mutant {pattern}: no such benign change")
    return found
