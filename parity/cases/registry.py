"""All cases, found by looking into this folder: a new case is a new file, and no other file changes."""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
from typing import Dict, List, Optional

import parity.cases
from parity.cases.base import Case
from parity.errors import ParityError


@functools.lru_cache(maxsize=None)
def all_cases() -> Dict[str, Case]:
    """Return id -> case, from every module here that declares ``CASES``."""
    cases: Dict[str, Case] = {}
    for module in pkgutil.iter_modules(parity.cases.__path__):
        declared = importlib.import_module(f"parity.cases.{module.name}")
        cases.update({case.id: case for case in getattr(declared, "CASES", ())})
    return cases


def find_case(case_id: str) -> Case:
    """Return one case; an unknown id raises ``ParityError`` with the nearest name."""
    cases = all_cases()
    if case_id not in cases:
        raise ParityError(f"unknown case {case_id!r}{nearest(case_id, cases)}; `parity cases` lists them all")
    return cases[case_id]


def cases_with(stage: Optional[str]) -> List[Case]:
    """Return the cases that have a stage; all of them for ``None``, or where none has it: the caller says so."""
    cases = list(all_cases().values())
    return [case for case in cases if stage is None or stage in case.stage_names()] or cases


def nearest(name: str, known: object) -> str:
    """Return ``": did you mean 'x'?"`` for the closest known name, or nothing.

    >>> nearest("decodr", ["encoder", "decoder"])
    ": did you mean 'decoder'?"
    """
    close = difflib.get_close_matches(name, list(known), n=1)  # type: ignore[call-overload]
    return f": did you mean {close[0]!r}?" if close else ""
