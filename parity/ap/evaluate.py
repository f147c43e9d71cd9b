"""COCO's box AP, by faster-coco-eval: one evaluator for both engines."""

from __future__ import annotations

import contextlib
import gc
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from parity.ap.frames import Predictions
from parity.coco.categories import IDS
from parity.errors import ParityError

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
_ALL_AREAS, _MOST = 0, -1  # places in the table of precisions: any size, the largest number of detections


@dataclass(frozen=True)
class Evaluation:
    """What COCO's protocol says of predictions, in percent; -1 where there is no such object.

    Attributes:
        figures: the twelve of ``FIGURES``.
        classes: category name -> AP.
    """

    figures: dict[str, float]
    classes: dict[str, float]


class Annotations:
    """An annotation file, read once for all evaluations."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.content: dict[str, Any] = json.loads(path.read_bytes())
            self.images = {int(image["id"]): str(image["file_name"]) for image in self.content["images"]}
            self.names = {int(one["id"]): str(one["name"]) for one in self.content["categories"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ParityError(f"{path} is no COCO annotation file: {error}") from None
        from faster_coco_eval import COCO

        with _quiet():
            self.coco = COCO(self.content)

    def category(self, label: int) -> str:
        """Return the name of a contiguous class."""
        return self.names.get(IDS[label], f"class {label}")


def evaluate(predictions: Predictions, annotations: Annotations) -> Evaluation:
    """Judge predictions by COCO's protocol.

    Raises:
        ParityError: an image has no predictions, or a class is none of COCO's 80.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    without = annotations.images.keys() - predictions.keys()
    if without:
        raise ParityError(f"{len(without)} images of {annotations.path} have no predictions, such as {min(without)}")
    with _quiet(), _uncollected():
        results = coco_results(predictions)
        if not results:
            return Evaluation(dict.fromkeys(FIGURES, 0.0), {})
        # Not by loadRes, which would give each detection a polygon and take as long as the evaluation itself.
        found = COCO({**annotations.content, "annotations": results})
        judge = COCOeval_faster(annotations.coco, found, "bbox", print_function=_say_nothing)
        judge.run()
    figures = [100.0 * float(value) if value >= 0.0 else -1.0 for value in judge.stats[: len(FIGURES)]]
    return Evaluation(dict(zip(FIGURES, figures, strict=True)), _by_class(judge.eval, annotations))


def coco_results(predictions: Predictions) -> list[dict[str, Any]]:
    """Return COCO's results, one a detection, with the id and the area that make annotations of them."""
    ids = np.array(IDS)
    results: list[dict[str, Any]] = []
    for image, found in predictions.items():
        if len(found) and not 0 <= found.labels.min() <= found.labels.max() < len(ids):
            raise ParityError(
                f"image {image} has class {found.labels.max()}: a detector of COCO's 80 classes is expected"
            )
        boxes = found.boxes.astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        columns = (boxes, boxes[:, 2] * boxes[:, 3], found.scores.astype(np.float64), ids[found.labels])
        for number, (box, area, score, category) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True), start=len(results) + 1
        ):
            results.append(
                {"id": number, "image_id": image, "category_id": category, "bbox": box, "area": area, "score": score}
            )
    return results


def _by_class(accumulated: Mapping[str, Any], annotations: Annotations) -> dict[str, float]:
    """Return category name -> AP of those that have objects."""
    precision = accumulated["precision"][:, :, :, _ALL_AREAS, _MOST]
    names = [annotations.names[number] for number in sorted(annotations.names)]
    means = {name: column[column > -1.0] for name, column in zip(names, precision.transpose(2, 0, 1), strict=True)}
    return {name: 100.0 * float(values.mean()) for name, values in means.items() if values.size}


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the garbage collector from walking through half a million detections again and again."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _say_nothing(*words: object) -> None:
    return None


def _quiet() -> contextlib.AbstractContextManager[object]:
    return contextlib.redirect_stdout(io.StringIO())
