"""Locks between processes: held by a descriptor, so that they end with whoever holds them, however that ends."""

from __future__ import annotations

import errno
import fcntl
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from parity.errors import ParityError

_UNSUPPORTED = (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # some network file systems
_LOOK_EVERY = 0.05  # seconds


def take(descriptor: int, *, patience: float = math.inf, busy: str = "") -> None:
    """Lock an open file; where its file system knows no locks, go on without.

    Args:
        patience: seconds to wait for another process.
        busy: what to say when that was in vain.

    Raises:
        ParityError: another process holds it for longer.
    """
    until = time.monotonic() + patience
    while not try_take(descriptor):
        if time.monotonic() > until:
            raise ParityError(busy)
        time.sleep(_LOOK_EVERY)


def try_take(descriptor: int, *, without_locks: bool = True) -> bool:
    """Lock an open file unless another process holds it; return whether nobody else does.

    Args:
        without_locks: what to return where its file system knows no locks, so that nobody can tell.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        return without_locks
    return True


def try_take_at(path: Path, descriptor: int, *, without_locks: bool = True) -> bool:
    """As ``try_take``, and the open file still has to be the one at ``path``.

    Who removes a file holds its lock. Another process that had opened it before then gets the lock of a file that is
    no more, while its name may be somebody else's, who is alive.
    """
    if not try_take(descriptor, without_locks=without_locks):
        return False
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@contextmanager
def locked_folder(
    folder: Path, *, patience: float = math.inf, busy: str = "", waiting: Callable[[], None] | None = None
) -> Iterator[int]:
    """Keep other processes that lock it too out of a folder, which is made if it is not there. No file is left in it.

    Yields a descriptor that holds the lock: processes that inherit it keep the folder locked for as long as they live,
    even where the one that started them was killed.

    Args:
        patience: seconds to wait for another process.
        busy: what to say when that was in vain.
        waiting: called once, before another process is waited for.

    Raises:
        ParityError: it cannot be made, or another process holds it for longer.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except (OSError, ValueError) as error:
        raise ParityError(f"{folder} cannot be written: {getattr(error, 'strerror', '') or error}") from None
    try:
        if waiting is not None and not try_take(descriptor):
            waiting()
        take(descriptor, patience=patience, busy=busy)
        yield descriptor
    finally:
        os.close(descriptor)
