"""All mutants: the built-in ones, found by looking into ``families``, and those of a user's file."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from parity.cases.registry import all_cases, nearest
from parity.errors import ParityError
from parity.mutants import families
from parity.mutants.base import Mutant
from parity.records.kinds import INFERENCE, TRAINING


@functools.lru_cache(maxsize=1)
def built_in() -> tuple[Mutant, ...]:
    """Return the mutants of every family."""
    modules = [
        importlib.import_module(f"{families.__name__}.{info.name}") for info in pkgutil.iter_modules(families.__path__)
    ]
    return checked([mutant for module in modules for mutant in getattr(module, "MUTANTS", ())], "the families")


def from_file(path: Path) -> tuple[Mutant, ...]:
    """Return the mutants that a Python file declares as ``MUTANTS``.

    Raises:
        ParityError: the file cannot be read or run, or declares none, or one that is not well formed.
    """
    spec = importlib.util.spec_from_file_location(f"mutants_of_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ParityError(f"--from {path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ParityError(f"--from {path}: {type(error).__name__}: {error}") from error
    found = getattr(module, "MUTANTS", None)
    if not isinstance(found, Iterable) or not (declared := list(found)):
        raise ParityError(f"--from {path}: it declares no MUTANTS, a list of parity.mutants.Mutant")
    return checked([_of_file(mutant, path) for mutant in declared], f"--from {path}")


def _of_file(mutant: Any, path: Path) -> Any:
    return replace(mutant, file=str(path.resolve())) if isinstance(mutant, Mutant) else mutant


def find_mutant(mutant: str, file: str) -> Mutant:
    """Return a mutant by its id: of a file, or a built-in one where none is named.

    Raises:
        ParityError: there is none of that id.
    """
    known = {each.id: each for each in (from_file(Path(file)) if file else built_in())}
    if mutant not in known:
        raise ParityError(f"mutant {mutant} is not in {file or 'the families'}: other processes cannot plant it")
    return known[mutant]


def checked(mutants: Sequence[Any], source: str) -> tuple[Mutant, ...]:
    """Return the mutants, once each is known to be one, to have its own id, and to concern a known case's stage."""
    seen: set[str] = set()
    for mutant in mutants:
        if not isinstance(mutant, Mutant):
            raise ParityError(f"{source}: {mutant!r} is no parity.mutants.Mutant")
        if mutant.id in seen:
            raise ParityError(f"{source}: two mutants have the id {mutant.id!r}")
        seen.add(mutant.id)
        if mutant.kind not in ("", INFERENCE, TRAINING):
            raise ParityError(f"{source}: mutant {mutant.id}: kind {mutant.kind!r} is neither inference nor training")
        concerned = [case for case in all_cases().values() if mutant.concerns(case.id)]
        if not concerned:
            raise ParityError(f"{source}: mutant {mutant.id} concerns no case: {', '.join(mutant.cases)}")
        held = any(mutant.stage in case.all_stage_names() for case in concerned)
        for case in concerned:  # a pattern may also match cases without the stage, such as the small ones: left out
            if mutant.stage not in case.all_stage_names() and (not held or case.id in mutant.cases):
                raise ParityError(
                    f"{source}: mutant {mutant.id}: {case.id} has no stage {mutant.stage!r}"
                    f"{nearest(mutant.stage, case.all_stage_names())}"
                )
    return tuple(mutants)


def chosen(mutants: Sequence[Mutant], pattern: str) -> tuple[Mutant, ...]:
    """Return the mutants whose id matches ``pattern`` (fnmatch); none is a ``ParityError``."""
    found = tuple(mutant for mutant in mutants if fnmatchcase(mutant.id, pattern))
    if not found:
        raise ParityError(f"--mutant {pattern}: no such mutant{nearest(pattern, [m.id for m in mutants])}")
    return found
