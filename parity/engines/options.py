"""The options of commands that start a legacy engine."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from parity.engines.sandbox import MEMORY, OFF, parsed_size


def add_legacy(parser: argparse.ArgumentParser, *, timed: bool = True) -> None:
    """Add which engine it is and, where it is asked things, how long an answer may take."""
    root = os.environ.get("PARITY_LEGACY_ROOT", "")
    python = os.environ.get("PARITY_LEGACY_PYTHON")
    parser.add_argument("--legacy-root", metavar="DIR", default=root, help="the checkout, for an engine that runs one")
    help_text = "the legacy interpreter (default: PARITY_LEGACY_PYTHON, else that of `parity env`)"
    parser.add_argument("--legacy-python", metavar="PY", default=python, help=help_text)
    if timed:
        parser.add_argument("--time-limit", type=float, metavar="SECONDS", help="for one request to the legacy engine")


def add_sandbox(add: Callable[..., Any]) -> None:
    """Add what workers on this machine are given."""
    help_text = f"let workers use the network, write where you may, and see your whole environment (or {OFF}=1)"
    add("--no-sandbox", action="store_true", help=help_text)
    help_text = f"the most memory of a worker, such as 16G (default: {MEMORY}, else what the machine has)"
    add("--worker-memory", metavar="SIZE", help=help_text)


@contextmanager
def sandboxed(*, off: bool, memory: str | None) -> Iterator[None]:
    """Let workers that are started in the block, by processes that it starts too, be given what the options say.

    Raises:
        ParityError: the memory is no size.
    """
    asked = {OFF: "1"} if off else {}
    if memory is not None:
        parsed_size(memory)
        asked[MEMORY] = memory
    before = {name: os.environ.get(name) for name in asked}
    os.environ.update(asked)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
