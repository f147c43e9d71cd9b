"""All cases, found by looking into this folder: a new case is a new file, and no other file changes."""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
import traceback
from typing import Any, Dict, List, Optional

import parity.cases
from parity.cases.base import Case
from parity.cases.pairs import split_id, with_engines
from parity.errors import ParityError


@functools.lru_cache(maxsize=None)
def all_cases() -> Dict[str, Case]:
    """Return id -> case, from every module here that declares ``CASES``."""
    cases: Dict[str, Case] = {}
    for module in pkgutil.iter_modules(parity.cases.__path__):
        declared = getattr(_imported(module.name), "CASES", ())
        if not isinstance(declared, (tuple, list)) or not all(isinstance(case, Case) for case in declared):
            raise ParityError(f"{module.name}.py: CASES has to be a tuple of cases")
        for case in declared:
            if case.id in cases:
                raise ParityError(f"case {case.id} is declared twice, the second time in {module.name}.py")
            cases[case.id] = case
    return cases


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(f"parity.cases.{name}")
    except Exception as error:  # a user's file may hold any mistake
        raise ParityError(
            f"{name}.py declares no case that can be read: {type(error).__name__}: {error}",
            detail=traceback.format_exc(limit=-1),
        ) from error


def find_case(case_id: str) -> Case:
    """Return one case; an unknown id raises ``ParityError`` with the nearest name."""
    own, old, new = split_id(case_id)
    cases = all_cases()
    if own not in cases:
        raise ParityError(f"unknown case {own!r}{nearest(own, cases)}; `parity cases` lists them all")
    return with_engines(cases[own], old, new) if old else cases[own]


def cases_with(stage: Optional[str]) -> List[Case]:
    """Return the cases that have a stage; all of them for ``None``, or where none has it: the caller says so."""
    cases = list(all_cases().values())
    return [case for case in cases if stage is None or stage in case.all_stage_names()] or cases


def nearest(name: str, known: object) -> str:
    """Return ``": did you mean 'x'?"`` for the closest known name, or nothing.

    >>> nearest("decodr", ["encoder", "decoder"])
    ": did you mean 'decoder'?"
    """
    lowered = {str(each).lower(): each for each in known}  # type: ignore[attr-defined]
    close = difflib.get_close_matches(name.lower(), list(lowered), n=1)
    return f": did you mean {lowered[close[0]]!r}?" if close else ""
