"""What a case says of settings that are known to differ between the published trainings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ABSENT = "(not said)"  # the value of a setting that a config does not have


@dataclass(frozen=True)
class OtherSetting:
    """A setting of training that is known to differ between the published configs, with both values.

    Attributes:
        name: a regular expression of its whole name in the table of settings.
        legacy, new: its values, ``ABSENT`` where a config says nothing; any other pair is a difference as ever.
        link: where that can be read.
    """

    name: str
    legacy: Any
    new: Any
    reason: str
    link: str

    def __hash__(self) -> int:
        return hash((self.name, self.reason))
