"""What the command line says on standard error when it does not do what it was asked for."""

from __future__ import annotations

import io
import os
import sys
import traceback

from parity.text import one_line

WRONG_CALL = 2
_MOST_DETAIL = 8000  # letters shown below an error without --debug: the end, which says most


def prepare_streams() -> None:
    """Show each line when it is printed, into a pipe too, and letters that a terminal does not know as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace", line_buffering=True)


def wrong_call(message: str, *, debug: bool, detail: str = "") -> int:
    """Say in one line what is wrong with the call or what it runs on; return the exit status."""
    print(f"parity: {one_line(message)}", file=sys.stderr)
    if detail:
        print(detail if debug or len(detail) <= _MOST_DETAIL else f"…{detail[-_MOST_DETAIL:]}", file=sys.stderr)
    if debug:
        traceback.print_exc()
    return WRONG_CALL


def failed(error: Exception, *, debug: bool) -> int:
    """Say in one line what the machine refuses, or that parity itself is wrong; return the exit status."""
    if isinstance(error, BrokenPipeError):  # whoever read this, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return WRONG_CALL
    if isinstance(error, OSError):  # a disk that is full, a link that leads to itself
        where = "" if error.filename is None else f"{error.filename}: "
        return wrong_call(f"{where}{error.strerror or error}", debug=debug)
    if isinstance(error, MemoryError):
        return wrong_call(f"memory ran out ({error})", debug=debug)
    if isinstance(error, RecursionError):
        return wrong_call(f"something that was given is nested too deep ({error})", debug=debug)
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):  # of pathlib before Python 3.13
        return wrong_call(str(error), debug=debug)
    traceback.print_exc()
    print(f"parity: {type(error).__name__}, a fault of parity itself: the traceback is above", file=sys.stderr)
    return WRONG_CALL
