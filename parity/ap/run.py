"""One engine's predictions for one case: what they are of, where they lie, and what is missing."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from parity.ap.frames import Predictions, next_round, read_predictions
from parity.errors import ParityError

IDENTITY, LOCK = "run.json", "lock"
_LOCK_PATIENCE = 30.0  # seconds: processes of a run that was killed end with it, but those still importing not at once


@dataclass(frozen=True)
class Image:
    """An image to predict."""

    id: int
    path: str


@dataclass(frozen=True)
class Job:
    """What one process needs to know in order to predict.

    Attributes:
        engine, case: names.
        python, root: the legacy interpreter and checkout; both empty for the new engine.
        weights: a safetensors file with the engine's own parameter names.
        opener: ``package.module:function`` that opens a detector from a job and a device.
        threads: of torch; 0 leaves it as it is. On the CPU it is one, so that sums do not depend on the machine.
    """

    engine: str
    case: str
    weights: str
    python: str = ""
    root: str = ""
    opener: str = "parity.ap.shard:open_detector"
    threads: int = 0
    time_limit: float = 900.0


class Run:
    """A folder of predictions.

    Args:
        folder: where they lie; made if it is not there.
        job: what predicts.
        images: all that is to be predicted.
        identity: what the predictions depend on; those of something else are never gone on with.
    """

    def __init__(self, folder: Path, job: Job, images: Sequence[Image], identity: Mapping[str, str]) -> None:
        self.folder = folder
        self.job = job
        self.images = tuple(images)
        self.identity = dict(identity)

    def open(self) -> bool:
        """Make the folder, or find what an earlier run left; return whether it was thrown away for another identity."""
        stated = self.folder / IDENTITY
        stale = stated.exists() and _read_identity(stated) != self.identity
        if stale:
            shutil.rmtree(self.folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            part = stated.with_suffix(".part")
            part.write_text(json.dumps(self.identity, indent=1) + "\n")
            part.replace(stated)
        except OSError as error:
            raise ParityError(f"{self.folder} cannot be written: {error.strerror}") from None
        return stale

    def predictions(self) -> Predictions:
        """Return what is there."""
        return read_predictions(self.folder)

    def left(self) -> tuple[list[Image], int]:
        """Return the images that still have to be predicted, and the number of the round that may do so."""
        done = self.predictions().keys()
        return [image for image in self.images if image.id not in done], next_round(self.folder)

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Keep other runs out of the folder; yields the descriptor that holds the lock.

        Child processes that inherit it hold the lock too: a run cannot start while a killed one's are still writing.
        """
        path = self.folder.parent / f"{self.folder.name}.{LOCK}"
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise ParityError(f"{path} cannot be written: {error.strerror}") from None
        try:
            _wait_for(descriptor, self.folder)
            yield descriptor
        finally:
            os.close(descriptor)


def _wait_for(descriptor: int, folder: Path) -> None:
    until = time.monotonic() + _LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                raise ParityError(
                    f"another run is predicting in {folder}: wait for it, or name another --ap-dir"
                ) from None
            time.sleep(0.1)


def _read_identity(path: Path) -> object:
    try:
        return json.loads(path.read_text())
    except ValueError:
        return None
