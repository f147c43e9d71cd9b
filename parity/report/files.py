"""What every page needs: templates that escape, and files that are never half there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from parity.errors import ParityError


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

    Raises:
        ParityError: it cannot be written; what was there before still is.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise ParityError(f"{path} cannot be written: {error.strerror or error}; name another place") from error
    finally:
        if unfinished.parent.is_dir():
            unfinished.unlink(missing_ok=True)
    return path
