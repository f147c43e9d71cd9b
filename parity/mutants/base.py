"""What a planted bug and a benign change are."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any


@dataclass(frozen=True)
class Mutant:
    """One bug to plant in the new engine.

    Attributes:
        id: what it is called, unique.
        stage: the first stage that runs the wrong code.
        cases: patterns (fnmatch) of the cases it is planted in.
        apply: returns a context manager; inside it the new engine is built and run with the bug. Where the
            function has an attribute ``rebuild`` that is false, a detector that stands already may be run.
        why: where this goes wrong in real ports.
        kind: whose records it is looked for in, ``inference`` or ``training``; by default those of inference where
            the stage is one of inference. A bug of training may well sit in a stage that inference has, too.
        file: the user's file that declares it; empty for a built-in one. Other processes plant it from there.
    """

    id: str
    stage: str
    cases: tuple[str, ...]
    apply: Callable[[], AbstractContextManager[Any]]
    why: str
    kind: str = ""
    file: str = ""

    def concerns(self, case_id: str) -> bool:
        """Return whether it is planted in a case."""
        return any(fnmatchcase(case_id, pattern) for pattern in self.cases)

    @property
    def rebuilds(self) -> bool:
        """Whether the detector has to be built inside the block; so unless ``apply`` says otherwise."""
        return bool(getattr(self.apply, "rebuild", True))
