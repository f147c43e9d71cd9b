"""Annotation files as they come: what ``coco check`` says of each."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from odd_annotations import (
    KINDS,
    RUN_LENGTHS,
    TEXT,
    Content,
    changed,
    every,
    reordered,
    sound,
    without_outlines,
    written,
)

from parity.ap.evaluate import Annotations
from parity.coco.check import check
from parity.coco.repeated import repeated_keys
from parity.coco.synthesize import synthesize
from parity.errors import ParityError

Command = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(("content", "line"), [kind[1:] for kind in KINDS], ids=[kind[0] for kind in KINDS])
def test_each_problem_is_a_line_of_its_own(
    parity_command: Command, tmp_path: Path, content: Content, line: str
) -> None:
    path = tmp_path / "in.json"
    path.write_text(json.dumps(content))
    status, out, err = parity_command("coco", "check", path)
    assert (status, err) == (1, "")
    assert line in out.splitlines()


TWICE = [
    (TEXT.replace('"id": 2, "image_id"', '"id": 2, "id": 8, "image_id"', 1), "id in annotations[1]"),
    (TEXT.replace('"width": 100', '"width": 100, "width": 80', 1), "width in images[0]"),
    (TEXT.replace('"bbox"', '"b\\u0062ox": [1, 2, 3, 4], "bbox"', 1), "bbox in annotations[0]"),
    (TEXT.replace('"name": "dog"', '"name": "dog", "name": "cat"', 1), "name in categories"),
    (TEXT[:-1] + ', "annotations": []}', "annotations"),
    ('{"images": [], ' + TEXT[1:], "images"),
    (TEXT.replace('"description"', '"description": "a: b", "description"', 1), "description in info"),
]


@pytest.mark.parametrize(("text", "place"), TWICE, ids=[place for _, place in TWICE])
def test_a_key_that_is_there_twice_is_named(parity_command: Command, tmp_path: Path, text: str, place: str) -> None:
    path = written(tmp_path / "in.json", text)
    status, out, _ = parity_command("coco", "check", path)
    assert status == 1
    assert f"key there twice, of which readers keep the last: 1 ({place})" in out.splitlines()
    with pytest.raises(ParityError, match=r"in\.json: key there twice, of which readers keep the last: 1 \("):
        Annotations(path)


@pytest.mark.parametrize("tool", ["subset", "stats", "labels"])
def test_no_tool_drops_a_list_that_is_there_twice(parity_command: Command, tmp_path: Path, tool: str) -> None:
    path, out = written(tmp_path / "in.json", TEXT[:-1] + ', "annotations": []}'), tmp_path / "out.json"
    words = {"subset": (path, out, "--first", 1), "stats": (path,), "labels": (path, out, "--80")}[tool]
    status, _, err = parity_command("coco", tool, *words)
    assert (status, err.count("\n")) == (2, 1)
    assert f"{path} has annotations twice, of which readers keep the last: keep one" in err
    assert not out.exists()


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        json.dumps(sound(), indent=2),
        TEXT.replace("made up", 'a: \\"b\\": {\\u003a'),
        TEXT.replace("one.jpg", "a:b:c.jpg"),
        json.dumps({**every(segmentation=RUN_LENGTHS), "a:b": {"c": [{"d": 1}, {"d": 2}]}}),
    ],
)
def test_colons_in_words_are_no_keys(tmp_path: Path, text: str) -> None:
    assert check(written(tmp_path / "in.json", text)).lines() == []


def test_a_key_twice_is_seen_at_any_depth() -> None:
    assert repeated_keys(b'{"a": [[{"b": {"c": 1, "d": 2, "c": 3}}]], "e": {}}') == ["c"]
    assert repeated_keys(b'{"a": [[{"b": {"c": 1, "d": 2}}]], "e": {"c": ":"}}') == []


@pytest.mark.parametrize("text", [TEXT, json.dumps(sound(), indent=1), json.dumps(reordered())])
def test_a_byte_order_mark_is_said_and_read_over(parity_command: Command, tmp_path: Path, text: str) -> None:
    path = written(tmp_path / "in.json", codecs.BOM_UTF8 + text.encode())
    status, out, _ = parity_command("coco", "check", path)
    assert status == 1
    assert out.splitlines()[0] == f"byte order mark, which mmdet and pycocotools do not read: 1 ({path})"
    assert parity_command("coco", "subset", path, tmp_path / "out.json", "--first", 2)[0] == 0
    assert json.loads((tmp_path / "out.json").read_text()) == json.loads(text)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("tool", ["check", "stats"])
def test_another_encoding_is_named(parity_command: Command, tmp_path: Path, encoding: str, tool: str) -> None:
    path = written(tmp_path / "in.json", TEXT.encode(encoding))
    status, out, err = parity_command("coco", tool, path)
    assert (status, out, err) == (2, "", f"parity: {path} is UTF-16 or UTF-32 text: save it as UTF-8\n")
    with pytest.raises(ParityError, match=r"in\.json is UTF-16 or UTF-32 text: save it as UTF-8"):
        Annotations(path)


FORMAT = "is not in COCO's format:"
NUMBER = "which is no JSON: replace it by a number"
REFUSED = [
    ("id-word", changed("annotations/1", id="2"), f"annotations[1] {FORMAT} Expected `int | null`, got `str`"),
    ("id-fraction", changed("annotations/1", id=1.5), f"annotations[1] {FORMAT} Expected `int | null`, got `float`"),
    ("id-true", changed("annotations/2", id=True), f"annotations[2] {FORMAT} Expected `int | null`, got `bool`"),
    ("image-id-word", changed("annotations/0", image_id="1"), f"annotations[0] {FORMAT} Expected `int`, got `str`"),
    ("image-listed-by-word", changed("images/1", id="2"), f"images[1] {FORMAT} Expected `int`, got `str`"),
    (
        "no-image-id",
        changed("annotations/1", image_id=...),
        f"annotations[1] {FORMAT} Object missing required field `image_id`",
    ),
    (
        "no-category",
        changed("annotations/2", category_id=...),
        f"annotations[2] {FORMAT} Object missing required field `category_id`",
    ),
    (
        "box-of-words",
        changed("annotations/1", bbox=["1", "2", "3", "4"]),
        f"annotations[1] {FORMAT} Expected `float`, got `str`",
    ),
    (
        "box-nan",
        changed("annotations/1", bbox=[50.0, float("nan"), 40.0, 50.0]),
        f"annotations[1].bbox[1] is nan, {NUMBER}",
    ),
    ("area-nan", changed("annotations/2", area=float("nan")), f"annotations[2].area is nan, {NUMBER}"),
    (
        "box-infinite",
        changed("annotations/0", bbox=[0.0, 0.0, float("inf"), 9.0]),
        f"annotations[0].bbox[2] is inf, {NUMBER}",
    ),
    ("no-categories", changed("", categories=...), "is no COCO annotation file of objects: it has no categories"),
    ("annotations-object", changed("", annotations={}), f"annotations {FORMAT} Expected `array`, got `object`"),
]


@pytest.mark.parametrize(("content", "text"), [kind[1:] for kind in REFUSED], ids=[kind[0] for kind in REFUSED])
def test_what_cannot_be_read_names_file_and_entry(
    parity_command: Command, tmp_path: Path, content: Content, text: str
) -> None:
    path = written(tmp_path / "in.json", json.dumps(content))
    status, out, err = parity_command("coco", "check", path)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"parity: {path}")
    assert text in err
    with pytest.raises(ParityError) as refused:
        Annotations(path)
    assert text in str(refused.value)


def test_a_number_too_large_names_its_entry(parity_command: Command, tmp_path: Path) -> None:
    path = written(tmp_path / "in.json", TEXT.replace("2000.0", "1e999"))
    status, _, err = parity_command("coco", "check", path)
    assert (status, err.count("\n")) == (2, 1)
    assert "annotations[1] is not in COCO's format: Number out of range - at `$.area`" in err


def test_areas_of_masks_that_were_left_away_are_no_mistake(tmp_path: Path) -> None:
    path = written(tmp_path / "in.json", json.dumps(without_outlines(a0=420.0, a1=900.0, a2=300.0)))
    assert check(path).lines() == []
    path.write_text(json.dumps(without_outlines(a0=420.0, a1=3000.0, a2=300.0)))
    assert check(path).lines() == ["area unlike its box: 1 (annotation 2: area 3000, box [50.0, 20.0, 40.0, 50.0])"]


@pytest.mark.parametrize(
    "outline",
    [
        [[50, 20, 90, 70, 89, 70, 50, 21]],  # thin: its area is a fraction of its box's
        [[50, 20, 70, 20, 70, 70, 50, 70], [65, 20, 90, 20, 90, 70, 65, 70]],  # two parts that overlap
        [[50, 20, 90, 20, 90, 70, 50, 70, 50, 20]],  # closed twice
        [[90, 70, 50, 70, 50, 20, 90, 20]],  # the other way round
    ],
)
def test_outlines_of_every_shape_agree_with_their_areas(tmp_path: Path, outline: list[list[float]]) -> None:
    from pycocotools import mask

    area = int(mask.area(mask.merge(mask.frPyObjects(outline, 80, 100))))
    content = changed("annotations/1", segmentation=outline, area=area)
    assert check(written(tmp_path / "in.json", json.dumps(content))).lines() == []


def test_segments_without_what_they_need_are_said(tmp_path: Path) -> None:
    root = synthesize(tmp_path / "coco", images=1, val=2, panoptic=True)
    path = root / "annotations" / "panoptic_val2017.json"
    content = json.loads(path.read_text())
    first, second = content["annotations"][0]["segments_info"][:2]
    first["id"] = 0
    first.pop("area")
    second.pop("bbox")
    lines = check(written(tmp_path / "in.json", json.dumps(content))).lines()
    assert "object without an area: 1 (segment 0 of image 2)" in lines
    assert f"object without a box: 1 (segment {second['id']} of image 2)" in lines
    assert "segment id 0, which is no segment's in the PNGs: 1 (segment 0 of image 2)" in lines
