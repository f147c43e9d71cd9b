"""Start the legacy engine that a command's options ask for."""

from __future__ import annotations

import argparse
import sys

from parity.engines.environment import legacy_python
from parity.engines.host import DEFAULT_TIME_LIMIT, RemoteSession
from parity.engines.session import engine_class
from parity.errors import ParityError


def open_legacy(
    engine: str, options: argparse.Namespace, *, kind: type[RemoteSession] = RemoteSession
) -> RemoteSession:
    """Return a session of a legacy engine in its own interpreter.

    Raises:
        ParityError: it runs a checkout and none is named, it has no interpreter, or it does not start.
    """
    adapter = engine_class(engine)
    wanted = adapter.checkout
    if wanted and not options.legacy_root:
        raise ParityError(f"engine {engine} runs a checkout: clone {wanted}, and name its folder with --legacy-root")
    return kind(
        engine,
        python=_python(engine, adapter.runs_here, options.legacy_python),
        root=options.legacy_root,
        time_limit=options.time_limit or DEFAULT_TIME_LIMIT,
    )


def _python(engine: str, runs_here: bool, given: str | None) -> str:
    """Return the interpreter: this one for the new engine, another only where one is named."""
    return sys.executable if runs_here and not given else legacy_python(engine, given)
