"""How ports are judged without a harness: final outputs at a tolerance, a slice of numbers, AP.

All of it is done on a float32 run of the whole detector, as people do, against the legacy engine's recorded
values. The unchanged engine is judged first: an alarm that it sets off as well says nothing about a bug.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from parity.cases.base import Case
from parity.cases.patterns import item
from parity.mutants.bench import BenchChecker
from parity.records.kinds import ISOLATED
from parity.records.layout import StoredTensors, array_key
from parity.records.store import Record

SLICE = 1e-4  # absolute and relative, as model zoos compare slices of 3 x 3 numbers
AP_MARGIN = 0.02  # points of 100, as detectron2's configs compare AP
WANTED = 20  # of the legacy engine's detections of an image that count as ground truth
COUNTED = 100  # detections of an image that COCO looks at

# The last logits and boxes of a detector, the first that a case has of each.
LOGITS = ("class_logits[5]", "stage_logits[1]", "class_scores[0]")
BOXES = ("box_predictions[5]", "stage_boxes_1[0]", "distances[0]")

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Practice:
    """What people would have seen of one bug.

    Attributes:
        close: whether ``torch.testing.assert_close`` passes on all final boxes, scores and labels.
        slices: whether the slices of logits and boxes agree.
        ap: box AP (0 to 100) on the images of the records; the ground truth is what the legacy engine found there.
        moved: how far a final box lies at most from the nearest one of its class in the unchanged engine's
            run, in pixels; infinite where there is none.
        crashed: whether the run raised an error.
    """

    close: bool
    slices: bool
    ap: float
    moved: float
    crashed: bool = False

    def same_ap(self, clean: Practice) -> bool:
        """Whether AP lies within the usual margin of the unchanged engine's."""
        return abs(self.ap - clean.ap) <= AP_MARGIN

    def unchanged_ap(self, clean: Practice) -> bool:
        """Whether AP is the same to its last printed digit (0.1 points)."""
        return abs(self.ap - clean.ap) < 0.05


class Judges:
    """The usual ways to judge, for one case; ``clean`` is what they say of the unchanged engine."""

    def __init__(self, checker: BenchChecker, records: Sequence[Record]) -> None:
        self.records = records = judged(records, checker.case)
        self.truth = {record.id: _final(StoredOutputs(checker.stored(record))) for record in records}
        self.slices = {record.id: _slices(StoredOutputs(checker.stored(record))) for record in records}
        self.ground_truth = [image for record in records for image in map(_best, self.truth[record.id])]
        self.found = self._run(checker)
        self.clean = self._judge(self.found)

    def judge(self, checker: BenchChecker) -> Practice:
        """Judge the engine as it is inside a mutant's block."""
        try:
            return self._judge(self._run(checker))
        except Exception:  # whoever runs this sees the traceback
            return Practice(close=False, slices=False, ap=0.0, moved=math.inf, crashed=True)

    def _run(self, checker: BenchChecker) -> dict[str, Tensors]:
        found: dict[str, Tensors] = {}
        for record in self.records:
            session, batch = checker.prepared(record, "fp32")
            found[record.id] = session.cascade(batch).tensors
        return found

    def _judge(self, found: Mapping[str, Tensors]) -> Practice:
        images = [image for record in self.records for image in _final(found[record.id])]
        before = [image for record in self.records for image in _final(self.found[record.id])]
        return Practice(
            close=all(_agree(_final(found[name]), truth) for name, truth in self.truth.items()),
            slices=all(
                _agree(_slices(found[name]), wanted, atol=SLICE, rtol=SLICE) for name, wanted in self.slices.items()
            ),
            ap=average_precision(images, self.ground_truth),
            moved=max(moved(*pair) for pair in zip(images, before, strict=True)),
        )


def judged(records: Sequence[Record], case: Case) -> list[Record]:
    """Return the records that people could judge by: whose every stage is there, and its tensors whole."""
    stages = set(case.stage_names())
    checks = {record.id: record.checks(case) for record in records}
    return [it for it in records if ISOLATED in checks[it.id].modes and stages <= set(checks[it.id].stages)]


class StoredOutputs(Mapping[str, Tensor]):
    """A record's whole output tensors by their names, float32 where they are floats."""

    def __init__(self, stored: StoredTensors) -> None:
        self._stored = stored
        self._keys = {
            entry.name: key
            for key, entry in stored.record.entries.items()
            if entry.role == "output" and entry.kind == "whole" and key == array_key(entry.stage, entry.name, "whole")
        }

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._stored[self._keys[name]]
        return tensor.float() if tensor.is_floating_point() else tensor

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def _final(tensors: Tensors) -> list[dict[str, Tensor]]:
    count = sum(name.startswith("labels[") for name in tensors)
    return [{name: tensors[item(name, i)] for name in ("boxes", "scores", "labels")} for i in range(count)]


def _slices(tensors: Tensors) -> list[Tensor]:
    """Return the first 3 x 3 numbers of the last logits and boxes of the first image."""
    found = []
    for names in (LOGITS, BOXES):
        tensor = tensors[next(name for name in names if name in tensors)]
        while tensor.dim() > 2:
            tensor = tensor[0]
        found.append(tensor[:3, :3])
    return found


def _best(image: Mapping[str, Tensor]) -> dict[str, Tensor]:
    best = image["scores"].argsort(descending=True)[:WANTED]
    return {name: tensor[best] for name, tensor in image.items()}


def _agree(actual: Any, expected: Any, *, atol: float | None = None, rtol: float | None = None) -> bool:
    try:
        torch.testing.assert_close(actual, expected, atol=atol, rtol=rtol)
    except AssertionError:
        return False
    return True


def moved(found: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> float:
    """Return how far the best boxes of one image lie from the nearest of their class, at most, both ways; pixels."""
    return max(_farthest(found, before), _farthest(before, found))


def _farthest(these: Mapping[str, Tensor], those: Mapping[str, Tensor]) -> float:
    best = these["scores"].argsort(descending=True)[:COUNTED]
    if not len(best):
        return 0.0
    distances = (these["boxes"][best][:, None].double() - those["boxes"][None].double()).abs().amax(-1)
    distances[these["labels"][best][:, None] != those["labels"][None]] = math.inf
    return float(distances.amin(1).max()) if len(those["boxes"]) else math.inf


def average_precision(found: Sequence[Tensors], wanted: Sequence[Tensors]) -> float:
    """Return COCO's box AP, 0 to 100, of detections (``boxes`` xyxy, ``scores``, ``labels`` an image)."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    labels = sorted({int(label) for image in (*found, *wanted) for label in image["labels"]})
    truth, detections = COCO(), COCO()
    for content, images in ((truth, wanted), (detections, found)):
        content.dataset = {
            "images": [{"id": number} for number in range(len(images))],
            "categories": [{"id": label} for label in labels],
            "annotations": _annotations(images),
        }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        detections.createIndex()
        evaluation = COCOeval(truth, detections, "bbox")
        steps: Sequence[Callable[[], None]] = (evaluation.evaluate, evaluation.accumulate, evaluation.summarize)
        for step in steps:
            step()
    return 100.0 * float(evaluation.stats[0])


def _annotations(images: Sequence[Tensors]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for number, image in enumerate(images):
        for box, score, label in zip(*(image[name].tolist() for name in ("boxes", "scores", "labels")), strict=True):
            x1, y1, x2, y2 = box
            size = (x2 - x1, y2 - y1)
            content = {"image_id": number, "category_id": label, "score": score, "iscrowd": 0, "id": len(rows) + 1}
            rows.append({**content, "bbox": [x1, y1, *size], "area": size[0] * size[1]})
    return rows
