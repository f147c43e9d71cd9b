"""Cases from outside this package: a user's own folders, and packages that offer theirs."""

from __future__ import annotations

import importlib
import importlib.util
import os
from pathlib import Path
from typing import Iterable, Iterator, List

import parity.cases
from parity.cases.registry import all_cases
from parity.errors import ParityError

VARIABLE = "PARITY_CASES"
GROUP = "parity.cases"  # entry points of this group name a package whose files declare cases


def use_folders(folders: Iterable[Path]) -> None:
    """Let the cases that the files of these folders declare stand beside the built-in ones.

    The files count as modules of ``parity.cases``, here and in the legacy worker: one may import another.

    Raises:
        ParityError: a folder is missing, or a file has the name of another one's module.
    """
    for folder in (Path(folder).resolve() for folder in folders):
        if str(folder) in parity.cases.__path__:
            continue
        if not folder.is_dir():
            raise ParityError(f"--cases {folder}: no such folder")
        taken = {file.stem: file for known in parity.cases.__path__ for file in Path(known).glob("*.py")}
        for file in sorted(folder.glob("*.py")):
            if file.stem in taken:
                raise ParityError(f"{file} has the name of {taken[file.stem]}: rename it")
        parity.cases.__path__.append(str(folder))
    importlib.invalidate_caches()
    all_cases.cache_clear()


def named_folders() -> Iterator[Path]:
    """Yield the folders that ``PARITY_CASES`` names and those of installed packages that offer cases."""
    for folder in os.environ.get(VARIABLE, "").split(os.pathsep):
        if folder:
            yield Path(folder)
    yield from offered_folders()


def offered_folders() -> Iterator[Path]:
    """Yield the folder of every package that an entry point of the group names.

    Raises:
        ParityError: it names none.
    """
    from importlib.metadata import entry_points

    for point in entry_points(group=GROUP):  # type: ignore[call-arg,unused-ignore]
        found = importlib.util.find_spec(point.value)
        if found is None or not found.submodule_search_locations:
            raise ParityError(f"entry point {point.name} of group {GROUP}: {point.value} is no package")
        yield from (Path(folder) for folder in found.submodule_search_locations)


def outside_folders() -> List[str]:
    """Return the folders in use beside the built-in one."""
    return list(parity.cases.__path__)[1:]


def outside_files() -> List[Path]:
    """Return the files of all folders in use beside the built-in one."""
    return [file for folder in outside_folders() for file in sorted(Path(folder).glob("*.py"))]
