"""Predictions on disk, appended as they come: whatever is interrupted, what was written is whole.

A part file begins with the identity of what its predictions depend on. A row of frames follows: length and CRC-32
of what follows, then the bytes of a safetensors file with the predictions of one image. Only the end of a part can be
torn, by a writer that was killed; it does not count. No writer appends to a part that was there before it, and no
reader takes a part of another identity, whatever folder it lies in.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from parity.errors import ParityError

SUFFIX = ".frames"
_MAGIC = b"parityAP"
_BEGINNING = len(_MAGIC) + 32  # bytes: the identity's SHA-256 behind the magic
_HEAD = struct.Struct("<II")  # bytes that follow, their CRC-32


@dataclass(frozen=True)
class Detections:
    """What a detector found on one image.

    Attributes:
        boxes: (N, 4) float32, pixels xyxy of the image file.
        scores: (N,) float32 probabilities.
        labels: (N,) int32, contiguous classes.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)


Predictions = dict[int, Detections]  # image id -> what was found on it


class PartWriter:
    """Writes a part file of its own; each image is on disk when ``append`` returns.

    Args:
        identity: SHA-256, in hexadecimal digits, of what the predictions depend on.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self._path = path
        try:
            self._file = path.open("xb", buffering=0)
        except OSError as error:
            raise ParityError(f"{path} cannot be written: {error.strerror}") from None
        self._write(_MAGIC + bytes.fromhex(identity))

    def append(self, image: int, found: Detections) -> None:
        """Write the predictions of one image."""
        arrays = {"boxes": found.boxes, "scores": found.scores, "labels": found.labels}
        body = save(
            {name: np.ascontiguousarray(array) for name, array in arrays.items()} | {"image": np.array([image])}
        )
        self._write(_HEAD.pack(len(body), zlib.crc32(body)) + body)

    def _write(self, content: bytes) -> None:
        try:
            written = self._file.write(content)
        except OSError as error:
            raise ParityError(f"{self._path} cannot be written: {error.strerror}") from None
        if written != len(content):  # nothing may follow a torn frame
            raise ParityError(f"{self._path} cannot be written: no space is left, or a quota is reached")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def part_path(folder: Path, round_: int, rank: int) -> Path:
    """Return the part file of one process in one round; no round has the number of an earlier one."""
    return folder / f"part-{round_}-{rank}{SUFFIX}"


def parts(folder: Path) -> list[Path]:
    """Return the part files of a folder, sorted."""
    return sorted(folder.glob(f"part-*{SUFFIX}"))


def next_round(folder: Path) -> int:
    """Return a number that no part file has yet.

    >>> next_round(Path("nowhere"))
    0
    """
    return 1 + max((int(part.name.split("-")[1]) for part in parts(folder)), default=-1)


def is_foreign(part: Path, identity: str) -> bool:
    """Return whether a part belongs to another identity; one that was torn before its identity belongs to none."""
    with part.open("rb") as file:
        beginning = file.read(_BEGINNING)
    return len(beginning) == _BEGINNING and beginning != _MAGIC + bytes.fromhex(identity)


def read_predictions(folder: Path, identity: str) -> Predictions:
    """Return all that was written below a folder under this identity.

    Raises:
        ParityError: a part is damaged elsewhere than at its end, or an image is there twice; names the file.
    """
    found: Predictions = {}
    for part in parts(folder):
        for image, detections in read_part(part, identity):
            if image in found:
                raise ParityError(
                    f"{part} predicts image {image} a second time: remove one of the files that do, or the folder"
                )
            found[image] = detections
    return found


def read_part(part: Path, identity: str) -> Iterator[tuple[int, Detections]]:
    """Yield image id and predictions of every whole frame; nothing of a part of another identity."""
    if is_foreign(part, identity):
        return
    content = part.read_bytes()
    for start, end, crc in _frames(content):
        body = content[start:end]
        if zlib.crc32(body) != crc:
            if end == len(content):
                return
            raise ParityError(f"{part} is damaged at byte {start}: remove the file, and its images are done again")
        arrays = load(body)
        yield int(arrays["image"][0]), Detections(arrays["boxes"], arrays["scores"], arrays["labels"])


def count_frames(part: Path, start: int = 0) -> tuple[int, int]:
    """Return how many whole frames a part has from byte ``start`` on, and where the last of them ends."""
    start = max(start, _BEGINNING)
    with part.open("rb") as file:
        file.seek(start)
        content = file.read()
    ends = [end for _, end, _ in _frames(content, 0)]
    return len(ends), start + (ends[-1] if ends else 0)


def _frames(content: bytes, place: int = _BEGINNING) -> Iterator[tuple[int, int, int]]:
    """Yield first byte, end and CRC-32 of every frame's body from ``place`` on; a torn one at the end is left out."""
    while place + _HEAD.size <= len(content):
        length, crc = _HEAD.unpack_from(content, place)
        if not length:  # zeros that a machine left which went down: no frame is empty
            return
        place += _HEAD.size + length
        if place > len(content):
            return
        yield place - length, place, crc
