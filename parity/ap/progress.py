"""How far a run is: images, images per second and time left, from what lies on disk."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from parity.ap.frames import count_frames, parts

EVERY = 30.0  # seconds between two lines where there is no terminal


class Progress:
    """Counts the images that all processes of a run have written.

    Args:
        folder: of the run.
        total: images in all.
        title: what runs.
        say: prints a line where there is no terminal.
    """

    def __init__(self, folder: Path, *, total: int, title: str, say: Callable[[str], None] | None = None) -> None:
        self._folder, self._title, self._say = folder, title, say
        self._read: dict[Path, int] = {}
        self.done = self._count()
        self._began, self._first, self._last = time.monotonic(), self.done, time.monotonic()
        shown = sys.stderr.isatty() and say is None
        self._bar = tqdm(total=total, initial=self.done, desc=title, unit="image", disable=not shown, leave=False)
        self._total = total

    def refresh(self) -> None:
        """Look what is new, and show it."""
        new = self._count()
        self.done += new
        self._bar.update(new)
        if self._bar.disable and time.monotonic() - self._last > EVERY:
            self._line()

    def close(self) -> None:
        """Show the end."""
        self.refresh()
        self._bar.close()
        if self._bar.disable:
            self._line()

    def _line(self) -> None:
        self._last = time.monotonic()
        meter = tqdm.format_meter(
            self.done, self._total, self._last - self._began, ncols=0, unit="image", initial=self._first
        )
        (self._say or _to_stderr)(f"{self._title}: {meter}")

    def _count(self) -> int:
        new = 0
        for part in parts(self._folder):
            found, self._read[part] = count_frames(part, self._read.get(part, 0))
            new += found
        return new


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
