"""Whether an environment is whole: it has a marker, written last, of the requirements that it was made for."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path

from parity.atomic import write_text

MARKER = "parity-environment.json"


class State(Enum):
    """What is in an environment's folder; the text is what to say of it where it is wanted."""

    ABSENT = "is not there"
    UNFINISHED = "is not complete"
    OUTDATED = "was made for other requirements than today's"
    READY = "is ready"


def interpreter(folder: Path) -> Path:
    """Return the Python of a virtual environment."""
    return folder / "bin" / "python"


def state(folder: Path, requirements: str) -> State:
    """Return what is in a folder, for requirements of this fingerprint."""
    try:
        if not any(folder.iterdir()):
            return State.ABSENT
        made = json.loads((folder / MARKER).read_text())
    except FileNotFoundError:
        return State.UNFINISHED if folder.exists() else State.ABSENT
    except (OSError, ValueError):
        return State.UNFINISHED
    if not (isinstance(made, dict) and isinstance(made.get("requirements"), str) and interpreter(folder).exists()):
        return State.UNFINISHED
    return State.READY if made["requirements"] == requirements else State.OUTDATED


def finish(folder: Path, engine: str, requirements: str) -> None:
    """Mark an environment as whole; everything else has to be done before."""
    write_text(folder / MARKER, json.dumps({"engine": engine, "requirements": requirements}) + "\n")
