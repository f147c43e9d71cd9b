"""Processes that end with the one that started them, however that ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys


def end_with_parent(parent: int = 0) -> None:
    """Have the kernel end this process when its parent is gone; Linux only, elsewhere nothing happens.

    Args:
        parent: the process id that it was started by: if it is gone already, this process ends here. 0 does not look.
    """
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    except (OSError, AttributeError):
        return
    if parent and os.getppid() != parent:  # it was gone before the kernel was told
        sys.exit(f"failed: process {parent}, which started this one, is gone")
