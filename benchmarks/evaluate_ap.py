"""pycocotools : our evaluation, on 5,000 images with 100 detections each. Must be at least 6, figures equal.

    python benchmarks/evaluate_ap.py [IMAGES]

CPU time of this process, so that other work on the machine does not count; ours is the mean of a run before theirs
and one after. Both read the annotation file; making the list of results is counted for ours alone.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from parity.ap.evaluate import FIGURES, Annotations, coco_results, evaluate
from parity.ap.frames import Detections, Predictions
from parity.coco.categories import IDS, categories

T = TypeVar("T")
DETECTIONS, OBJECTS = 100, 7.3  # COCO val2017 has 7.3 objects an image


def drawn(images: int, folder: Path) -> tuple[Path, Predictions]:
    """Return an annotation file like COCO's, and detections near its objects and elsewhere."""
    random = np.random.default_rng(0)
    content: dict[str, list] = {"images": [], "annotations": [], "categories": categories()}
    found: Predictions = {}
    for image in range(1, images + 1):
        content["images"].append({"id": image, "file_name": f"{image:012}.jpg", "height": 480, "width": 640})
        count = int(random.poisson(OBJECTS))
        sides = np.exp(random.uniform(np.log(8), np.log(320), (count, 2)))
        corners = random.uniform(0, 1, (count, 2)) * (np.array([640, 480]) - np.minimum(sides, 470))
        labels = random.integers(0, 80, count)
        for place in range(count):
            box = [*corners[place].tolist(), *sides[place].tolist()]
            number = len(content["annotations"]) + 1
            crowd = int(random.random() < 0.01)
            content["annotations"].append(
                {"id": number, "image_id": image, "category_id": IDS[labels[place]], "bbox": box,
                 "area": box[2] * box[3], "iscrowd": crowd, "segmentation": []}
            )  # fmt: skip
        near = random.integers(0, max(count, 1), DETECTIONS) % max(count, 1)
        boxes = random.uniform(0, 200, (DETECTIONS, 4))
        guessed = random.integers(0, 80, DETECTIONS)
        if count:
            boxes = np.concatenate([corners, sides], axis=1)[near] + random.normal(0, 6, (DETECTIONS, 4))
            guessed = np.where(random.random(DETECTIONS) < 0.5, labels[near], guessed)
        boxes[:, 2:] = boxes[:, :2] + np.abs(boxes[:, 2:]) + 1
        found[image] = Detections(
            boxes.astype(np.float32), random.random(DETECTIONS, dtype=np.float32), guessed.astype(np.int32)
        )
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    return path, found


def timed(action: Callable[[], T]) -> tuple[float, float, T]:
    cpu, wall = time.process_time(), time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        value = action()
    return time.process_time() - cpu, time.perf_counter() - wall, value


def theirs(path: Path, results: list[dict[str, Any]]) -> np.ndarray:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO(str(path))
    judge = COCOeval(truth, truth.loadRes(results), "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    return judge.stats


def main() -> int:
    images = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    with tempfile.TemporaryDirectory() as folder:
        path, found = drawn(images, Path(folder))
        before = timed(lambda: evaluate(found, Annotations(path)))
        results = coco_results(found)
        their_cpu, their_wall, stats = timed(lambda: theirs(path, results))
        after = timed(lambda: evaluate(found, Annotations(path)))
    ours_cpu, ours_wall = (before[0] + after[0]) / 2, (before[1] + after[1]) / 2
    ours = before[2]
    difference = max(abs(ours.figures[name] / 100 - stat) for name, stat in zip(FIGURES, stats, strict=True))
    print(
        f"{images} images x {DETECTIONS}: ours {ours_cpu:.1f} s CPU ({ours_wall:.1f} s),"
        f" pycocotools {their_cpu:.1f} s ({their_wall:.1f} s)"
    )
    print(
        f"ratio {their_cpu / ours_cpu:.1f} by CPU time, {their_wall / ours_wall:.1f} by the clock;"
        f" greatest difference {difference:.1e}"
    )
    return 0 if their_cpu / ours_cpu >= 6 and difference <= 1e-12 else 1


if __name__ == "__main__":
    sys.exit(main())
