"""One process of a run: predicts its share of the images, and appends what it finds."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from parity.ap.frames import Detections, PartWriter, part_path
from parity.ap.run import Image, Job
from parity.cases.outside import outside_folders, use_folders
from parity.errors import ParityError
from parity.orphans import end_with_parent

REASON = "failed: "  # begins the line of a log that says why
AT_ONCE = 4  # images a request; as many again are loaded meanwhile
MOST_IN_A_ROW = 3  # images that fail before the process gives up


class Detector(Protocol):
    """What runs a loaded detector on image files; ``Session`` and ``RemoteSession`` do."""

    def detect(self, paths: Sequence[str], ahead: Sequence[str] = ()) -> Any:
        """Return a ``Run`` with ``boxes[i]``, ``scores[i]`` and ``labels[i]``."""

    def close(self) -> None:
        """Let go of whatever it holds."""


def share(images: Sequence[Image], *, rank: int, world: int) -> list[Image]:
    """Return the images of one of ``world`` processes: each image is in exactly one share, none is repeated.

    >>> [[image.id for image in share([Image(i, "") for i in range(5)], rank=rank, world=2)] for rank in range(2)]
    [[0, 2, 4], [1, 3]]
    """
    return list(images[rank::world])


def predict_share(
    job: Job,
    images: Sequence[Image],
    part: Path,
    *,
    identity: str,
    device: str,
    tell: Callable[[], None] = lambda: None,
) -> None:
    """Predict images and append them to a new part file; ``tell`` is called after each.

    An image that cannot be predicted is left out, and the rest goes on: only several in a row end it. The part says
    of which identity its predictions are.

    Raises:
        ParityError: the detector cannot be opened, or an image could not be predicted; the others are on disk.
    """
    if not images:
        return
    detector, failures = open_by_name(job, device), _Failures()
    writer = PartWriter(part, identity)
    try:
        for start in range(0, len(images), AT_ONCE):
            chunk, ahead = images[start : start + AT_ONCE], images[start + AT_ONCE : start + 2 * AT_ONCE]
            for image, found in _detected(detector, chunk, ahead, failures):
                writer.append(image.id, found)
                tell()
    finally:
        writer.close()
        detector.close()
    failures.raise_any()


class _Failures:
    """Images that could not be predicted, and how many of them came in a row."""

    def __init__(self) -> None:
        self._reasons: list[str] = []
        self._in_a_row = 0

    def add(self, image: Image, error: Exception) -> None:
        """Note one; where there are too many in a row, it is not for the images' sake."""
        self._reasons.append(f"image {image.id}: {error}")
        self._in_a_row += 1
        if self._in_a_row >= MOST_IN_A_ROW:
            raise ParityError(str(error), detail=traceback.format_exc()) from error

    def none(self) -> None:
        """Note that one could."""
        self._in_a_row = 0

    def raise_any(self) -> None:
        """Raise what was noted."""
        if self._reasons:
            raise ParityError(self._reasons[-1], detail="\n".join(self._reasons))


def _detected(
    detector: Detector, chunk: Sequence[Image], ahead: Sequence[Image], failures: _Failures
) -> Iterator[tuple[Image, Detections]]:
    """Yield what is found on some images; where that fails, on each by itself."""
    try:
        found = _detect(detector, chunk, ahead)
    except Exception:  # whatever it is: the images by themselves tell which it is of
        for image in chunk:
            try:
                found = _detect(detector, [image])
            except Exception as error:
                failures.add(image, error)
            else:
                yield image, found[0]
                failures.none()
        return
    failures.none()
    yield from zip(chunk, found, strict=True)


def _detect(detector: Detector, images: Sequence[Image], ahead: Sequence[Image] = ()) -> list[Detections]:
    tensors = detector.detect([image.path for image in images], [image.path for image in ahead]).tensors
    names = ("boxes", "scores", "labels")
    return [Detections(*(np.asarray(tensors[f"{name}[{i}]"]) for name in names)) for i in range(len(images))]


def open_by_name(job: Job, device: str) -> Detector:
    """Call the job's opener."""
    module, function = job.opener.split(":")
    detector: Detector = getattr(importlib.import_module(module), function)(job, device)
    return detector


def open_detector(job: Job, device: str) -> Detector:
    """Return the engine with the case's model and weights: here, or in the legacy interpreter."""
    from parity.engines.host import RemoteSession
    from parity.engines.session import Session

    session: Any
    if job.python:
        session = RemoteSession(job.engine, python=job.python, root=job.root, device=device, time_limit=job.time_limit)
    else:
        session = Session(job.engine, device=device)
    session.load(job.case, "fp32")
    session.read_weights(job.weights)
    threads = {"threads": job.threads} if job.threads else {}
    session.configure(onednn=True, tf32=False, **threads)
    return session  # type: ignore[no-any-return]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one share, described by a plan that the launcher wrote; the reason of a failure goes into a file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("plan", type=Path)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--world", type=int, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--parent", type=int, default=0)
    options = parser.parse_args(arguments)
    end_with_parent(options.parent)  # two runs must not write at once
    plan = json.loads(options.plan.read_text())
    use_folders(map(Path, plan["cases"]))
    images = share([Image(*image) for image in plan["images"]], rank=options.rank, world=options.world)
    part = part_path(options.plan.parent, plan["round"], options.rank)
    try:
        predict_share(Job(**plan["job"]), images, part, identity=plan["identity"], device=options.device)
    except ParityError as error:
        print(error.detail, f"{REASON}{error}", sep="\n", file=sys.stderr)
        return 1
    return 0


def write_plan(path: Path, job: Job, images: Sequence[Image], round_: int, *, identity: str) -> None:
    """Write what the processes of one round read."""
    plan = {
        "job": asdict(job),
        "images": [[image.id, image.path] for image in images],
        "round": round_,
        "identity": identity,
        "cases": outside_folders(),
    }
    path.write_text(json.dumps(plan))


if __name__ == "__main__":
    sys.exit(main())
