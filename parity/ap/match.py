"""Match the detections of two engines image by image: AP is blunt, and the same AP may hide a shift of all boxes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from parity.ap.frames import Detections, Predictions
from parity.errors import ParityError

LEAST_IOU, MOST_SCORE_DIFFERENCE = 0.99, 1e-4
VISIBLE = 0.1  # pixels: an image on which a matched box lies further off is one that differs
SIZES = ("small", "medium", "large")
_SIZE_LIMITS = (32.0**2, 96.0**2)  # COCO's, in pixels of area
SAME, RELABELLED, ALONE = 0, 1, 2  # what became of a detection: matched, matched with another class, not matched


@dataclass
class Tally:
    """Detections counted: of the legacy engine, of the new one, and the matched pairs."""

    legacy: int = 0
    new: int = 0
    matched: int = 0

    @property
    def share(self) -> float:
        """Pairs over the detections of the engine that has more of them; 1 where neither has any."""
        return self.matched / max(self.legacy, self.new) if self.legacy or self.new else 1.0

    @property
    def percent(self) -> str:
        """The share in words; 100 % only where nothing is left.

        >>> Tally(100000, 100000, 99999).percent, Tally(2, 2, 2).percent
        ('99.99 %', '100 %')
        """
        return "100 %" if self.share == 1.0 else f"{int(10_000 * self.share) / 100:.2f} %"


@dataclass(frozen=True)
class ImageMatch:
    """What became of the detections on one image.

    Attributes:
        legacy, new: ``SAME``, ``RELABELLED`` or ``ALONE`` for each detection.
        offsets: (P, 4) pixels, new minus legacy, left, top, right and bottom of each pair of one class.
        difference: the scores of all that are not ``SAME``, summed: what a user would see.
    """

    image: int
    legacy: np.ndarray
    new: np.ndarray
    offsets: np.ndarray
    difference: float

    @property
    def offset(self) -> float:
        """The largest difference of any side of any pair, in pixels."""
        return float(np.abs(self.offsets).max()) if len(self.offsets) else 0.0

    @property
    def differs(self) -> bool:
        """Whether there is anything to see."""
        return bool((self.legacy != SAME).any() or (self.new != SAME).any() or self.offset > VISIBLE)


@dataclass
class Matching:
    """The detections of two engines, matched on all images."""

    total: Tally = field(default_factory=Tally)
    relabelled: int = 0
    classes: dict[int, Tally] = field(default_factory=dict)
    sizes: dict[str, Tally] = field(default_factory=lambda: {size: Tally() for size in SIZES})
    images: list[ImageMatch] = field(default_factory=list)

    @property
    def shift(self) -> tuple[float, ...]:
        """How far the new boxes lie from the legacy ones on average: left, top, right, bottom, in pixels.

        Rounding leaves this near zero where it is a mean of thousands, and a shift of all boxes does not.
        """
        offsets = np.concatenate([image.offsets for image in self.images])
        return tuple(offsets.mean(axis=0).tolist()) if len(offsets) else (0.0,) * 4

    @property
    def greatest_offset(self) -> float:
        """The largest difference of any side of any pair, in pixels."""
        return max((image.offset for image in self.images), default=0.0)

    def most_different(self, count: int) -> list[ImageMatch]:
        """Return the images that differ most, worst first; those without any difference are left out."""
        differing = [image for image in self.images if image.differs]
        return sorted(differing, key=lambda image: (-image.difference, -image.offset, image.image))[:count]


def match(actual: Predictions, expected: Predictions) -> Matching:
    """Match the new engine's detections with the legacy engine's.

    Two detections match if their boxes overlap by more than ``LEAST_IOU``, and their scores differ by no more than
    ``MOST_SCORE_DIFFERENCE``. Those of one class are paired first; what is left may pair across classes.

    Raises:
        ParityError: the engines did not predict the same images, or none.
    """
    if actual.keys() != expected.keys() or not expected:
        raise ParityError(
            f"the engines predicted different images, such as {sorted(actual.keys() ^ expected.keys())[:3]}"
            if actual or expected
            else "there are no predictions to match"
        )
    matching = Matching()
    for image in sorted(expected):
        found = match_image(image, actual[image], expected[image])
        matching.images.append(found)
        _count(matching, found, actual[image], expected[image])
    return matching


def match_image(image: int, actual: Detections, expected: Detections) -> ImageMatch:
    """Match the detections on one image."""
    new, legacy = np.full(len(actual), ALONE), np.full(len(expected), ALONE)
    overlap = iou(expected.boxes, actual.boxes)
    near = np.abs(expected.scores[:, None].astype(np.float64) - actual.scores[None]) <= MOST_SCORE_DIFFERENCE
    allowed = near & (overlap > LEAST_IOU)
    same_class = expected.labels[:, None] == actual.labels[None]
    offsets = np.zeros((0, 4))
    for kind, pairs in ((SAME, allowed & same_class), (RELABELLED, allowed)):
        free = pairs & (legacy == ALONE)[:, None] & (new == ALONE)[None]
        rows, columns = _pairs(free, overlap)
        legacy[rows], new[columns] = kind, kind
        if kind == SAME:
            offsets = actual.boxes[columns].astype(np.float64) - expected.boxes[rows]
    alone = float(expected.scores[legacy != SAME].sum() + actual.scores[new != SAME].sum())
    return ImageMatch(image, legacy, new, offsets, alone)


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return intersection over union of boxes, (N, 4) and (M, 4) in pixels xyxy, as (N, M) float64.

    Boxes without any area overlap by 1 where they are the same, and not otherwise.

    >>> iou(np.array([[0, 0, 4, 2]]), np.array([[0, 0, 2, 2], [9, 9, 9, 9]])).tolist()
    [[0.5, 0.0]]
    """
    a, b = first[:, None].astype(np.float64), second[None].astype(np.float64)
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0.0, None)
    intersection = sides.prod(axis=-1)
    union = _areas(a) + _areas(b) - intersection
    same = (a == b).all(axis=-1).astype(np.float64)
    overlap: np.ndarray = np.divide(intersection, union, out=same, where=union > 0.0)
    return overlap


def _areas(boxes: np.ndarray) -> np.ndarray:
    areas: np.ndarray = np.clip(boxes[..., 2:] - boxes[..., :2], 0.0, None).prod(axis=-1)
    return areas


def _pairs(allowed: np.ndarray, overlap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return as many allowed pairs as there can be, those of the largest overlap among them."""
    if (allowed.sum(axis=0) <= 1).all() and (allowed.sum(axis=1) <= 1).all():
        rows, columns = np.nonzero(allowed)
        return rows, columns
    rows, columns = linear_sum_assignment(np.where(allowed, 1.0 + overlap, 0.0), maximize=True)
    kept = allowed[rows, columns]
    return rows[kept], columns[kept]


def _count(matching: Matching, found: ImageMatch, actual: Detections, expected: Detections) -> None:
    matching.relabelled += int((found.legacy == RELABELLED).sum())
    _add(matching.total, found, new=np.ones(len(actual), bool), legacy=np.ones(len(expected), bool))
    for label in np.union1d(expected.labels, actual.labels).tolist():
        tally = matching.classes.setdefault(label, Tally())
        _add(tally, found, new=actual.labels == label, legacy=expected.labels == label)
    new_sizes, legacy_sizes = _sizes(actual), _sizes(expected)
    for place, size in enumerate(SIZES):
        _add(matching.sizes[size], found, new=new_sizes == place, legacy=legacy_sizes == place)


def _add(tally: Tally, found: ImageMatch, *, new: np.ndarray, legacy: np.ndarray) -> None:
    """Count the detections that the masks choose; a pair belongs where its legacy half does."""
    tally.legacy += int(legacy.sum())
    tally.new += int(new.sum())
    tally.matched += int((legacy & (found.legacy == SAME)).sum())


def _sizes(detections: Detections) -> np.ndarray:
    """Return the place in ``SIZES`` of each detection."""
    places: np.ndarray = np.digitize(_areas(detections.boxes.astype(np.float64)), _SIZE_LIMITS)
    return places
