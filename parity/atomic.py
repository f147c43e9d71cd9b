"""Files that are whole or not there; what writers who were killed left unfinished goes when the next one comes."""

from __future__ import annotations

import glob
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from parity.locks import try_take_at

HIDDEN = ".part"  # ends the names of files that are being written


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file in its folder under a hidden name, then rename it to its place.

    Raises:
        OSError: the disk does not take it; what was there before still is.
    """
    with writing(path) as (hidden, file):
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
        hidden.replace(path)


@contextmanager
def writing(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Yield a hidden file beside ``path``, open for writing: rename it to its place, or it is gone afterwards.

    The file is locked while its writer lives: by that, leftovers are told from what is being written. Leftovers of
    the same ``path`` are removed first.

    Raises:
        OSError, ValueError: it cannot be made.
    """
    sweep(path)
    hidden = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}{HIDDEN}")
    try:
        with _locked_new(hidden) as file:
            yield hidden, file
    finally:
        with suppress(OSError, ValueError):
            hidden.unlink(missing_ok=True)


@contextmanager
def _locked_new(path: Path) -> Iterator[BinaryIO]:
    """Open a new file and lock it; a sweep may have taken it for a leftover between the two."""
    while True:
        with path.open("wb") as file:
            if try_take_at(path, file.fileno()):
                yield file
                return


def sweep(path: Path) -> None:
    """Remove what writers of a file left unfinished who are no more; of all files of a folder, if its name is ``*``.

    Where the file system knows no locks, nobody can tell who they are, and everything stays.
    """
    name = path.name if path.name == "*" else glob.escape(path.name)
    for leftover in path.parent.glob(f".{name}.*{HIDDEN}"):
        # For writing: that is what a network file system asks of whoever locks a file for himself.
        with suppress(OSError), leftover.open("r+b") as file:
            if try_take_at(leftover, file.fileno(), without_locks=False):
                leftover.unlink()
