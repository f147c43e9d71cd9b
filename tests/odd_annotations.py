"""Annotation files of every odd kind, made from one that is sound, and what ``parity coco check`` says of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Content = dict[str, Any]
SHIPPED = Path(__file__).parent / "data" / "annotations"


def sound() -> Content:
    content: Content = json.loads((SHIPPED / "sound.json").read_text())
    return content


def changed(where: str, **fields: Any) -> Content:
    """Return the sound file with fields of an entry, ``annotations/1`` say, set; ``...`` removes one."""
    content: Any = sound()
    entry = content
    for part in where.split("/") if where else []:
        entry = entry[int(part) if part.isdigit() else part]
    for name, value in fields.items():
        if value is ...:
            entry.pop(name)
        else:
            entry[name] = value
    return content


def every(**fields: Any) -> Content:
    """Return the sound file with fields of all annotations set; ``...`` removes one."""
    content = sound()
    for one in content["annotations"]:
        one.update({name: value for name, value in fields.items() if value is not ...})
        for name in [name for name, value in fields.items() if value is ...]:
            one.pop(name)
    return content


def reordered() -> Content:
    content = sound()
    content["categories"].reverse()
    return content


def numbered(*ids: int) -> Content:
    content = sound()
    for one, number in zip(content["annotations"], ids, strict=True):
        one["id"] = number
    return content


def without_outlines(**areas: float) -> Content:
    content = every(segmentation=...)
    for index, area in areas.items():
        content["annotations"][int(index[1:])]["area"] = area
    return content


RUN_LENGTHS = {"size": [80, 100], "counts": [10, 600, 7390]}
OUTLINE_1 = [[50.0, 20.0, 90.0, 20.0, 90.0, 70.0, 50.0, 70.0]]

# The problem -> files that have it, and what the line says of where.
GROUPS: dict[str, list[tuple[str, Content, str]]] = {
    "annotation id 0, which COCO's own evaluation takes for no match": [
        ("id-0-first", numbered(0, 1, 2), "1 (annotations[0])"),
        ("id-0-last", numbered(2, 1, 0), "1 (annotations[2])"),
        ("id-0-amid", numbered(-1, 0, 1), "1 (annotations[1])"),
    ],
    "annotation id used twice": [
        ("id-0-twice", numbered(0, 0, 1), "1 (0)"),
        ("id-twice", numbered(1, 2, 2), "1 (2)"),
        ("id-thrice", numbered(7, 7, 7), "2 (7; 7)"),
    ],
    "annotation without an id": [
        ("no-id", changed("annotations/1", id=...), "1 (annotations[1])"),
        ("id-null", changed("annotations/2", id=None), "1 (annotations[2])"),
        ("no-ids", every(id=...), "3 (annotations[0]; annotations[1]; annotations[2])"),
    ],
    "object without an area": [
        ("no-area", changed("annotations/1", area=...), "1 (annotation 2)"),
        ("no-areas", every(area=...), "3 (annotation 1; annotation 2; annotation 3)"),
        ("area-null", changed("annotations/0", area=None), "1 (annotation 1)"),
    ],
    "area unlike its outline": [
        ("area-0", changed("annotations/1", area=0), "1 (annotation 2: area 0, outline 2000)"),
        ("area-share", changed("annotations/0", area=0.075), "1 (annotation 1: area 0.075, outline 600)"),
        ("area-fourth", changed("annotations/1", area=500.0), "1 (annotation 2: area 500, outline 2000)"),
    ],
    "area unlike its box": [
        (
            "area-large",
            changed("annotations/1", area=4000.0),
            "1 (annotation 2: area 4000, box [50.0, 20.0, 40.0, 50.0])",
        ),
        ("area-lone", without_outlines(a1=900.0), "1 (annotation 2: area 900, box [50.0, 20.0, 40.0, 50.0])"),
        (
            "area-crowd",
            changed("annotations/1", area=4000.0, iscrowd=1, segmentation=RUN_LENGTHS),
            "1 (annotation 2: area 4000, box [50.0, 20.0, 40.0, 50.0])",
        ),
        (
            "box-ten-times",
            changed("annotations/2", bbox=[0.0, 0.0, 2.0, 2.0]),
            "1 (annotation 3: area 400, box [0.0, 0.0, 2.0, 2.0])",
        ),
    ],
    "box unlike its outline": [
        (
            "box-corners",
            changed("annotations/1", bbox=[50.0, 20.0, 90.0, 70.0]),
            "1 (annotation 2: [50.0, 20.0, 90.0, 70.0])",
        ),
        (
            "box-moved",
            changed("annotations/0", bbox=[20.0, 10.0, 30.0, 20.0]),
            "1 (annotation 1: [20.0, 10.0, 30.0, 20.0])",
        ),
    ],
    "object without a box": [
        ("no-box", changed("annotations/1", bbox=...), "1 (annotation 2)"),
        ("no-boxes", every(bbox=...), "3 (annotation 1; annotation 2; annotation 3)"),
        ("box-null", changed("annotations/0", bbox=None), "1 (annotation 1)"),
    ],
    "box is not four numbers": [
        ("box-empty", changed("annotations/0", bbox=[]), "1 (annotation 1: [])"),
        ("box-of-three", changed("annotations/2", bbox=[0.0, 0.0, 20.0]), "1 (annotation 3: [0.0, 0.0, 20.0])"),
        (
            "box-of-five",
            changed("annotations/2", bbox=[0, 0, 20, 20, 9]),
            "1 (annotation 3: [0.0, 0.0, 20.0, 20.0, 9.0])",
        ),
    ],
    "box of a negative side": [
        (
            "box-negative",
            changed("annotations/0", bbox=[40, 30, -30, -20]),
            "1 (annotation 1: [40.0, 30.0, -30.0, -20.0])",
        ),
        (
            "box-flipped",
            changed("annotations/1", bbox=[90, 20, -40, 50]),
            "1 (annotation 2: [90.0, 20.0, -40.0, 50.0])",
        ),
        ("box-flat", changed("annotations/2", bbox=[0, 20, 20, -20]), "1 (annotation 3: [0.0, 20.0, 20.0, -20.0])"),
    ],
    "box of no area": [
        (
            "box-zero",
            changed("annotations/0", bbox=[10, 10, 0, 20]),
            "1 (annotation 1: [10.0, 10.0, 0.0, 20.0], area 600.0)",
        ),
    ],
    "box outside the image": [
        (
            "box-outside",
            changed("annotations/2", bbox=[75, 0, 20, 20], segmentation=[]),
            "1 (annotation 3: [75.0, 0.0, 20.0, 20.0] in 90 x 60)",
        ),
    ],
    "every object is a crowd": [
        ("all-crowds", every(iscrowd=1, segmentation=RUN_LENGTHS), "1 (3 of 3 annotations)"),
        ("all-crowds-said-true", every(iscrowd=True), "1 (3 of 3 annotations)"),
        ("one-crowd-alone", {**sound(), "annotations": every(iscrowd=1)["annotations"][:1]}, "1 (1 of 1 annotations)"),
    ],
    "annotation without iscrowd, which pycocotools needs": [
        ("no-iscrowd", every(iscrowd=...), "3 (annotation 1; annotation 2; annotation 3)"),
        ("iscrowd-null", changed("annotations/1", iscrowd=None), "1 (annotation 2)"),
        ("no-iscrowd-once", changed("annotations/0", iscrowd=...), "1 (annotation 1)"),
    ],
    "category not in the file": [
        ("category-unknown", changed("annotations/1", category_id=3), "1 (annotation 2: category 3)"),
    ],
    "image not in the file": [
        ("image-unknown", changed("annotations/1", image_id=9), "1 (annotation 2: image 9)"),
    ],
    "image without a file name": [
        ("no-file-name", changed("images/1", file_name=...), "1 (image 2)"),
        ("file-name-null", changed("images/0", file_name=None), "1 (image 1)"),
        ("file-name-empty", changed("images/0", file_name=""), "1 (image 1)"),
    ],
    "file name that is absolute": [
        ("file-name-absolute", changed("images/0", file_name="/data/one.jpg"), "1 (image 1: /data/one.jpg)"),
        ("file-name-of-a-drive", changed("images/0", file_name="C:\\data\\one.jpg"), "1 (image 1: C:\\data\\one.jpg)"),
    ],
    "file name with a backslash": [
        ("file-name-backslash", changed("images/0", file_name="data\\one.jpg"), "1 (image 1: data\\one.jpg)"),
    ],
    "file name used twice": [
        ("file-name-twice", changed("images/0", file_name="two.jpg"), "1 (two.jpg)"),
    ],
    "image without width and height": [
        ("no-size", changed("images/0", height=...), "1 (image 1)"),
    ],
    "image of no size": [
        ("size-0", changed("images/0", height=0), "1 (image 1: 100 x 0)"),
    ],
    "image id used twice": [
        ("image-id-twice", changed("images/1", id=1), "1 (1)"),
    ],
    "no image": [
        ("no-images", changed("", images=[]), "1 (images is empty)"),
    ],
    "category id used twice": [
        ("category-id-twice", changed("categories/1", id=1), "1 (1)"),
    ],
    "category name used twice": [
        ("category-name-twice", changed("categories/1", name="person"), "1 (person)"),
    ],
    "category in another order than COCO's": [
        ("category-order", reordered(), "1 (category 1 after 18)"),
    ],
}
KINDS = [(name, content, f"{kind}: {places}") for kind, group in GROUPS.items() for name, content, places in group]


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


TEXT = json.dumps(sound())
