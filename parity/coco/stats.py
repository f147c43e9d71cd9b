"""What is in an annotation file, counted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from parity.coco.annotations import AnnotationFile

SMALL, MEDIUM = 32**2, 96**2  # COCO's bounds of area, in square pixels


def stats(path: Path) -> dict[str, Any]:
    """Return counts of an instances or panoptic file; crowds are counted apart from objects.

    ``objects_per_image`` and sides are least, median and greatest; objects are small, medium or large by COCO's
    bounds of area, of which the lower one belongs to the smaller size.

    Raises:
        ParityError: the file cannot be read, is damaged, or is no COCO annotation file.
    """
    file = AnnotationFile(path)
    images = list(file.read_images())
    names = {category.id: category.name for category in file.read_categories()}
    found = (
        [(entry.image_id, segment) for entry in file.read_panoptic() for segment in entry.segments_info]
        if file.is_panoptic
        else ((annotation.image_id, annotation) for annotation in file.read_annotations())
    )
    crowds, areas = 0, []
    per_image, per_category = Counter({image.id: 0 for image in images}), Counter(dict.fromkeys(names, 0))
    for image, thing in found:
        if thing.iscrowd:
            crowds += 1
            continue
        areas.append(thing.area)
        per_image[image] += 1
        per_category[thing.category_id] += 1
    sizes = np.digitize(areas, (SMALL, MEDIUM), right=True)
    return {
        "images": len(images),
        "images without objects": sum(not count for count in per_image.values()),
        "height": _spread([image.height for image in images]),
        "width": _spread([image.width for image in images]),
        "objects": len(areas),
        "crowds": crowds,
        "objects per image": _spread(list(per_image.values())),
        **{size: int((sizes == number).sum()) for number, size in enumerate(("small", "medium", "large"))},
        "categories": {names.get(number, f"unknown {number}"): count for number, count in per_category.most_common()},
    }


def _spread(values: list[int]) -> list[float]:
    """Return least, median and greatest."""
    return [float(value) for value in np.quantile(values, (0.0, 0.5, 1.0))] if values else []


def lines(counts: dict[str, Any]) -> list[str]:
    """Return the counts in words, a line each."""
    told = []
    for key, value in counts.items():
        if isinstance(value, dict):
            told += [f"{key}:", *(f"  {name:16} {count:>8}" for name, count in value.items())]
        elif isinstance(value, list):
            told.append(f"{key}: " + (" / ".join(f"{each:g}" for each in value) or "none"))
        else:
            told.append(f"{key}: {value}")
    return told
