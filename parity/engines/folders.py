"""The temporary folders of workers: each has its own, and all of one process share one more."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from parity.locks import try_take

_PREFIX, _LOCKED = "parity-worker-", "locked"


class WorkerFolder:
    """A temporary folder that a lock belongs to: what a killed host left is removed when the next one starts."""

    def __init__(self) -> None:
        self._sweep()
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try_take(self._lock)
        (self.path / _LOCKED).touch()  # from here on it may be swept, if the lock is free

    def remove(self) -> None:
        """Remove it."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    @staticmethod
    def _sweep() -> None:
        for leftover in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
            if not (leftover / _LOCKED).is_file():
                continue
            with suppress(OSError):
                lock = os.open(leftover, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    if os.fstat(lock).st_uid == os.getuid() and try_take(lock):
                        shutil.rmtree(leftover, ignore_errors=True)
                finally:
                    os.close(lock)


class SharedFolder:
    """A folder that every worker of this process may write to, where processes meet; it goes with the last of them."""

    _guard = threading.Lock()
    _folder: ClassVar[WorkerFolder | None] = None
    _users: ClassVar[int] = 0

    def __init__(self) -> None:
        with SharedFolder._guard:
            if SharedFolder._folder is None:
                SharedFolder._folder = WorkerFolder()
            SharedFolder._users += 1
            self.path = SharedFolder._folder.path
            self._held = True

    def release(self) -> None:
        """Need it no longer."""
        with SharedFolder._guard:
            if not self._held:
                return
            self._held = False
            SharedFolder._users -= 1
            if SharedFolder._users == 0 and SharedFolder._folder is not None:
                SharedFolder._folder.remove()
                SharedFolder._folder = None
