"""What ``parity cases --coverage`` tells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from parity.cases.base import Case
from parity.cases.pairs import split_id
from parity.cases.registry import all_cases, find_case
from parity.engines.session import Session
from parity.errors import ParityError
from parity.limits.coverage import Coverage, Row, cover
from parity.records.locate import find_records
from parity.records.store import Record

PASSED, WRONG, INCONCLUSIVE = 0, 1, 3


def coverage_of(case: Case, folders: Sequence[Path]) -> Coverage:
    """Return the coverage of a case by the records in these folders.

    The new engine's config is read here; the legacy engine's limits are those that were read where the records were
    made, of which early records say nothing.
    """
    records = [Record(folder) for folder in folders]
    configs = {case.new: Session(case.new).limits(case.id)}
    for record in records:
        if record.manifest.get("limits"):
            configs[case.legacy] = dict(record.manifest["limits"])
    return cover(case, records, configs)


def covered(names: Sequence[str], fixtures: Path) -> Iterator[Coverage]:
    """Yield the coverage of the named cases, or of all that have records.

    Raises:
        ParityError: one that is named has none, or there are none at all.
    """
    found = {}
    for case in [find_case(name) for name in names] or all_cases().values():
        found[case.id] = find_records(fixtures, case=case.id)
        if names and not found[case.id]:
            raise ParityError(f"{fixtures} holds no record of {case.id}: `parity freeze {case.id}` makes one")
    if not any(found.values()):
        raise ParityError(f"{fixtures} holds no record, so nothing can be told of any limit: `parity freeze` makes one")
    for name, folders in found.items():
        if folders:
            yield coverage_of(find_case(name), folders)


def told(cases: Iterable[str], fixtures: Path) -> dict[str, Any]:
    """Return what a run's results keep of its cases' limits: case -> ``rows`` and ``problems``.

    A case with other engines than its own is left out: its limits are those of the case.
    """
    own = [name for name in dict.fromkeys(cases) if not split_id(name)[1]]
    found = [coverage_of(find_case(name), find_records(fixtures, case=name)) for name in own]
    return {
        coverage.case: {"rows": [asdict(row) for row in coverage.rows], "problems": list(coverage.problems)}
        for coverage in found
    }


def lines(coverage: Coverage) -> Iterator[str]:
    """Yield what is printed of a case."""
    bound = [row for row in coverage.rows if row.record]
    yield f"{coverage.case}: {len(bound)} of {len(coverage.rows)} limits bound by a record"
    for row in coverage.rows:
        yield f"  {_mark(row):8} {row.limit} = {row.value:g} ({row.where}): {tell(row)}"
    for problem in coverage.problems:
        yield f"  WRONG    {problem}"


def _mark(row: Row) -> str:
    return "bound" if row.record else "reason" if row.reason else "UNBOUND"


def tell(row: Row) -> str:
    """Return what binds a limit, or why nothing does."""
    if row.record:
        return f"{row.record}, {row.decision}: {row.how}"
    return f"no record binds it, because {row.reason}" if row.reason else "no record binds it, and no reason is given"


def status(found: Sequence[Coverage]) -> int:
    """Return the exit status: 1 where a declaration is wrong, 3 where a limit is unbound without a reason."""
    if any(coverage.problems for coverage in found):
        return WRONG
    return INCONCLUSIVE if any(coverage.unbound for coverage in found) else PASSED
