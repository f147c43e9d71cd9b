"""Runs of full-val AP killed at a random moment and gone on with: final figures are those of an undisturbed run.

Each finds a whole run of other weights in its folder, and every second one is killed while it throws that away.

    python benchmarks/killed_runs.py [TIMES]

Launcher and processes are the real ones; the detector hands out the committed predictions of ddq_fcn_small, slowly.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from parity.ap.committed import unpack
from parity.ap.evaluate import Annotations, evaluate
from parity.ap.frames import Detections, PartWriter, part_path, parts, read_part
from parity.ap.full import predict
from parity.ap.run import Image, Job, Run
from parity.ap.settings import Settings
from parity.ap.teams import Spawned
from parity.coco.synthesize import synthesize
from parity.records.locate import default_fixtures

COMMITTED = default_fixtures() / "ap" / "ddq_fcn_small" / "legacy.safetensors"
SECONDS = 0.05  # an image


class Committed:
    def __init__(self) -> None:
        self.found = unpack(COMMITTED)

    def detect(self, paths: Sequence[str], ahead: Sequence[str] = ()) -> SimpleNamespace:
        tensors = {}
        for index, path in enumerate(paths):
            time.sleep(SECONDS)
            found = self.found[int(Path(path).stem)]
            tensors |= {f"{name}[{index}]": getattr(found, name) for name in ("boxes", "scores", "labels")}
        return SimpleNamespace(tensors=tensors)

    def close(self) -> None:
        pass


def open_detector(job: Job, device: str) -> Committed:
    return Committed()


def run_in(folder: Path, weights: str = "new") -> Run:
    images = [Image(number, f"{number:012}.png") for number in unpack(COMMITTED)]
    job = Job("committed", "ddq_fcn_small", "", opener="killed_runs:open_detector")
    return Run(folder, job, images, {"weights": weights})


def leave_other(folder: Path) -> None:
    """Write a whole run of other weights, which finds nothing on any image, in parts of one image each."""
    other = run_in(folder, "old")
    other.open()
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))
    for round_, image in enumerate(other.images):
        writer = PartWriter(part_path(folder, round_, 0), other.digest)
        writer.append(image.id, nothing)
        writer.close()


def finish(folder: Path) -> None:
    predict(run_in(folder), Spawned([]), Settings(processes=2), say=lambda line: None)


def main() -> int:
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    # All processes import the detector above by its name.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).resolve().parent), *sys.path])
    draw, wrong, at = random.Random(7), 0, []
    with tempfile.TemporaryDirectory() as name:
        root = synthesize(Path(name) / "coco", images=1)
        annotations = Annotations(root / "annotations" / "instances_val2017.json")
        undisturbed = evaluate(unpack(COMMITTED), annotations).figures
        for attempt in range(times):
            folder = Path(name) / f"run-{attempt}"
            leave_other(folder)
            kill_once(folder, after=draw.uniform(0.0, 1.0), early=attempt % 2 == 1)
            at.append(sum(1 for part in parts(folder) for _ in read_part(part, run_in(folder).digest)))
            finish(folder)
            listed = sorted(image for part in parts(folder) for image, _ in read_part(part, run_in(folder).digest))
            wrong += listed != sorted(annotations.images)
            wrong += evaluate(run_in(folder).predictions(), annotations).figures != undisturbed
            wrong += any(folder.parent.glob(".*"))
    print(f"{times} runs of {len(listed)} images, killed when {at} were there: {wrong} wrong")
    return 1 if wrong or not any(0 < count < len(listed) for count in at) else 0


def kill_once(folder: Path, *, after: float, early: bool) -> None:
    """Start a run; kill it some time after it began to write (``after`` is a share of what writing takes).

    ``early``: kill it within some milliseconds of the moment when the run of other weights begins to go.
    """
    code = f"import killed_runs, pathlib; killed_runs.finish(pathlib.Path({str(folder)!r}))"
    process = subprocess.Popen([sys.executable, "-c", code])
    while len(parts(folder)) == len(run_in(folder).images) and process.poll() is None:
        pass
    if early:
        time.sleep(after * 0.004)
    else:
        while not run_in(folder).predictions() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(after * SECONDS * len(run_in(folder).images) / 2)
    process.send_signal(signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    sys.exit(main())
