"""A COCO data set of a handful of drawn images, with COCO's own folders, file names and categories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from parity.weights.synthetic import uniform

SIZES = ((96, 128), (80, 128), (96, 120), (72, 112), (88, 128))  # height and width in pixels, each wider than high
NOT_IN_USE = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}  # COCO numbers 90 categories, of which 80 occur


def write_coco(root: Path, *, train: int = 5, val: int = 3, seed: int = 0) -> Path:
    """Write ``annotations/``, ``train2017/`` and ``val2017/`` below ``root`` and return it.

    The last image of either part has no object; all others have three. Same seed, same bytes of every pixel.
    """
    (root / "annotations").mkdir(parents=True)
    for part, count in (("train2017", train), ("val2017", val)):
        (root / part).mkdir()
        content: dict[str, Any] = {"images": [], "annotations": [], "categories": categories()}
        for number in range(1, count + 1):
            height, width = SIZES[(number - 1) % len(SIZES)]
            name = f"{number:012}.png"
            objects = [] if number == count else _objects(seed, f"{part} {number}", height, width)
            _draw(seed, f"{part} {number}", height, width, objects).save(root / part / name)
            content["images"].append({"id": number, "file_name": name, "height": height, "width": width})
            content["annotations"] += [{**thing, "image_id": number} for thing in objects]
        for number, thing in enumerate(content["annotations"], start=1):
            thing["id"] = number
        (root / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))
    return root


def categories() -> list[dict[str, Any]]:
    """Return COCO's 80 categories under their own numbers, 1 to 90 with gaps."""
    from mmdet.datasets import CocoDataset

    numbers = [number for number in range(1, 91) if number not in NOT_IN_USE]
    names = CocoDataset.METAINFO["classes"]
    return [{"id": number, "name": name} for number, name in zip(numbers, names, strict=True)]


def _objects(seed: int, name: str, height: int, width: int) -> list[dict[str, Any]]:
    """Return three objects inside the image, each with a side of an eighth to a half of the image's."""
    numbers = [number for number in range(1, 91) if number not in NOT_IN_USE]
    found = []
    for x, y, w, h, kind in (uniform(seed, f"{name} objects", 3 * 5).reshape(3, 5) + 1.0) / 2.0:
        wide, high = round(width * (0.125 + 0.375 * w), 2), round(height * (0.125 + 0.375 * h), 2)
        box = [round(x * (width - wide), 2), round(y * (height - high), 2), wide, high]
        category = numbers[int(kind * len(numbers))]
        found.append({"bbox": box, "area": wide * high, "category_id": category, "iscrowd": 0})
    return found


def _draw(seed: int, name: str, height: int, width: int, objects: list[dict[str, Any]]) -> Image.Image:
    """Return noise with a rectangle for each object, its colour that of its category."""
    noise = (uniform(seed, f"{name} pixels", height * width * 3) + 1.0) * 127.5
    picture = Image.fromarray(noise.astype(np.uint8).reshape(height, width, 3))
    for thing in objects:
        x, y, w, h = thing["bbox"]
        number = thing["category_id"]
        ImageDraw.Draw(picture).rectangle((x, y, x + w, y + h), fill=(number * 2, 255 - number * 2, number * 7 % 256))
    return picture
