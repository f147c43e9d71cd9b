"""AP by annotation files as they come: judged right, or refused in one line that says why."""

from __future__ import annotations

import codecs
import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from odd_annotations import KINDS, SHIPPED, TEXT, Content, changed, numbered, sound, written
from PIL import Image

from parity.ap.evaluate import Annotations, evaluate
from parity.ap.frames import Detections, Predictions
from parity.coco.categories import LABELS
from parity.coco.check import check
from parity.coco.problems import WRONG_AP
from parity.errors import ParityError

Command = Callable[..., tuple[int, str, str]]


def perfect(annotations: Annotations) -> float:
    """Return the AP of detections that are the objects themselves."""
    found: Predictions = {}
    for image in annotations.images:
        things = [one for one in annotations.content["annotations"] if one["image_id"] == image]
        boxes = np.array([one["bbox"] for one in things], dtype=np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = np.array([LABELS[one["category_id"]] for one in things], dtype=np.int32)
        found[image] = Detections(boxes, np.full(len(things), 0.9, dtype=np.float32), labels)
    return evaluate(found, annotations).figures["AP"]


@pytest.mark.parametrize(("name", "content", "line"), KINDS, ids=[kind[0] for kind in KINDS])
def test_perfect_detections_have_ap_100_or_the_file_is_refused(
    tmp_path: Path, name: str, content: Content, line: str
) -> None:
    path = written(tmp_path / "in.json", json.dumps(content))
    wrong = [kind for kind in check(path).found if kind in WRONG_AP]
    if name == "category-name-twice":  # COCO's id 18 is a dog
        wrong = []
    if wrong:
        with pytest.raises(ParityError, match=r"in\.json: .*: AP by it would be wrong") as refused:
            Annotations(path)
        assert wrong[0] in str(refused.value)
    elif name == "box-zero":  # an object that nothing can meet: COCO counts it
        assert Annotations(path).notes
    elif name == "category-name-twice":
        with pytest.raises(ParityError, match="category 18 is person, which is 1 in COCO: AP is of COCO's own ids"):
            Annotations(path)
    else:
        annotations = Annotations(path)
        assert perfect(annotations) == pytest.approx(100.0)
        assert f"in.json: {line}" in annotations.notes


JUDGED = {
    "id-0-first", "id-0-last", "id-0-amid", "no-id", "id-null", "no-ids", "no-iscrowd", "iscrowd-null",
    "no-iscrowd-once", "box-corners", "box-moved", "box-zero", "box-outside", "category-unknown", "image-unknown",
    "file-name-absolute",
    "file-name-of-a-drive", "file-name-backslash", "file-name-twice", "no-size", "size-0", "category-name-twice",
    "category-order",
}  # fmt: skip


def test_which_files_are_refused_is_no_accident(tmp_path: Path) -> None:
    judged = set()
    for name, content, _ in KINDS:
        if not check(written(tmp_path / "in.json", json.dumps(content))).found.keys() & WRONG_AP:
            judged.add(name)
    assert judged == JUDGED


@pytest.mark.parametrize("ids", [(0, 1, 2), (2, 1, 0), (5, 0, 3)])
def test_pycocotools_misses_the_object_whose_id_is_0(tmp_path: Path, ids: tuple[int, int, int]) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    path = written(tmp_path / "in.json", json.dumps(numbered(*ids)))
    results = [
        {key: one[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9}
        for one in sound()["annotations"]
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        judge = COCOeval(truth, truth.loadRes(results), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    assert judge.stats[0] < 0.8
    assert perfect(Annotations(path)) == pytest.approx(100.0)


def test_a_file_without_objects_has_no_ap(tmp_path: Path) -> None:
    for content in (changed("", annotations=[]), changed("", annotations=...)):
        path = written(tmp_path / "in.json", json.dumps(content))
        assert check(path).lines() == []
        with pytest.raises(ParityError, match=r"in\.json has no annotations: there is nothing to find"):
            Annotations(path)


@pytest.mark.parametrize("base", [{1: 0, 18: 1}, {1: 18, 18: 1}, {1: 2}])
def test_ap_is_of_coco_s_own_ids(tmp_path: Path, base: dict[int, int]) -> None:
    content = sound()
    for one in content["categories"]:
        one["id"] = base.get(one["id"], one["id"])
    for one in content["annotations"]:
        one["category_id"] = base.get(one["category_id"], one["category_id"])
    path = written(tmp_path / "in.json", json.dumps(content))
    with pytest.raises(ParityError, match=r"category \d+ is person, which is 1 in COCO"):
        Annotations(path)


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    path = written(tmp_path / "in.json", codecs.BOM_UTF8 + TEXT.encode())
    assert perfect(Annotations(path)) == pytest.approx(100.0)


def saved(path: Path, size: tuple[int, int], *, form: str = "JPEG", orientation: int = 0) -> None:
    picture, exif = Image.new("RGB", size, (90, 120, 40)), Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    picture.save(path, form, exif=exif)


@pytest.mark.parametrize("orientation", [0, 1, 2, 3, 4, 5, 6, 7, 8])
def test_a_size_before_its_exif_turn_is_said_and_refused(
    parity_command: Command, tmp_path: Path, orientation: int
) -> None:
    path = written(tmp_path / "in.json", TEXT)
    (tmp_path / "pictures").mkdir()
    saved(tmp_path / "pictures" / "one.jpg", (100, 80), orientation=orientation)
    saved(tmp_path / "pictures" / "two.jpg", (90, 60))
    status, out, _ = parity_command("coco", "check", path, "--images", tmp_path / "pictures")
    line = "size before the EXIF turn that every reader makes: 1 (image 1: 100 x 80, one.jpg is 80 x 100)"
    if orientation < 5:
        assert (status, out) == (0, f"{path}: nothing wrong\n")
        Annotations(path, images=tmp_path / "pictures")
        return
    assert (status, out) == (1, f"{line}\n")
    with pytest.raises(ParityError) as refused:
        Annotations(path, images=tmp_path / "pictures")
    assert line in str(refused.value)


def test_a_size_after_the_turn_is_right_and_any_other_is_not(tmp_path: Path) -> None:
    path, pictures = written(tmp_path / "in.json", TEXT), tmp_path / "pictures"
    pictures.mkdir()
    saved(pictures / "one.jpg", (80, 100), orientation=6)
    saved(pictures / "two.jpg", (90, 60), form="PNG")  # of another form than its name says, and read all the same
    assert check(path, images=pictures).lines() == []
    saved(pictures / "two.jpg", (45, 30))
    assert check(path, images=pictures).lines() == [
        "size unlike the image file's: 1 (image 2: 90 x 60, two.jpg is 45 x 30)"
    ]
    with pytest.raises(ParityError, match="size unlike the image file's"):
        Annotations(path, images=pictures)
    (pictures / "two.jpg").write_bytes(b"<html>")
    (line,) = check(path, images=pictures).lines()
    assert line.startswith("image file cannot be read: 1 (two.jpg: cannot identify image file")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("area_missing", "object without an area: 3 (annotation 1; annotation 2; annotation 3)"),
        ("bom", f"byte order mark, which mmdet and pycocotools do not read: 1 ({SHIPPED / 'bom.json'})"),
        ("ids_from_zero", "annotation id 0, which COCO's own evaluation takes for no match: 1 (annotations[0])"),
    ],
)
def test_files_as_they_were_reported(name: str, line: str) -> None:
    path = SHIPPED / f"{name}.json"
    assert check(path).lines() == [line]
    if name == "area_missing":
        with pytest.raises(ParityError, match=r"area_missing\.json: object without an area: 3"):
            Annotations(path)
    else:
        assert perfect(Annotations(path)) == pytest.approx(100.0)
