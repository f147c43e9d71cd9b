"""The drawn COCO: same bytes every time, and what it says of its objects is true."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from parity.coco.categories import IDS, NAMES
from parity.coco.drawing import KINDS, draw_scene
from parity.coco.synthesize import run_lengths, synthesize
from parity.errors import ParityError

Command = Callable[..., tuple[int, str, str]]
OLD_MASKS = pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools 2.0.11 under numpy 2
DIGEST = "5978cfd909d2595611d9004d13e397ca508bb3aa73e0c1c3b3e60f51fdd9e6fd"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize(tmp_path_factory.mktemp("drawn") / "coco", images=24, val=24, panoptic=True)


@pytest.fixture(scope="module")
def val(drawn: Path) -> COCO:
    return COCO(drawn / "annotations" / "instances_val2017.json")


def files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def digest(root: Path) -> str:
    """Return one SHA-256 of all names, pixels and annotations below a folder."""
    total = hashlib.sha256()
    for name, content in files(root).items():
        total.update(name.encode())
        total.update(np.asarray(Image.open(root / name)).tobytes() if name.endswith(".png") else content)
    return total.hexdigest()


def size_of(path: Path) -> tuple[int, int]:
    """Return an image file's width and height."""
    with Image.open(path) as picture:
        return picture.size


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_the_same_call_gives_the_same_bytes(tmp_path: Path) -> None:
    first = files(synthesize(tmp_path / "a", images=4, val=4, panoptic=True))
    assert files(synthesize(tmp_path / "b", images=4, val=4, panoptic=True)) == first
    assert len(first) == 2 * (4 + 4 + 2)


def test_another_machine_draws_the_same(tmp_path: Path) -> None:
    assert digest(synthesize(tmp_path / "a", images=4, val=4)) == DIGEST


def test_another_seed_gives_other_pixels_and_objects(tmp_path: Path) -> None:
    first, second = (files(synthesize(tmp_path / str(seed), images=2, val=2, seed=seed)) for seed in (0, 1))
    assert [name for name in first if first[name] == second[name]] == []


def test_more_images_leave_the_first_ones_as_they_are(tmp_path: Path) -> None:
    few, many = (files(synthesize(tmp_path / str(count), images=count, val=2)) for count in (3, 5))
    same = {name for name in few if name in many and few[name] == many[name]}
    assert {"train2017/000000000001.png", "train2017/000000000003.png"} <= same
    assert {name for name in few if "val2017" in name} <= same


def test_both_parts_have_ids_of_their_own(drawn: Path) -> None:
    parts = [read(drawn / "annotations" / f"instances_{part}2017.json") for part in ("train", "val")]
    for key in ("images", "annotations"):
        ids = [entry["id"] for part in parts for entry in part[key]]
        assert len(ids) == len(set(ids)) > 0


def test_categories_are_those_of_coco_and_of_mmdet(val: COCO) -> None:
    from mmdet.datasets import CocoDataset

    assert tuple(category["name"] for category in val.cats.values()) == NAMES == CocoDataset.METAINFO["classes"]
    assert tuple(val.cats) == IDS
    assert sorted({1, *range(13, 91)} - set(IDS)) == [26, 29, 30, 45, 66, 68, 69, 71, 83]
    used = {annotation["category_id"] for annotation in val.anns.values()}
    assert used == {kind.category for kind in KINDS}


@OLD_MASKS
def test_boxes_and_areas_are_those_of_the_masks(val: COCO) -> None:
    for annotation in val.anns.values():
        x, y, width, height = annotation["bbox"]
        mask = val.annToMask(annotation)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        edges = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        assert edges == pytest.approx((x, y, x + width, y + height), abs=1.5)  # a sharp corner holds no pixel's centre
        assert abs(int(mask.sum()) - annotation["area"]) <= 0.5 * (width + height)  # half a pixel along the outline


def test_there_are_crowds_tiny_and_large_objects_empty_images_and_hidden_parts(val: COCO) -> None:
    areas = [annotation["area"] for annotation in val.anns.values() if not annotation["iscrowd"]]
    assert min(areas) < 8**2
    assert sum(8**2 < area < 32**2 for area in areas) >= 5
    assert sum(32**2 < area < 96**2 for area in areas) >= 5
    assert sum(area > 96**2 for area in areas) >= 2
    crowds = [annotation for annotation in val.anns.values() if annotation["iscrowd"]]
    assert len(crowds) == 6
    assert {type(crowd["segmentation"]) for crowd in crowds} == {dict}
    empty = [image for image in val.imgs if not val.getAnnIds(imgIds=[image])]
    assert empty == [20, 40, 48]  # the tenth, the twentieth and the last
    scenes = [draw_scene(128, 160, seed=0, name=f"{n}", empty=False, crowd=False) for n in range(10)]
    assert any(
        mask.sum() < thing.mask.sum()
        for scene in scenes
        for mask, thing in zip(scene.visible(), scene.things, strict=True)
    )


@pytest.mark.parametrize("size", [(32, 32), (40, 300)])
def test_every_image_that_is_not_empty_has_an_object_inside_it(size: tuple[int, int]) -> None:
    for number in range(12):
        scene = draw_scene(*size, seed=3, name=f"image {number}", empty=False, crowd=True)
        polygons = [thing.polygon for thing in scene.things if thing.polygon]
        assert polygons
        assert all(0 <= x <= size[1] and 0 <= y <= size[0] for polygon in polygons for x, y in polygon)


@OLD_MASKS
def test_masks_decode_to_what_was_encoded() -> None:
    from pycocotools import mask as masks

    mask = np.array([[0, 1, 1], [1, 1, 0]], dtype=bool)
    for each in (mask, ~mask, np.zeros_like(mask), np.ones_like(mask)):
        encoded = masks.frPyObjects({"size": list(each.shape), "counts": run_lengths(each)}, *each.shape)
        assert masks.decode(encoded).astype(bool).tolist() == each.tolist()


def test_panoptic_segments_are_those_of_the_picture(drawn: Path) -> None:
    content = read(drawn / "annotations" / "panoptic_val2017.json")
    assert len(content["annotations"]) == len(content["images"]) == 24
    for annotation in content["annotations"]:
        picture = Image.open(drawn / "annotations" / "panoptic_val2017" / annotation["file_name"])
        ids, counts = np.unique(np.asarray(picture).astype(int) @ [1, 256, 65536], return_counts=True)
        areas = {segment["id"]: segment["area"] for segment in annotation["segments_info"]}
        assert dict(zip(ids.tolist(), counts.tolist(), strict=True)) == areas


def test_mmdet_reads_it(drawn: Path) -> None:
    from mmdet.datasets import CocoDataset

    dataset = CocoDataset(
        data_root=str(drawn),
        ann_file="annotations/instances_val2017.json",
        data_prefix={"img": "val2017/"},
        filter_cfg={"filter_empty_gt": True, "min_size": 32},
        pipeline=[],
    )
    assert len(dataset) == 21
    labels = {instance["bbox_label"] for image in dataset for instance in image["instances"]}
    assert {0, 79} <= labels
    assert size_of(Path(dataset[0]["img_path"])) == (dataset[0]["width"], dataset[0]["height"])


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "precious").write_text("kept")
    with pytest.raises(ParityError, match=r"a exists: name a folder that does not, or an empty one"):
        synthesize(tmp_path / "a", images=1, val=1)
    assert files(tmp_path) == {"a/precious": b"kept"}


def test_nothing_half_drawn_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("parity.coco.synthesize._save", full)
    with pytest.raises(ParityError, match="a cannot be written: No space left on device"):
        synthesize(tmp_path / "a", images=1, val=1)
    assert list(tmp_path.iterdir()) == []


def test_the_command_draws_what_it_is_asked_for(parity_command: Command, tmp_path: Path) -> None:
    words = ("--images", 3, "--val", 2, "--size", "64x96", "48x48", "--seed", 5)
    status, out, _ = parity_command("coco", "synthesize", tmp_path / "new" / "coco", *words)
    assert status == 0
    assert out == f"drawn: {tmp_path / 'new' / 'coco'}, 3 images to train on and 2 to validate on\n"
    images = read(tmp_path / "new" / "coco" / "annotations" / "instances_train2017.json")["images"]
    assert [(image["height"], image["width"]) for image in images] == [(64, 96), (48, 48), (64, 96)]
    folder = tmp_path / "new" / "coco" / "train2017"
    assert [size_of(folder / image["file_name"]) for image in images] == [(96, 64), (48, 48), (96, 64)]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--images", 0), "--images 0: draw at least one"),
        (("--val", -1), "--val -1: draw at least one"),
        (("--size", "64"), "--size 64: give height x width"),
        (("--size", "8x8"), "every side has to lie between 32 and 4096 pixels"),
        (("--seed", "x"), "--seed: invalid int value"),
    ],
)
def test_bad_options_are_one_line(
    parity_command: Command, tmp_path: Path, words: tuple[object, ...], text: str
) -> None:
    status, _, err = parity_command("coco", "synthesize", tmp_path / "a", *words)
    assert status == 2
    assert text in err
    assert err.count("\n") == 1
    assert not (tmp_path / "a").exists()
