"""All that a check reads of the records of a case, and what became of it after a mutation."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import small_record
from record_mutations import Mutation, put, read_files

from parity.cases.base import Case
from parity.compare.stage import frozen_choice
from parity.compare.verdicts import Verdict
from parity.errors import ParityError
from parity.records.kinds import RECIPE, checks_in
from parity.records.layout import StoredTensors
from parity.records.locate import expected_records, is_missing
from parity.records.store import Record

MOST = 1100  # letters of a message: one line


class Outcome(Enum):
    """What reading altered records ended in."""

    REFUSED = "refused in one line"
    IDENTICAL = "identical"
    DIFFERENT = "read, and different"  # no fault where the list was made anew: then nothing else says otherwise
    FAULT = "a traceback, or more than one line"


@dataclass(frozen=True)
class Read:
    """What was read of a folder of records; ``told`` is why something of it was refused."""

    outcome: Outcome
    told: str = ""
    found: Mapping[str, Any] = field(default_factory=dict)


def read_whole(fixtures: Path, case: Case, *, in_part: Collection[str] = ()) -> dict[str, Any]:
    """Return all that a check reads of a case's records; of some only the manifest: those whose files nobody touched.

    Raises:
        ParityError: anything of it is refused, or missing.
    """
    folders = expected_records(fixtures, case.id)
    return {folder.name: dict(_read(folder, case, in_part=folder.name in in_part)) for folder in folders}


def _read(folder: Path, case: Case, *, in_part: bool) -> Iterator[tuple[str, Any]]:
    planned = checks_in(case, folder)
    if is_missing(folder):
        raise ParityError(f"{folder} is missing")
    record = Record(folder)
    yield "who", (record.case, record.id, record.kind, record.listed)
    if record.checks(case) != planned:
        raise AssertionError(f"{folder}: what was planned is not what the record is for")
    yield "checks", (planned, record.checks(case))
    yield "manifest", record.manifest
    yield "entries", list(record.entries.items())
    if in_part:
        return
    stored = StoredTensors(record)
    for key, entry in record.entries.items():
        tensor = stored[key]
        yield key, (str(tensor.dtype), tuple(tensor.shape), tensor.contiguous().numpy().tobytes())
        yield f"{key}, judged", (record.rows(key), *(record.noise(key, mode) for mode in entry.modes))
    if record.kind != RECIPE:
        for name, decision in record.manifest["decisions"].items():
            if f"{name}/scores" in record.entries:
                choice = frozen_choice(record, stored, name)
                yield name, (choice.kind, choice.settings, choice.size, choice.ordered)
            yield f"{name}, told", [decision.get("smallest_score_margin"), decision.get("smallest_iou_margin")]
        weights, batch = record.manifest["weights"], record.manifest["batch"]
        yield "weights", [weights["sha256"], int(weights["seed"]), weights["shapes"].items()]
        yield "batch", (batch["scale"], int(batch.get("steps", 1)), int(batch.get("ranks", 1)))


class Subject:
    """Records that are altered, read and put back, time and again."""

    def __init__(self, fixtures: Path, case: Case) -> None:
        self.fixtures = fixtures
        self.case = case
        self.files = read_files(fixtures)
        self.before = read_whole(fixtures, case)
        record = fixtures / small_record.CASE / small_record.RECORD
        self._wrong = small_record.verdicts(small_record.with_bug(), Record(record)) if record.exists() else {}
        self._in_part = {name: read_whole(fixtures, case, in_part=[name])[name] for name in self.before}

    def outcome(self, mutation: Mutation) -> Read:
        """Return what reading the altered records ends in; they are as before afterwards."""
        put(self.fixtures, mutation.changed)
        try:
            touched = {name.split("/")[1] for name in mutation.changed if "/" in name}
            return self._outcome(self.before.keys() - touched)
        finally:
            put(self.fixtures, {name: self.files.get(name) for name in mutation.changed})

    def _outcome(self, in_part: Collection[str]) -> Read:
        try:
            found = read_whole(self.fixtures, self.case, in_part=in_part)
        except ParityError as error:
            said = str(error)
            one_line = len(said.splitlines()) == 1 and len(said) <= MOST
            return Read(Outcome.REFUSED if one_line else Outcome.FAULT, said[:3000])
        except Exception as error:
            return Read(Outcome.FAULT, f"{type(error).__name__}: {error}"[:3000])
        before = {name: (self._in_part if name in in_part else self.before)[name] for name in self.before}
        same = repr(found) == repr(before)  # 1, 1.0 and True are not the same
        return Read(Outcome.IDENTICAL if same else Outcome.DIFFERENT, "", found)

    def told(self, mutation: Mutation) -> str:
        """Return what an engine that is right and one that is wrong are told by ``small_record``, altered so."""
        if f"{small_record.CASE}/{small_record.RECORD}/manifest.json" in {
            name for name, content in mutation.changed.items() if content is None
        }:
            return "a record that is gone, from the list too"
        put(self.fixtures, mutation.changed)
        try:
            record = Record(self.fixtures / small_record.CASE / small_record.RECORD)
            right, wrong = (
                small_record.verdicts(run, record) for run in (small_record.truth(), small_record.with_bug())
            )
        except Exception as error:  # the command tells it as a check that ended in an error, and goes on
            return f"a check ends in an error ({type(error).__name__})"
        finally:
            put(self.fixtures, {name: self.files.get(name) for name in mutation.changed})
        missed = _failing(self._wrong) - _failing(wrong)
        said = "the right engine passes" if not _failing(right) else "the right engine fails"
        if not missed:
            return f"{said}, the wrong one as before"
        return f"{said}, the wrong one passes {'everywhere' if not _failing(wrong) else 'in some checks'}"


def _failing(found: Mapping[small_record.Check, Verdict]) -> set[small_record.Check]:
    return {check for check, verdict in found.items() if not verdict.passes}
