"""What ``parity locate`` told, in a file: the page of a run shows it with the stage that it is about."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from parity.errors import DAMAGE, ParityError
from parity.report.files import write_text

FILES = "locate*.json"

Located = Mapping[tuple[str, str], str]


def write_located(path: Path, *, case: str, stage: str, lines: Sequence[str]) -> Path:
    """Write what was told of a stage; return ``path``.

    Raises:
        ParityError: it cannot be written.
    """
    return write_text(path, json.dumps({"case": case, "stage": stage, "lines": list(lines)}, indent=1) + "\n")


def read_located(folder: Path) -> Located:
    """Return (case, stage) -> what was told of it, from the files in a run's folder.

    Raises:
        ParityError: one of them is damaged.
    """
    found = {}
    for path in sorted(folder.glob(FILES)):
        try:
            plain = json.loads(path.read_text("utf-8"))
            found[str(plain["case"]), str(plain["stage"])] = "\n".join(map(str, plain["lines"]))
        except DAMAGE as error:
            raise ParityError(f"{path} cannot be shown ({error}): `parity locate --json` writes it") from None
    return found
