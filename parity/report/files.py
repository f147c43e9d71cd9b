"""What every page needs: templates that escape, and files that are never half there."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from parity.atomic import HIDDEN, writing
from parity.errors import ParityError
from parity.locks import locked_folder

PATIENCE = 60.0  # seconds to wait for another process that writes into the same folder


def templates(*filters: Callable[..., Any]) -> Environment:
    """Return the environment of the pages' templates: all that is filled in is escaped, a wrong name is an error."""
    jinja = Environment(
        loader=PackageLoader("parity.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters.update({function.__name__: function for function in filters})
    return jinja


def script_and_hash(script: str) -> tuple[Markup, str]:
    """Return a page's own script, and the hash by which the page's policy allows it and no other."""
    return Markup(script), base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def require_place(path: Path | None, option: str) -> None:
    """Refuse what could not be written in the end, before the work is done.

    Raises:
        ParityError: it is a folder, or there is none to hold it; names the option.
    """
    if path is not None and (path.is_dir() or not os.access(path.absolute().parent, os.W_OK)):
        what = "a folder; name a file in it" if path.is_dir() else f"{path.parent} is no folder that can be written to"
        raise ParityError(f"{option} {path}: {what}")


def write_text(path: Path, text: str) -> Path:
    """Write a file, and its folder where that is lacking, beside its place and rename it; return ``path``.

    What earlier writers of the same file left unfinished, because they were killed, is removed.

    Raises:
        ParityError: it cannot be written; what was there before still is.
    """
    with ExitStack() as stack:
        stack.enter_context(_unfinished(path, text)).replace(path)
    return path


@contextmanager
def writing_into(folder: Path) -> Iterator[None]:
    """Have other processes that write files which belong together into this folder wait.

    Raises:
        ParityError: the folder cannot be made, or another process writes there for longer than ``PATIENCE`` seconds.
    """
    busy = f"another process is writing into {folder}: wait for it, or name another folder"
    with locked_folder(folder, patience=PATIENCE, busy=busy):
        yield


def write_together(folder: Path, first: str, text: str, second: str, page: str | None) -> Path:
    """Write results and the page of them, within ``writing_into``; return the path of the second.

    Whoever is killed on the way leaves files of one writer only: the page leaves before the results are replaced.

    Args:
        page: ``None`` where it cannot be made: that of other results goes nevertheless.

    Raises:
        ParityError: one cannot be written; what was there before still is, or the page is gone.
    """
    with ExitStack() as stack:
        results = stack.enter_context(_unfinished(folder / first, text))
        whole = None if page is None else stack.enter_context(_unfinished(folder / second, page))
        aside = stack.enter_context(_set_aside(folder / second))
        results.replace(folder / first)
        aside.unlink(missing_ok=True)
        if whole is not None:
            whole.replace(folder / second)
    return folder / second


@contextmanager
def _set_aside(path: Path) -> Iterator[Path]:
    """Hide a file; where that which follows fails, it comes back, unless it was removed."""
    aside = path.with_name(f".{path.name}.old{HIDDEN}")
    with suppress(FileNotFoundError):
        path.rename(aside)
    try:
        yield aside
    finally:
        with suppress(FileNotFoundError):
            aside.rename(path)


@contextmanager
def _unfinished(path: Path, text: str) -> Iterator[Path]:
    """Yield a hidden file beside ``path`` with this text, gone afterwards; problems of writing name ``path``."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing(path) as (hidden, file):
            # What is no text in UTF-8, half of a surrogate pair in a name, is written as an escape.
            file.write(text.encode("utf-8", "backslashreplace"))
            file.flush()
            yield hidden
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", "") or error
        raise ParityError(f"{path} cannot be written: {reason}; name another place") from error
