"""A detector that is none: what it finds depends on the image's name alone. It can be slow, and it can fail."""

from __future__ import annotations

import os
import signal
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from parity.ap.frames import Detections
from parity.ap.run import Image, Job, Run
from parity.errors import ParityError

OPENER = "ap_stand_in:open_detector"


def found_on(name: str) -> Detections:
    """Return what the stand-in finds on an image: up to eight boxes."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    count = int(random.integers(0, 9))
    corners = random.uniform(0, 100, (count, 2))
    boxes = np.concatenate([corners, corners + random.uniform(5, 60, (count, 2))], axis=1)
    return Detections(
        boxes.astype(np.float32), random.random(count, dtype=np.float32), random.integers(0, 80, count, dtype=np.int32)
    )


class StandIn:
    """Fails as ``AP_STAND_IN_FAILS`` says: ``DEVICE:N``, when the N-th image of that GPU's process is asked for;
    ``image:NAME``; or ``killed:N``, which kills torchrun's rank 1 there. Takes ``AP_STAND_IN_SECONDS`` for an image."""

    def __init__(self) -> None:
        self.seconds = float(os.environ.get("AP_STAND_IN_SECONDS", "0"))
        self.fails = os.environ.get("AP_STAND_IN_FAILS", "")
        self.done = 0

    def detect(self, paths: Sequence[str], ahead: Sequence[str] = ()) -> SimpleNamespace:
        tensors = {}
        for index, path in enumerate(paths):
            self._fail(Path(path).name)
            time.sleep(self.seconds)
            found = found_on(Path(path).name)
            tensors |= {
                f"boxes[{index}]": found.boxes,
                f"scores[{index}]": found.scores,
                f"labels[{index}]": found.labels,
            }
            self.done += 1
        return SimpleNamespace(tensors=tensors)

    def _fail(self, name: str) -> None:
        what, _, which = self.fails.partition(":")
        if what == "image" and name == which:
            raise ParityError(f"{name} is no image")
        if what == "killed" and os.environ.get("RANK") == "1" and self.done >= int(which):
            os.kill(os.getpid(), signal.SIGKILL)
        if what and what == os.environ.get("CUDA_VISIBLE_DEVICES") and self.done >= int(which):
            raise ParityError("an illegal memory access was encountered")

    def close(self) -> None:
        pass


def open_detector(job: Job, device: str) -> StandIn:
    return StandIn()


def make_run(folder: Path, count: int = 40, **identity: str) -> Run:
    """Return a run of the stand-in over images that need not be there."""
    images = [Image(number, f"/nowhere/{number:03}.png") for number in range(count)]
    job = Job("stand-in", "ddq_fcn_small", "", opener=OPENER)
    if os.environ.get("RANK") == os.environ.get("AP_STAND_IN_OTHER_WEIGHTS", "no rank"):
        identity["weights"] = "others"
    return Run(folder, job, images, {"case": "ddq_fcn_small", **identity})
