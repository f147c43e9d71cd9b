"""One evaluator for both engines: it gives what pycocotools gives."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest

from parity.ap.evaluate import FIGURES, Annotations, coco_results, evaluate
from parity.ap.frames import Detections, Predictions
from parity.coco.categories import LABELS
from parity.coco.synthesize import synthesize
from parity.errors import ParityError


@pytest.fixture(scope="module")
def annotations(tmp_path_factory: pytest.TempPathFactory) -> Annotations:
    root = synthesize(tmp_path_factory.mktemp("drawn") / "coco", images=1, val=20, sizes=((96, 128),))
    return Annotations(root / "annotations" / "instances_val2017.json")


def guesses(annotations: Annotations, *, noise: float, seed: int = 0) -> Predictions:
    """Return the objects themselves, moved, relabelled and doubled by chance, with crowds and false alarms."""
    random = np.random.default_rng(seed)
    found = {}
    for image in annotations.images:
        objects = [one for one in annotations.content["annotations"] if one["image_id"] == image]
        table = (
            np.array([(*one["bbox"], LABELS[one["category_id"]]) for one in objects]).reshape(-1, 5).repeat(3, axis=0)
        )
        boxes = np.concatenate([table[:, :2], table[:, :2] + table[:, 2:4]], axis=1)
        boxes += random.normal(0, noise, boxes.shape)
        wrong = random.random(len(table)) < 0.2
        labels = np.where(wrong, random.choice([0, 2, 11], len(table)), table[:, 4]).astype(np.int32)
        found[image] = Detections(boxes.astype(np.float32), random.random(len(table), dtype=np.float32), labels)
    return found


@pytest.mark.parametrize("noise", [0.5, 2.0, 6.0])
def test_the_figures_are_those_of_pycocotools(annotations: Annotations, noise: float) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    found = guesses(annotations, noise=noise)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations.path))
        judge = COCOeval(truth, truth.loadRes(coco_results(found)), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    percent = [evaluate(found, annotations).figures[name] for name in FIGURES]
    figures = [value / 100.0 if value >= 0.0 else value for value in percent]
    assert figures == pytest.approx(judge.stats.tolist(), abs=1e-12, rel=0)
    assert 0.05 < figures[0] < 0.95


def test_ap_by_class_averages_to_ap(annotations: Annotations) -> None:
    found = evaluate(guesses(annotations, noise=2.0), annotations)
    assert np.mean(list(found.classes.values())) == pytest.approx(found.figures["AP"])
    assert (
        {"car", "pizza"}
        <= found.classes.keys()
        <= {"person", "car", "stop sign", "sports ball", "kite", "pizza", "tv", "toothbrush"}
    )


def test_nothing_found_is_zero(annotations: Annotations) -> None:
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))
    assert set(evaluate(dict.fromkeys(annotations.images, nothing), annotations).figures.values()) == {0.0}


def test_an_image_without_predictions_is_no_image_without_detections(annotations: Annotations) -> None:
    found = guesses(annotations, noise=1.0)
    found.pop(4)
    with pytest.raises(ParityError, match=r"1 images of .* have no predictions, such as 4"):
        evaluate(found, annotations)


def test_a_class_that_coco_has_not_is_refused() -> None:
    with pytest.raises(ParityError, match="image 3 has class 80: a detector of COCO's 80 classes"):
        coco_results({3: Detections(np.ones((1, 4), np.float32), np.ones(1, np.float32), np.array([80], np.int32))})


@pytest.mark.parametrize("content", ["no json", json.dumps({"images": []}), "[]"])
def test_what_is_no_annotation_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "instances.json"
    path.write_text(content)
    with pytest.raises(ParityError, match=r"instances\.json is no COCO annotation file"):
        Annotations(path)
