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
from parity.coco.categories import IDS, NAMES
from parity.coco.check import check
from parity.coco.problems import WRONG_AP
from parity.errors import DAMAGE, ParityError

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
    """An annotation file, read once for all evaluations.

    Its objects are numbered anew, since COCO's evaluation takes an id of 0 for no match.

    Args:
        images: the folder of the images, to see that they are of the sizes that the file states.

    Attributes:
        notes: what is wrong with the file and leaves AP right, a line each.

    Raises:
        ParityError: the file cannot be read, or AP by it would say nothing of a detector.
    """

    def __init__(self, path: Path, *, images: Path | None = None) -> None:
        self.path = path
        try:
            self.content: dict[str, Any] = json.loads(path.read_bytes())
        except DAMAGE as error:
            raise ParityError(f"{path} is no COCO annotation file: {error}") from None
        self.notes = _expect_sound(path, images)
        self.images = {image["id"]: str(image["file_name"]) for image in self.content["images"]}
        self.names = {one["id"]: str(one["name"]) for one in self.content["categories"]}
        _expect_own_ids(path, self.names)
        objects = self.content.get("annotations")
        if not objects:
            raise ParityError(f"{path} has no annotations: there is nothing to find, and no AP")
        self.content["annotations"] = [
            {**one, "id": number, "iscrowd": int(one.get("iscrowd") or 0)}
            for number, one in enumerate(objects, start=1)
        ]
        from faster_coco_eval import COCO

        with _quiet():
            self.coco = COCO(self.content)

    def category(self, label: int) -> str:
        """Return the name of a contiguous class."""
        return self.names.get(IDS[label], f"class {label}")


def _expect_sound(path: Path, images: Path | None) -> list[str]:
    """Refuse a file that makes AP wrong; return what else is wrong with it."""
    problems = check(path, images=images)
    for kind in problems.found:
        if kind in WRONG_AP:
            raise ParityError(
                f"{path}: {problems.line(kind)}: AP by it would be wrong; mend it (`parity coco check` finds all such)"
            )
    return [f"{path.name}: {line}" for line in problems.lines()]


def _expect_own_ids(path: Path, names: Mapping[int, str]) -> None:
    for number, name in names.items():
        own = IDS[NAMES.index(name)] if name in NAMES else number
        if own != number:
            raise ParityError(
                f"{path}: category {number} is {name}, which is {own} in COCO: AP is of COCO's own ids;"
                " `parity coco labels IN OUT --91` maps contiguous ones"
            )


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
