"""What is said of a case: nothing where everything is within its limits, and what lies beyond otherwise."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_ap_match import detections, shifted

from parity.ap.evaluate import FIGURES, Annotations, Evaluation
from parity.ap.frames import Detections, Predictions
from parity.ap.match import match
from parity.ap.result import ApResult, failure_message, judge, summary
from parity.cases.base import ApLimits
from parity.cases.registry import find_case
from parity.coco.categories import categories
from parity.report.ap_section import write_page

LARGE: dict[str, Any] = {"least": 150, "most": 300}


def evaluation(ap: float) -> Evaluation:
    return Evaluation(dict.fromkeys(FIGURES, 50.0) | {"AP": ap}, {"person": ap})


def result(*, new: float = 41.5, legacy: float = 41.5, shift: float = 0.0, **changes: Any) -> ApResult:
    expected = {image: detections(30, seed=image, **LARGE) for image in range(4)}
    actual = {image: shifted(found, shift) for image, found in expected.items()}
    matching = match(actual, expected)
    shown = {found.image: ("/nowhere.jpg", expected[found.image], actual[found.image]) for found in matching.images}
    made = ApResult(
        "ddq_fcn_r50_12e", "coco", evaluation(legacy), evaluation(new), matching, ApLimits(), 41.5, (), shown
    )
    return replace(made, **changes)


@pytest.mark.parametrize("new", [41.46, 41.5, 41.54])
def test_within_the_limits_nothing_is_wrong(new: float) -> None:
    assert result(new=new).problems == []
    assert "AP 41.50 legacy" in summary(result(new=new))


@pytest.mark.parametrize(("new", "sign"), [(41.56, "+"), (41.44, "-")])
def test_a_figure_beyond_its_limit_fails_either_way(new: float, sign: str) -> None:
    (problem,) = result(new=new).problems
    assert problem.startswith(f"AP differs by {sign}0.06 (new {new:.4f}, legacy 41.5000); allowed are 0.05")


@pytest.mark.parametrize(("legacy", "wrong"), [(41.69, 0), (41.71, 1), (41.29, 1)])
def test_a_legacy_ap_that_is_not_the_reported_one_fails(legacy: float, wrong: int) -> None:
    problems = result(new=legacy, legacy=legacy).problems
    assert [
        problem.startswith(f"the legacy engine's AP is {legacy:.2f} where 41.5 is reported") for problem in problems
    ] == [True] * wrong
    assert result(new=legacy, legacy=legacy, reported=None).problems == []


def large_objects(folder: Path) -> tuple[Annotations, Predictions]:
    """Return ten images with six large objects each, and a detection near five of them beside five false alarms."""
    random = np.random.default_rng(0)
    images = [{"id": image, "file_name": f"{image}.png", "height": 640, "width": 640} for image in range(1, 11)]
    objects: list[dict[str, Any]] = []
    found = {}
    for image in range(1, 11):
        corners, sides = random.uniform(0, 300, (6, 2)), random.uniform(200, 300, (6, 2))
        for box in np.concatenate([corners, sides], axis=1).tolist():
            objects.append({"image_id": image, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0})
        near = np.concatenate([corners, corners + sides], axis=1)[:5] + random.normal(0, 0.5, (5, 4))
        wrong = np.concatenate([corners[:5], corners[:5] + 150.0], axis=1)
        scores = random.random(10, dtype=np.float32)
        found[image] = Detections(np.concatenate([near, wrong]).astype(np.float32), scores, np.zeros(10, np.int32))
    for number, one in enumerate(objects, start=1):
        one["id"] = number
    path = folder / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": objects, "categories": categories()}))
    return Annotations(path), found


def test_a_shift_of_half_a_pixel_is_caught_where_no_figure_moves(tmp_path: Path) -> None:
    annotations, expected = large_objects(tmp_path)
    actual = {image: shifted(found, 0.5) for image, found in expected.items()}
    files = dict.fromkeys(expected, "/nowhere.jpg")
    case = find_case("ddq_fcn_r50_12e")
    moved = judge(case, actual, expected, annotations, files=files, reported=None)
    assert 10.0 < moved.legacy.figures["AP"] < 90.0
    assert max(abs(moved.difference(name)) for name in FIGURES) <= case.ap.difference
    (problem,) = moved.problems
    assert problem == "matched boxes lie 0.5 pixels apart on average (right); allowed are 0.05"
    assert judge(case, expected, expected, annotations, files=files, reported=None).passes


def test_a_shift_of_half_a_pixel_is_told_with_what_to_do_next() -> None:
    (problem,) = result(shift=0.5).problems
    assert problem == "matched boxes lie 0.5 pixels apart on average (right); allowed are 0.05"
    assert "next: `parity ap ddq_fcn_r50_12e --report-dir" in failure_message(result(shift=0.5))


def test_detections_that_do_not_match_are_counted() -> None:
    expected = {0: detections(20)}
    fewer = {0: Detections(*(getattr(expected[0], name)[:10] for name in ("boxes", "scores", "labels")))}
    (problem,) = result(matching=match(fewer, expected)).problems
    assert problem.startswith("10 detections match of 20 legacy and 10 new ones: 50.00 % where 90 % must")


def test_the_page_shows_the_images_that_differ(tmp_path: Path) -> None:
    lost = result(shift=5.0, notes=("GPU 3 failed; its images were done by others",))
    page = write_page([lost, result()], tmp_path).read_text()
    assert page.count("data:image/jpeg;base64,") == 4
    assert "AP is not the same" in page
    assert "GPU 3 failed" in page
    said = json.loads((tmp_path / "ap.json").read_text())
    assert [one["passes"] for one in said] == [False, True]
    assert said[1]["detections"] == {"legacy": 120, "new": 120, "matched": 120, "share": 1.0}
    assert said[1]["sizes"]["large"] == {"legacy": 120, "new": 120, "matched": 120, "share": 1.0}
    assert sum(one["legacy"] for one in said[0]["classes"].values()) == 120
    assert said[1]["most_different"] == []
    (worst, *_) = said[0]["most_different"]
    assert (len(said[0]["most_different"]), worst["legacy_unmatched"], worst["file"]) == (4, 30, "/nowhere.jpg")


def test_a_page_of_the_same_says_so_and_shows_no_image(tmp_path: Path) -> None:
    page = write_page([result()], tmp_path).read_text()
    assert "AP is the same" in page
    assert "No image differs." in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_a_page_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Exception, match=r"/file cannot be written: File exists"):
        write_page([result()], tmp_path / "file")
