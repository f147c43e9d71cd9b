"""The loop that answers the host, inside the legacy interpreter."""

from __future__ import annotations

import traceback
from typing import Any, Dict

from parity.engines import group
from parity.errors import ParityError


def serve(channel: Any) -> None:
    """Answer ``{"method", "arguments"}`` messages with ``{"value"}`` or ``{"error"}`` until the host hangs up.

    It leaves a group of processes then, whatever the session thought of.
    """
    try:
        _serve(channel)
    finally:
        group.leave()


def _serve(channel: Any) -> None:
    session: Any = None
    for message in channel:
        try:
            if message["method"] == "open":
                from parity.engines.session import Session  # here, so that a failing import is answered

                session = Session(**message["arguments"])
                value: Any = session.fingerprint()
            else:
                value = _answer(session, message["method"], message["arguments"])
            channel.send({"value": value})
        except ParityError as error:
            channel.send({"error": str(error), "traceback": ""})
        except Exception as error:  # the host shows it whole; this loop must live on to say so
            channel.send({"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()})


def _answer(session: Any, method: str, arguments: Dict[str, Any]) -> Any:
    from parity.engines import wire
    from parity.engines.base import Run

    for name in ("batch", "inputs", "forced", "draws"):
        if isinstance(arguments.get(name), bytes):
            arguments[name] = wire.unpack(arguments[name])
    value = getattr(session, method)(**arguments)
    return wire.encode_run(value) if isinstance(value, Run) else value
