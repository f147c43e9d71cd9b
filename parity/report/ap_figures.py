"""What ``ap.json`` says of a run, for its summary and for the history."""

from __future__ import annotations

from pathlib import Path

import msgspec

from parity.errors import DAMAGE, ParityError

AP = "ap.json"  # in the folder of a run, beside its results


class Evaluated(msgspec.Struct, frozen=True):
    """One engine's figures, in percent; a negative one means that there is nothing to evaluate."""

    figures: dict[str, float]


class Detections(msgspec.Struct, frozen=True):
    """``share``: how many of the detections match one by one, 0 to 1."""

    share: float


class CaseAp(msgspec.Struct, frozen=True):
    """One case; ``problems`` are what lies beyond a limit."""

    case: str
    problems: list[str]
    legacy: Evaluated
    new: Evaluated
    detections: Detections


def read_ap(folder: Path) -> list[CaseAp]:
    """Return what was found of AP in the folder of a run; nothing where it was not measured.

    Raises:
        ParityError: the file is damaged.
    """
    path = folder / AP
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[CaseAp])
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (*DAMAGE, msgspec.DecodeError) as error:
        raise ParityError(f"{path} is damaged ({error}): run `pytest -m full_ap` again") from None
