"""A small COCO with everything odd that real ones have: what the training data of a record are made of."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from parity.coco.categories import IDS, categories
from parity.records.images import drawn
from parity.records.images import odd as odd_image
from parity.records.odd_images import ENCODERS
from parity.weights.synthetic import uniform

Box = tuple[float, float, float, float]  # x, y, width, height in pixels, as COCO has them


@dataclass(frozen=True)
class Odd:
    """One image: its size in pixels, how many ordinary objects it has, and what is odd about it.

    Attributes:
        boxes: further objects.
        crowds: boxes of crowds.
        marks: fields of an annotation that make the parser leave it out, on a box that is fine otherwise.
        form: how it is encoded: ``PNG``, ``JPEG``, ``grey`` for a PNG of one channel, or a way of ``odd_images``.
    """

    height: int
    width: int
    objects: int = 0
    boxes: tuple[Box, ...] = ()
    crowds: tuple[Box, ...] = ()
    marks: tuple[dict[str, Any], ...] = ()
    form: str = "PNG"


BEYOND = ((-20.0, 10.0, 30.0, 20.0), (100.5, 80.25, 60.0, 60.0))  # the image's edge runs through them
OUTSIDE = ((-40.0, 10.0, 30.0, 20.0), (200.0, 10.0, 30.0, 20.0), (10.0, -30.0, 20.0, 30.0))
FLAT = ((10.0, 10.0, 0.0, 15.0), (10.0, 10.0, 15.0, 0.0), (10.0, 10.0, 0.99, 15.0), (10.0, 10.0, 15.0, 0.5))
THIN = ((10.0, 10.0, 1.0, 15.0), (30.0, 10.0, 15.0, 1.0))  # one pixel is enough
EDGE = ((0.0, 0.0, 12.0, 12.0), (116.0, 84.0, 12.0, 12.0))
UNUSED = ({"ignore": True}, {"area": 0.0}, {"category_id": 12})  # COCO has no category 12

ODD = (
    Odd(96, 128, objects=3, boxes=(*BEYOND, *OUTSIDE), crowds=((40.0, 40.0, 50.0, 40.0),)),
    Odd(128, 96, objects=2, boxes=(*FLAT, *THIN)),
    Odd(64, 80),  # no object at all
    Odd(72, 112, objects=2, form="JPEG"),
    Odd(96, 160, objects=100),
    Odd(120, 31, objects=1),  # shorter than 32 pixels: left out
    Odd(48, 64, crowds=((5.0, 5.0, 40.0, 30.0),)),  # a crowd alone: is that an image with objects?
    Odd(64, 64, boxes=(*FLAT, *OUTSIDE)),  # objects of which none is usable, in a square image
    Odd(96, 128, objects=1, boxes=EDGE, marks=UNUSED),
    Odd(56, 40, objects=1, form="grey"),
    Odd(40, 200, objects=2),  # so long that the long side limits the scale
)

# Every way of writing an image once, in a size of its own, none of them square.
WRITTEN = tuple(Odd(34 + place, 77 - place, objects=2, form=way) for place, way in enumerate(ENCODERS))


def odd_coco(seed: int, images: Sequence[Odd] = ODD) -> tuple[list[bytes], bytes]:
    """Return the encoded images, and the annotation file that lists them in that order.

    Same seed, same annotations and pixels; the compressed bytes depend on the encoder's version.
    """
    files: list[bytes] = []
    content: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": [], "categories": categories()}
    for number, odd in enumerate(images, start=1):
        files.append(_encoded(odd, seed=seed, index=number))
        name = f"{number:012}.{'jpg' if odd.form.lower().startswith('jpeg') else 'png'}"
        content["images"].append({"id": number, "file_name": name, "height": odd.height, "width": odd.width})
        content["annotations"] += [{"image_id": number, **thing} for thing in _things(odd, seed=seed, number=number)]
    for number, thing in enumerate(content["annotations"], start=1):
        thing["id"] = number
    return files, json.dumps(content).encode()


def _encoded(odd: Odd, *, seed: int, index: int) -> bytes:
    if odd.form in ENCODERS:
        return odd_image(odd.form, odd.height, odd.width, seed=seed, index=index)
    picture, content = drawn(odd.height, odd.width, seed=seed, index=index), io.BytesIO()
    if odd.form == "JPEG":
        picture.save(content, "JPEG", quality=90)
    else:
        (picture.convert("L") if odd.form == "grey" else picture).save(content, "PNG")
    return content.getvalue()


def _things(odd: Odd, *, seed: int, number: int) -> list[dict[str, Any]]:
    """Return the annotations of an image, ordinary ones first, their categories all over COCO's 80."""
    usual = (uniform(seed, f"odd {number} boxes", odd.objects * 4).reshape(odd.objects, 4) + 1.0) / 2.0
    boxes: list[Box] = []
    for x, y, w, h in usual.tolist():
        wide, high = 4.0 + w * odd.width / 2.0, 4.0 + h * odd.height / 2.0
        boxes.append((x * (odd.width - wide), y * (odd.height - high), wide, high))
    found = [_thing(box, index) for index, box in enumerate([*boxes, *odd.boxes])]
    found += [{**_thing(box, index), "iscrowd": 1} for index, box in enumerate(odd.crowds)]
    return found + [{**_thing((20.0, 20.0, 30.0, 30.0), 0), **mark} for mark in odd.marks]


def _thing(box: Box, index: int) -> dict[str, Any]:
    sides = [round(side, 2) for side in box]
    return {"bbox": sides, "area": sides[2] * sides[3], "iscrowd": 0, "category_id": IDS[index * 7 % len(IDS)]}
