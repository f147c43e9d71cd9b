"""A small COCO, drawn: its folders, file names, categories and annotations, but shapes for photographs."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from parity.coco.categories import categories
from parity.coco.drawing import Scene, Thing, draw_scene
from parity.errors import ParityError

SIZES = ((128, 160), (112, 144), (160, 128), (120, 160), (128, 128))  # height and width in pixels, in turn
_GROUND = {"supercategory": "ground", "id": 193, "name": "grass-merged"}  # what lies behind, in panoptic files
_EMPTY_EVERY, _CROWD_EVERY = 10, 4
_IDS_PER_IMAGE = 100  # so that an image's annotations are the same however many images there are
Segment = tuple[int, dict[str, Any], np.ndarray]


def synthesize(
    root: Path,
    *,
    images: int = 64,
    val: int = 32,
    seed: int = 0,
    sizes: Sequence[tuple[int, int]] = SIZES,
    panoptic: bool = False,
) -> Path:
    """Write ``train2017/``, ``val2017/`` and ``annotations/`` below ``root``, whole or not at all; return it.

    Same arguments, same bytes. Boxes and areas are those of the whole object, hidden parts included. Every tenth
    image and the last one are empty, every fourth has a crowd. Images are PNG files, stored without compression:
    what a compressor makes of them depends on its version.

    Args:
        images: how many to train on.
        val: how many to validate on; they do not depend on ``images``.
        sizes: (height, width) in pixels, in turn.
        panoptic: write ``panoptic_*2017.json`` and their PNG folders too.

    Raises:
        ParityError: there is something at ``root`` already, or it cannot be written.
    """
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        raise ParityError(f"{root} exists: name a folder that does not, or an empty one")
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
    except OSError as error:
        raise ParityError(f"{root} cannot be written: {error.strerror}") from None
    try:
        part.chmod(0o755)
        (part / "annotations").mkdir()
        for name, count in (("train2017", images), ("val2017", val)):
            _write_part(part, name, count, seed=seed, sizes=sizes, panoptic=panoptic)
        part.replace(root)
    except OSError as error:
        raise ParityError(f"{root} cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return root


def _write_part(
    root: Path, part: str, count: int, *, seed: int, sizes: Sequence[tuple[int, int]], panoptic: bool
) -> None:
    (root / part).mkdir()
    info = {"description": f"drawn by parity coco synthesize, seed {seed}", "year": 2017}
    content: dict[str, Any] = {"info": info, "images": [], "annotations": [], "categories": categories()}
    segments: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        height, width = sizes[(number - 1) % len(sizes)]
        empty = number % _EMPTY_EVERY == 0 or 1 < number == count
        crowd = number % _CROWD_EVERY == _CROWD_EVERY - 1
        scene = draw_scene(height, width, seed=seed, name=f"{part} {number}", empty=empty, crowd=crowd)
        image = 2 * number - (part == "train2017")  # no id occurs in both parts
        name = f"{image:012}.png"
        _save(scene.pixels, root / part / name)
        content["images"].append({"id": image, "file_name": name, "height": height, "width": width})
        content["annotations"] += annotations_of(scene, image)
        if panoptic:
            segments.append(_write_segments(scene, image, root / "annotations" / f"panoptic_{part}"))
    (root / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))
    if panoptic:
        things = [{**category, "isthing": 1} for category in categories()]
        content |= {"annotations": segments, "categories": [*things, {**_GROUND, "isthing": 0}]}
        (root / "annotations" / f"panoptic_{part}.json").write_text(json.dumps(content))


def _save(pixels: np.ndarray, path: Path) -> None:
    Image.fromarray(pixels).save(path, "PNG", compress_level=0)


def annotations_of(scene: Scene, image: int) -> list[dict[str, Any]]:
    """Return COCO's annotations of an image: boxes (x, y, width, height) and areas in pixels."""
    return [
        {"id": image * _IDS_PER_IMAGE + number, "image_id": image, "category_id": thing.category, **_shape(thing)}
        for number, thing in enumerate(scene.things)
    ]


def _shape(thing: Thing) -> dict[str, Any]:
    if not thing.polygon:
        counts = {"size": list(thing.mask.shape), "counts": run_lengths(thing.mask)}
        return {"bbox": _box(thing.mask), "area": int(thing.mask.sum()), "iscrowd": 1, "segmentation": counts}
    x, y = (np.array(places) for places in zip(*thing.polygon, strict=True))
    area = float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)) / 2.0)
    sides = [float(value) for value in (x.min(), y.min(), x.max() - x.min(), y.max() - y.min())]
    outline = [side for point in thing.polygon for side in point]
    return {
        "bbox": [round(side, 2) for side in sides],
        "area": round(area, 2),
        "iscrowd": 0,
        "segmentation": [outline],
    }


def run_lengths(mask: np.ndarray) -> list[int]:
    """Return COCO's uncompressed run lengths of a bool mask: down the columns, zeros first.

    >>> run_lengths(np.array([[False, True], [True, True]]))
    [1, 3]
    """
    flat = mask.T.reshape(-1)
    changes = (np.flatnonzero(flat[1:] != flat[:-1]) + 1).tolist()
    runs = [int(end - start) for start, end in pairwise([0, *changes, flat.size])]
    return [0, *runs] if flat[0] else runs


def _box(mask: np.ndarray) -> list[int]:
    """Return the box of a mask's pixels: x, y, width, height."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)]


def _write_segments(scene: Scene, image: int, folder: Path) -> dict[str, Any]:
    """Write what COCO's panoptic format keeps of an image: a PNG of segment ids, of which the list is returned."""
    folder.mkdir(exist_ok=True)
    visible = scene.visible()
    ground = ~np.logical_or.reduce([np.zeros(scene.pixels.shape[:2], dtype=bool), *visible])
    first = image * _IDS_PER_IMAGE
    found: list[Segment] = [(first + _IDS_PER_IMAGE - 1, {"category_id": _GROUND["id"], "iscrowd": 0}, ground)]
    for number, (thing, mask) in enumerate(zip(scene.things, visible, strict=True)):
        found.append((first + number, {"category_id": thing.category, "iscrowd": int(not thing.polygon)}, mask))
    ids = np.zeros(ground.shape, dtype=np.int64)
    for number, _, mask in found:
        ids[mask] = number
    name = f"{image:012}.png"
    _save(np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8), folder / name)
    listed = [
        {"id": number, **what, "area": int(mask.sum()), "bbox": _box(mask)}
        for number, what, mask in found
        if mask.any()
    ]
    return {"image_id": image, "file_name": name, "segments_info": listed}
