"""One engine's predictions for one case: what they are of, where they lie, and what is missing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from parity.ap.frames import Predictions, is_foreign, next_round, parts, read_predictions
from parity.errors import DAMAGE, ParityError
from parity.locks import take

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

    @property
    def digest(self) -> str:
        """SHA-256 of the identity, in hexadecimal digits: what every part file begins with."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()

    def open(self) -> bool:
        """Make the folder, or find what an earlier run left; return whether any was thrown away for another identity.

        What is thrown away leaves the folder by one rename before anything of it is removed: a run that is killed
        between two removals leaves nothing that the next one could take for its own.
        """
        stated = self.folder / IDENTITY
        self._sweep()
        try:
            stale = stated.exists() and _read_identity(stated) != self.identity
            if stale:
                self.folder.rename(self._aside(0))
            foreign = [part for part in parts(self.folder) if is_foreign(part, self.digest)]
            for number, part in enumerate(foreign, start=1):
                part.rename(self._aside(number))
            self.folder.mkdir(parents=True, exist_ok=True)
            unfinished = stated.with_suffix(".part")
            unfinished.write_text(json.dumps(self.identity, indent=1) + "\n")
            unfinished.replace(stated)
        except OSError as error:
            raise ParityError(f"{self.folder} cannot be written: {error.strerror}") from None
        self._sweep()
        return stale or bool(foreign)

    def _aside(self, number: int) -> Path:
        return self.folder.parent / f"{self._aside_prefix}{number}"

    @property
    def _aside_prefix(self) -> str:
        return f".{self.folder.name}.stale-"

    def _sweep(self) -> None:
        """Remove what was put aside, here or by a run that was killed; the lock keeps other runs out."""
        for path in self.folder.parent.glob(f"{self._aside_prefix}*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
            if path.exists():
                raise ParityError(f"{path} cannot be removed: remove it, it holds predictions of an earlier run")

    def predictions(self) -> Predictions:
        """Return what is there under this identity."""
        return read_predictions(self.folder, self.digest)

    def complete_predictions(self) -> Predictions:
        """Return the predictions of all images.

        Raises:
            ParityError: some are not there, as when another run took the folder meanwhile.
        """
        found = self.predictions()
        lacking = [image.id for image in self.images if image.id not in found]
        if lacking:
            raise ParityError(
                f"{self.folder} lacks {len(lacking)} of {len(self.images)} images, such as {lacking[0]}: did another"
                " run take the folder meanwhile? Run it again, or name another --ap-dir"
            )
        return found

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
            busy = f"another run is predicting in {self.folder}: wait for it, or name another --ap-dir"
            take(descriptor, patience=_LOCK_PATIENCE, busy=busy)
            yield descriptor
        finally:
            os.close(descriptor)


def _read_identity(path: Path) -> object:
    try:
        return json.loads(path.read_text())
    except DAMAGE:
        return None
