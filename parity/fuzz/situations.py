"""What is drawn: whole batches, from a plain small image to padded crowds on tied scores.

A situation is a ``Batch``, or a ``TrainingBatch`` for one training step, whose pictures are said in full.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from parity.cases.base import Batch, Case, Fill, Picture, TrainingBatch
from parity.errors import DAMAGE, ParityError

MOST_IMAGES = 3
MOST_PIXELS = 2 * 96 * 128  # of a padded batch: a situation is to take seconds
CLASSES = 80
CROWD = 8  # boxes on top of each other

# (height, width) of a padded batch. Sides around the multiples of a stride, and far from square.
FRAMES = (
    (32, 32),
    (64, 96),
    (33, 65),
    (96, 64),
    (63, 64),
    (31, 40),
    (16, 24),
    (128, 96),
    (97, 127),
    (32, 256),
    (300, 20),
    (24, 500),
)

Box = tuple[float, float, float, float]


def weight_kinds(case: Case) -> dict[str, tuple[Fill, ...]]:
    """Return name -> rules of the weights that go before those of the case.

    ``tied``: class predictors that see nothing, so that every position has the same scores, and good ones. The
    others are those of the case's own records: a crowd of good candidates, or none.
    """
    of_classes = [fill for fill in case.weights if "cls" in fill.pattern]
    blind = [replace(fill, spread=0.0) for fill in of_classes if fill.pattern.endswith("weight") and fill.per_fan_in]
    good = [replace(fill, centre=-1.0) for fill in of_classes if fill.pattern.endswith("bias")]
    flat = (*blind, *good) if blind and good else ()
    declared = {name: batch.fills for name, batch in case.records.items() if batch.fills}
    return {"usual": (), **({"tied": flat} if flat else {}), **declared}


def batches(case: Case, *, training: bool | None = None) -> st.SearchStrategy[Batch]:
    """Return the strategy of a case's situations.

    Args:
        training: only training steps, or none of them; by default half of each where the case declares its training.
    """
    if training is None and case.training:
        return st.booleans().flatmap(lambda trains: batches(case, training=trains))
    kinds = list(weight_kinds(case).values())
    parts: dict[str, Any] = {"seed": seeds(), "pictures": pictures(), "fills": st.sampled_from(kinds)}
    return st.builds(TrainingBatch, **parts).map(_counted) if training else st.builds(Batch, **parts)


def seeds() -> st.SearchStrategy[int]:
    """Return seeds of the weights: few, since filling a detector takes time."""
    return st.integers(0, 1)


def _counted(batch: TrainingBatch) -> TrainingBatch:
    return replace(batch, objects=tuple(len(picture.boxes) for picture in batch.pictures))


@st.composite
def pictures(draw: st.DrawFn) -> tuple[Picture, ...]:
    """Return one to MOST_IMAGES pictures, none larger than the frame, which the batch is padded to."""
    height, width = draw(st.sampled_from(FRAMES))
    count = draw(st.integers(1, max(1, min(MOST_IMAGES, MOST_PIXELS // (height * width)))))
    sides = st.tuples(_side(height), _side(width))
    return tuple(draw(sides.flatmap(lambda size: picture(*size))) for _ in range(count))


def _side(longest: int) -> st.SearchStrategy[int]:
    return st.just(longest) | st.integers(min(longest, 16), longest)


def picture(height: int, width: int) -> st.SearchStrategy[Picture]:
    """Return pictures of one size, with single boxes and crowds of them, or empty."""
    groups = st.lists(crowds(height, width), max_size=4)
    return st.tuples(groups, st.integers(0, 3)).map(lambda both: _picture((height, width), *both))


def _picture(size: tuple[int, int], groups: list[list[tuple[Box, int]]], ground: int) -> Picture:
    together = [pair for group in groups for pair in group]
    return Picture(size, tuple(box for box, _ in together), tuple(label for _, label in together), ground)


@st.composite
def crowds(draw: st.DrawFn, height: int, width: int) -> list[tuple[Box, int]]:
    """Return one box or many about the same place, with their classes; some are the same twice."""
    left, right = draw(_ends(width))
    top, bottom = draw(_ends(height))
    label = draw(st.integers(0, CLASSES - 1))
    count = draw(st.just(1) | st.integers(1, 2 * CROWD))
    step = draw(st.sampled_from((0.0, 0.5, 3.0)))
    offsets = [step * number for number in range(count)]
    boxes = (
        (min(left + d, width), min(top + d, height), min(right + d, width), min(bottom + d, height)) for d in offsets
    )
    return [(box, label) for box in boxes]


def _ends(extent: int) -> st.SearchStrategy[tuple[float, float]]:
    """Return the two ends of a side: often at the image's border, at times in one place."""
    end = st.sampled_from((0, extent)) | st.integers(0, extent)
    return st.tuples(end, end).map(lambda pair: (float(min(pair)), float(max(pair))))


def features(batch: Batch, case: Case) -> list[str]:
    """Return what is special about a situation, in words that a summary counts."""
    sizes = [picture.size for picture in batch.pictures]
    boxes = [(box, picture) for picture in batch.pictures for box in picture.boxes]
    sides = [(box[2] - box[0], box[3] - box[1]) for box, _ in boxes]
    repeated = [max(Counter(zip(p.boxes, p.labels, strict=True)).values(), default=0) for p in batch.pictures]
    weights = next((name for name, fills in weight_kinds(case).items() if fills == batch.fills), "other")
    found = {
        "training step": isinstance(batch, TrainingBatch),
        f"{weights} weights": True,
        "several images": len(sizes) > 1,
        "padding": len(set(sizes)) > 1,
        "a side below 32": min(map(min, sizes)) < 32,
        "image beyond 4:1": any(max(size) > 4 * min(size) for size in sizes),
        "image without objects": any(not picture.boxes for picture in batch.pictures),
        "one grey": any(not picture.ground for picture in batch.pictures),
        "crowd": any(len(picture.boxes) >= CROWD for picture in batch.pictures),
        "the same box twice": max(repeated) > 1,
        "box at a border": any(_touches(box, picture.size) for box, picture in boxes),
        "box beyond 8:1": any(max(pair) > 8 * min(pair) > 0 for pair in sides),
        "box without area": any(min(pair) == 0 for pair in sides),
    }
    return [name for name, is_so in found.items() if is_so]


def _touches(box: Box, size: tuple[int, int]) -> bool:
    return box[0] == 0 or box[1] == 0 or box[2] == size[1] or box[3] == size[0]


def to_json(batch: Batch) -> str:
    """Return a situation as JSON."""
    kind = "training" if isinstance(batch, TrainingBatch) else "inference"
    fills, shown = map(asdict, batch.fills), map(asdict, batch.pictures)
    plain = {"kind": kind, "seed": batch.seed, "fills": list(fills), "pictures": list(shown)}
    return json.dumps(plain, indent=1) + "\n"


def read_situation(path: Path) -> Batch:
    """Return the situation that a file holds.

    Raises:
        ParityError: it holds none.
    """
    try:
        plain = json.loads(path.read_text())
        shared: dict[str, Any] = {
            "seed": int(plain["seed"]),
            "fills": tuple(Fill(**{**fill, "centre": _tuples(fill["centre"])}) for fill in plain["fills"]),
            "pictures": tuple(_read_picture(one) for one in plain["pictures"]),
        }
        return _counted(TrainingBatch(**shared)) if plain["kind"] == "training" else Batch(**shared)
    except DAMAGE as error:
        raise ParityError(f"{path} holds no situation ({error}): `parity fuzz --save-failing` writes one") from None


def _read_picture(plain: Mapping[str, Any]) -> Picture:
    return Picture(**{name: _tuples(value) for name, value in plain.items()})


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
