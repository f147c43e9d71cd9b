"""Where records lie. Knows folders only and imports nothing heavy: pytest's collection asks here."""

from __future__ import annotations

from pathlib import Path

from parity.records.listing import MANIFEST as MANIFEST
from parity.records.listing import finish_replacements, missing_records

BLOCK = 64  # elements that one projection of a digested tensor covers


def default_fixtures() -> Path:
    """Return the ``fixtures`` folder beside this package, or the one where the command was called."""
    beside = Path(__file__).resolve().parents[2] / "fixtures"
    return beside if beside.is_dir() else Path("fixtures")


def find_records(fixtures: Path, *, case: str = "*") -> list[Path]:
    """Return the folders of all records below ``fixtures``, or of one case, sorted.

    A folder whose name begins with a dot is a record that was never finished; a replacement that was interrupted is
    finished or undone first.
    """
    finish_replacements(fixtures)
    found = (path.parent for path in fixtures.glob(f"{case}/*/{MANIFEST}"))
    return sorted(folder for folder in found if not folder.name.startswith("."))


def expected_records(fixtures: Path, case: str) -> list[Path]:
    """Return the folders of a case's records, sorted, those included that are listed and not there.

    Raises:
        ParityError: the list of the records is damaged.
    """
    missing = [fixtures / case / record for record in missing_records(fixtures, case)]
    return sorted([*find_records(fixtures, case=case), *missing])


def is_missing(folder: Path) -> bool:
    """Whether an expected record is not there."""
    return not (folder / MANIFEST).is_file()
