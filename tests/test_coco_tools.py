"""Parts of a COCO, its checks and counts, on a drawn one and on damaged files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from parity.coco import jsonfile
from parity.coco.check import check
from parity.coco.stats import stats
from parity.coco.synthesize import synthesize

Command = Callable[..., tuple[int, str, str]]
EMPTY = [10, 20, 24]  # of 24 images, by number; the id of a validation image is twice its number


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize(tmp_path_factory.mktemp("drawn") / "coco", images=1, val=24, panoptic=True)


@pytest.fixture(scope="module")
def instances(root: Path) -> Path:
    return root / "annotations" / "instances_val2017.json"


@pytest.fixture(scope="module")
def panoptic(root: Path) -> Path:
    return root / "annotations" / "panoptic_val2017.json"


@pytest.fixture
def coco(parity_command: Command) -> Callable[..., str]:
    """Return a function that runs ``parity coco``, which must succeed, and returns its stdout."""

    def run(*words: object) -> str:
        status, out, err = parity_command("coco", *words)
        assert (status, err) == (0, "")
        return out

    return run


@pytest.fixture
def refused(parity_command: Command) -> Callable[..., str]:
    """Return a function that runs ``parity coco``, which must refuse, and returns its one line."""

    def run(*words: object) -> str:
        status, out, err = parity_command("coco", *words)
        assert (status, out, err.count("\n")) == (2, "", 1), err
        assert err.startswith("parity: ")
        return err

    return run


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def ids(path: Path) -> list[int]:
    return [image["id"] for image in read(path)["images"]]


def written(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (("--first", 3), [2, 4, 6]),
        (("--ids", 40, 6), [6, 40]),
        (("--image", 8), [8]),
        (("--image", "000000000012.png"), [12]),
        (("--first", 24), [2 * number for number in range(1, 25)]),
    ],
)
def test_a_subset_keeps_what_was_chosen_as_it_was(
    coco: Callable[..., str], instances: Path, tmp_path: Path, words: tuple[object, ...], kept: list[int]
) -> None:
    out = tmp_path / "out.json"
    told = coco("subset", instances, out, *words)
    whole, part = read(instances), read(out)
    assert [image["id"] for image in part["images"]] == kept
    assert part["annotations"] == [entry for entry in whole["annotations"] if entry["image_id"] in kept]
    assert {key: part[key] for key in ("info", "categories")} == {key: whole[key] for key in ("info", "categories")}
    assert list(part) == list(whole)
    assert (
        told
        == f"{out}: {len(kept)} of 24 images, {len(part['annotations'])} of {len(whole['annotations'])} annotations\n"
    )


def test_numbers_keep_their_digits(coco: Callable[..., str], tmp_path: Path) -> None:
    entry = '{"image_id":1, "area": 1.50, "bbox": [1e1,0.10, 3,4], "id": 12345678901234567890, "note": "\\u00e9"}'
    text = f'{{"images": [{{"id": 1,"file_name":"a","height":9,"width":9}}], "annotations": [{entry}], "more": [ ]}}'
    coco("subset", written(tmp_path / "a.json", text), tmp_path / "b.json", "--first", 1)
    assert entry in (tmp_path / "b.json").read_text()
    assert '"more": [ ]' in (tmp_path / "b.json").read_text()


def test_the_panoptic_file_is_cut_alike(
    coco: Callable[..., str], instances: Path, panoptic: Path, tmp_path: Path
) -> None:
    out, also = tmp_path / "out.json", tmp_path / "also.json"
    told = coco("only-annotated", instances, out, "--panoptic", panoptic, also)
    assert told.count("21 of 24 images") == 2
    assert ids(out) == ids(also) == [entry["image_id"] for entry in read(also)["annotations"]]
    assert check(also, masks=panoptic.with_suffix("")).lines() == []


def test_a_sample_depends_on_the_seed_and_a_larger_one_holds_it(
    coco: Callable[..., str], instances: Path, tmp_path: Path
) -> None:
    found = {}
    for name, words in {"few": (4,), "again": (4,), "many": (9,), "other": (4, "--seed", 1)}.items():
        coco("subset", instances, tmp_path / name, "--sample", *words)
        found[name] = ids(tmp_path / name)
    assert found["few"] == found["again"] == sorted(found["few"])
    assert len(found["few"]) == len(found["other"]) == 4
    assert set(found["few"]) < set(found["many"])
    assert found["few"] != found["other"]
    assert found["few"] == [10, 16, 38, 46]  # on every machine


@pytest.mark.parametrize("which", ["instances", "panoptic"])
def test_images_with_and_without_objects_are_told_apart(
    coco: Callable[..., str], which: str, root: Path, tmp_path: Path
) -> None:
    source = root / "annotations" / f"{which}_val2017.json"
    coco("only-empty", source, tmp_path / "empty.json")
    coco("only-annotated", source, tmp_path / "full.json")
    assert ids(tmp_path / "empty.json") == [2 * number for number in EMPTY]
    assert sorted(ids(tmp_path / "empty.json") + ids(tmp_path / "full.json")) == ids(source)


def test_a_crowd_is_an_object_only_on_demand(coco: Callable[..., str], instances: Path, tmp_path: Path) -> None:
    content = read(instances)
    content["annotations"] = [entry for entry in content["annotations"] if entry["iscrowd"]]
    crowds = written(tmp_path / "crowds.json", content)
    coco("only-empty", crowds, tmp_path / "a.json")
    coco("only-annotated", crowds, tmp_path / "b.json", "--crowds")
    assert (len(ids(tmp_path / "a.json")), len(ids(tmp_path / "b.json"))) == (24, 6)


def test_a_file_without_annotations_has_subsets(coco: Callable[..., str], instances: Path, tmp_path: Path) -> None:
    content = {key: value for key, value in read(instances).items() if key != "annotations"}
    coco("subset", written(tmp_path / "test.json", content), tmp_path / "out.json", "--first", 2)
    assert (ids(tmp_path / "out.json"), "annotations" in read(tmp_path / "out.json")) == ([2, 4], False)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--ids", 2, 3, 5), "has no image with id 3, 5"),
        (("--image", "nowhere.jpg"), "has no image with the file name or id nowhere.jpg"),
        (("--first", 25), "has 24 images: 25 cannot be chosen"),
        (("--sample", 0), "has 24 images: 0 cannot be chosen"),
        ((), "one of the arguments --first --ids --image --sample is required"),
        (("--first", 1, "--sample", 1), "not allowed with argument"),
    ],
)
def test_a_choice_that_cannot_be_is_one_line(
    refused: Callable[..., str], instances: Path, tmp_path: Path, words: tuple[object, ...], text: str
) -> None:
    assert text in refused("subset", instances, tmp_path / "out.json", *words)
    assert list(tmp_path.iterdir()) == []


TOOLS = (
    ("subset", "IN", "OUT", "--first", 1),
    ("only-empty", "IN", "OUT"),
    ("only-annotated", "IN", "OUT"),
    ("labels", "IN", "OUT", "--80"),
    ("check", "IN"),
    ("stats", "IN"),
)


@pytest.mark.parametrize("tool", TOOLS, ids=lambda words: words[0])
@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "No such file or directory"),
        ('{"images": [{"id": 1', "is damaged or no JSON: Input data was truncated"),
        ("", "is damaged or no JSON: Input data was truncated"),
        ("GIF89a", "is damaged or no JSON"),
        ('{"a": 1}', "is no COCO annotation file: it has no images"),
        ('{"images": 5, "annotations": [], "categories": []}', "images is not in COCO's format: Expected `array`"),
        ("7", "is not in COCO's format: Expected `object`"),
        (
            '{"images": [{"id": "x", "file_name": "", "height": 1, "width": 1}], "annotations": [5], "categories":[0]}',
            "is not in COCO's format",
        ),
    ],
)
def test_a_file_that_is_no_coco_is_one_line(
    refused: Callable[..., str], tmp_path: Path, tool: tuple[object, ...], content: str | None, text: str
) -> None:
    path = tmp_path / "in.json"
    if content is not None:
        path.write_text(content)
    names = {"IN": path, "OUT": tmp_path / "out.json"}
    err = refused(*(names.get(str(word), word) for word in tool))
    assert f"{path}" in err
    assert text in err
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize("tool", TOOLS, ids=lambda words: words[0])
@pytest.mark.parametrize("name", [b"caf\xe9.jpg", b'", "deep": ' + b"[" * 1200 + b"]" * 1200 + b', "a": "'])
def test_an_image_that_cannot_be_read_is_one_line_or_left_alone(
    parity_command: Command, tmp_path: Path, tool: tuple[object, ...], name: bytes
) -> None:
    image = b'{"id": 1, "height": 9, "width": 9, "file_name": "' + name + b'"}'
    (tmp_path / "in.json").write_bytes(b'{"images": [' + image + b'], "annotations": [], "categories": []}')
    names = {"IN": tmp_path / "in.json", "OUT": tmp_path / "out.json"}
    _, _, err = parity_command("coco", *(names.get(str(word), word) for word in tool))
    assert "Traceback" not in err
    assert err.count("\n") <= 1


def test_an_annotation_of_no_image_is_one_line(refused: Callable[..., str], instances: Path, tmp_path: Path) -> None:
    content = read(instances)
    content["annotations"][3]["image_id"] = 99
    path = written(tmp_path / "in.json", content)
    err = refused("subset", path, tmp_path / "out.json", "--first", 1)
    assert "annotations[3] belongs to image 99, which is not there; `parity coco check` finds all such" in err


def test_an_image_that_the_panoptic_file_lacks_is_one_line(
    refused: Callable[..., str], coco: Callable[..., str], instances: Path, panoptic: Path, tmp_path: Path
) -> None:
    coco("subset", panoptic, tmp_path / "few.json", "--first", 3)
    more = ("--panoptic", tmp_path / "few.json", tmp_path / "b.json")
    err = refused("subset", instances, tmp_path / "a.json", "--first", 5, *more)
    assert "few.json lacks 2 of the chosen images, 8, 10" in err
    assert [path.name for path in tmp_path.iterdir()] == ["few.json"]


def test_nothing_chosen_writes_nothing(
    refused: Callable[..., str], coco: Callable[..., str], instances: Path, tmp_path: Path
) -> None:
    coco("only-annotated", instances, tmp_path / "full.json")
    assert "no image is chosen" in refused("only-empty", tmp_path / "full.json", tmp_path / "out.json")


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
def test_an_input_is_never_written(
    refused: Callable[..., str], instances: Path, tmp_path: Path, link: Callable[[Path, Path], None] | None
) -> None:
    path = written(tmp_path / "in.json", instances.read_text())
    output = path
    if link:
        output = tmp_path / "other.json"
        link(path, output)
    assert "is an input: name another output" in refused("subset", path, output, "--first", 1)
    assert "is an input: name another output" in refused("labels", path, output, "--80")
    assert path.read_text() == instances.read_text()


def test_two_outputs_are_two_files(
    refused: Callable[..., str], instances: Path, panoptic: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    assert "is named for two outputs" in refused(
        "subset", instances, out, "--first", 1, "--panoptic", panoptic, tmp_path / "." / "out.json"
    )


def test_an_output_without_a_folder_is_one_line(refused: Callable[..., str], instances: Path, tmp_path: Path) -> None:
    out = tmp_path / "none" / "out.json"
    assert f"{out} cannot be written: No such file" in refused("subset", instances, out, "--first", 1)


def test_an_output_survives_a_write_that_fails(tmp_path: Path) -> None:
    def failing() -> Any:
        yield b"half"
        raise RuntimeError("torn")

    old = written(tmp_path / "old.json", "old")
    with pytest.raises(RuntimeError, match="torn"):
        jsonfile.write({tmp_path / "first.json": [b"1"], old: failing()}, inputs=[])
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"old.json": "old"}


@pytest.mark.parametrize("count", [0, 1, 4096, 4097])
def test_lists_are_written_whole(count: int) -> None:
    entries = [b"%d" % number for number in range(count)]
    assert json.loads(b"".join(jsonfile.list_chunks(entries))) == list(range(count))
    assert json.loads(b"".join(jsonfile.object_chunks({"a": entries, "é": []}))) == {"a": list(range(count)), "é": []}


def test_a_clean_file_passes(parity_command: Command, root: Path, instances: Path, panoptic: Path) -> None:
    status, out, _ = parity_command("coco", "check", instances, "--images", root / "val2017")
    assert (status, out) == (0, f"{instances}: nothing wrong\n")
    masks = ("--masks", panoptic.with_suffix(""))
    assert parity_command("coco", "check", panoptic, "--images", root / "val2017", *masks)[0] == 0


def damage(content: Any, path: str, value: Any) -> None:
    """Set what lies at ``annotations/3/bbox``, say."""
    *way, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    for part in way:
        content = content[part]
    content[last] = value


@pytest.mark.parametrize(
    ("which", "path", "value", "text"),
    [
        ("instances", "annotations/3/image_id", 99, r"image not in the file: 1 \(annotation \d+: image 99\)"),
        ("instances", "annotations/3/category_id", 12, r"category not in the file: 1 \(annotation \d+: category 12\)"),
        ("instances", "annotations/3/bbox", [150.0, 5.0, 10.02, 9.0], r"box outside the image: 1 \(annotation"),
        ("instances", "annotations/3/bbox", [-0.02, 5.0, 10.0, 9.0], r"box outside the image: 1 .* in 160 x 128"),
        ("instances", "annotations/3/bbox", [5.0, 5.0, 0.0, 9.0], r"box of no area: 1 \(annotation"),
        ("instances", "annotations/3/area", 0, r"box of no area: 1 \(annotation"),
        ("instances", "annotations/3/bbox", [5.0, 5.0, 9.0], r"box is not four numbers: 1 \(annotation"),
        ("instances", "annotations/3/id", 200, r"annotation id used twice: 1 \(200\)"),
        ("instances", "images/3/file_name", "000000000002.png", r"file name used twice: 1 \(000000000002.png\)"),
        ("instances", "images/3/file_name", "gone.png", r"image file missing: 1 \(gone.png\)"),
        ("instances", "categories/1/id", 90, r"category id used twice: 1 \(90\)"),
        ("panoptic", "annotations/3/image_id", 2, r"image annotated twice: 1 \(2\)"),
        ("panoptic", "annotations/3/image_id", 2, r"image without segments: 1 \(image 8\)"),
        ("panoptic", "annotations/3/image_id", 99, r"image not in the file: 1 \(segments of image 99\)"),
        ("panoptic", "annotations/3/file_name", "gone.png", r"segment PNG missing: 1 \(gone.png\)"),
        ("panoptic", "annotations/3/segments_info/1/id", 899, r"segment id used twice in image 8: 1 \(899\)"),
        ("panoptic", "annotations/3/segments_info/1/category_id", 7000, r"category not in the file: 1 \(segment 800"),
        ("panoptic", "annotations/3/segments_info/1/bbox", [0, 0, 0, 1], r"box of no area: 1 \(segment 800 of image 8"),
    ],
)
def test_damage_is_found_and_named(
    parity_command: Command, root: Path, tmp_path: Path, which: str, path: str, value: Any, text: str
) -> None:
    content = read(root / "annotations" / f"{which}_val2017.json")
    damage(content, path, value)
    if path.startswith("annotations/3/bbox"):  # of an image of 160 x 128
        content["annotations"][3]["image_id"] = 2
    masks = ("--masks", root / "annotations" / "panoptic_val2017")
    damaged = written(tmp_path / "in.json", content)
    status, out, _ = parity_command("coco", "check", damaged, "--images", root / "val2017", *masks)
    assert status == 1
    assert re.search(text, out)


def test_a_duplicate_image_and_many_problems_are_counted(instances: Path, tmp_path: Path) -> None:
    content = read(instances)
    content["images"][1]["id"] = 2
    for entry in content["annotations"]:
        entry["category_id"] = 12
    lines = check(written(tmp_path / "in.json", content)).lines()
    assert lines[0] == "image id used twice: 1 (2)"
    wrong = next(line for line in lines if line.startswith("category not in the file"))
    assert f": {len(content['annotations'])} (" in wrong
    assert wrong.endswith("; …)")
    assert wrong.count("category 12") == 5


def test_a_missing_folder_is_one_line(refused: Callable[..., str], instances: Path, tmp_path: Path) -> None:
    assert "none is no folder" in refused("check", instances, "--images", tmp_path / "none")


def test_stats_count_what_is_there(parity_command: Command, instances: Path, panoptic: Path) -> None:
    content = read(instances)
    objects = [entry for entry in content["annotations"] if not entry["iscrowd"]]
    counts = json.loads(parity_command("coco", "stats", instances, "--json")[1])
    assert (counts["images"], counts["images without objects"]) == (24, 3)
    assert (counts["objects"], counts["crowds"]) == (len(objects), len(content["annotations"]) - len(objects))
    assert counts["small"] == sum(entry["area"] <= 32**2 for entry in objects) > 0
    assert counts["large"] == sum(entry["area"] > 96**2 for entry in objects) > 0
    assert counts["small"] + counts["medium"] + counts["large"] == len(objects)
    assert counts["categories"]["kite"] == sum(entry["category_id"] == 38 for entry in objects) > 0
    assert counts["categories"]["bicycle"] == 0
    assert counts["height"] == [112.0, 128.0, 160.0]
    segments = [segment for entry in read(panoptic)["annotations"] for segment in entry["segments_info"]]
    assert stats(panoptic)["objects"] == sum(not segment["iscrowd"] for segment in segments)
    out = parity_command("coco", "stats", instances)[1]
    assert f"objects: {len(objects)}\n" in out
    assert "height: 112 / 128 / 160\n" in out
