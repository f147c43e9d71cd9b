"""Scenes of coloured, textured shapes, drawn from counter-based random numbers: same seed, same pixels.

Everything is exact arithmetic on rounded coordinates: no font, no rasteriser, no ``sin`` whose last bit depends
on the C library.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from parity.weights.synthetic import uniform

Point = tuple[float, float]
Box = tuple[float, float, float, float]
_LEAST_VISIBLE = 0.4  # of every object: less could not be found by anybody
_CROWD = 8  # people
# Sides in pixels, least and most: COCO's small (tiny ones apart), medium and large, by area 32² and 96².
_SIDES = {"tiny": (5.0, 9.0), "small": (12.0, 28.0), "medium": (34.0, 70.0), "large": (112.0, 140.0)}
_SHARES = (("tiny", 0.15), ("small", 0.5), ("medium", 0.9), ("large", 1.0))  # cumulated
_ROUND = (
    (1.0, 0.5),
    (0.854, 0.854),
    (0.5, 1.0),
    (0.146, 0.854),
    (0.0, 0.5),
    (0.146, 0.146),
    (0.5, 0.0),
    (0.854, 0.146),
)


@dataclass(frozen=True)
class Kind:
    """What the objects of one category look like.

    Attributes:
        category: COCO's id.
        outline: corners of a convex polygon in the unit square, clockwise on the screen.
        aspect: width over height.
        colour: red, green, blue.
        texture: periods in pixels (across, down) of its darker stripes; 0 for none.
    """

    category: int
    outline: tuple[Point, ...]
    aspect: float
    colour: tuple[int, int, int]
    texture: tuple[int, int]


KINDS = (
    Kind(1, ((0.3, 0.0), (0.7, 0.0), (1.0, 0.3), (1.0, 1.0), (0.0, 1.0), (0.0, 0.3)), 0.5, (220, 40, 40), (0, 6)),
    Kind(3, ((0.2, 0.0), (0.8, 0.0), (1.0, 1.0), (0.0, 1.0)), 1.6, (40, 70, 230), (0, 0)),
    Kind(13, ((0.3, 0.0), (0.7, 0.0), (1.0, 0.3), (1.0, 0.7), (0.7, 1.0), (0.3, 1.0), (0.0, 0.7), (0.0, 0.3)), 1.0,
         (200, 30, 200), (0, 0)),
    Kind(37, _ROUND, 1.0, (240, 220, 40), (6, 6)),
    Kind(38, ((0.5, 0.0), (1.0, 0.5), (0.5, 1.0), (0.0, 0.5)), 0.8, (40, 200, 80), (5, 0)),
    Kind(59, ((0.5, 0.0), (1.0, 1.0), (0.0, 1.0)), 1.0, (245, 140, 30), (0, 4)),
    Kind(72, ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)), 1.3, (30, 210, 220), (8, 0)),
    Kind(90, ((0.0, 0.0), (1.0, 0.2), (1.0, 0.8), (0.0, 1.0)), 3.0, (245, 245, 245), (7, 0)),
)  # fmt: skip
BROAD = tuple(kind for kind in KINDS if kind.category in (3, 13, 37, 72))  # more than 96² pixels fit into a small image


@dataclass(frozen=True)
class Thing:
    """One object, or one crowd.

    Attributes:
        category: COCO's id.
        polygon: its corners in pixels, whether hidden or not; empty for a crowd.
        mask: (height, width) bool, the pixels whose centres lie inside, whether hidden or not.
    """

    category: int
    polygon: tuple[Point, ...]
    mask: np.ndarray


@dataclass
class Scene:
    """An image, (height, width, 3) uint8 RGB, and what is on it; later things hide earlier ones."""

    pixels: np.ndarray
    things: list[Thing] = field(default_factory=list)

    def visible(self) -> list[np.ndarray]:
        """Return the mask of each thing without what is hidden."""
        free = np.ones(self.pixels.shape[:2], dtype=bool)
        masks = []
        for thing in reversed(self.things):
            masks.append(thing.mask & free)
            free &= ~thing.mask
        return masks[::-1]


class _Numbers:
    """A stream of numbers in [0, 1)."""

    def __init__(self, seed: int, name: str, count: int) -> None:
        self._stream = iter((uniform(seed, name, count) + 1.0) / 2.0)

    def between(self, low: float, high: float) -> float:
        return float(low + next(self._stream) * (high - low))


def draw_scene(height: int, width: int, *, seed: int, name: str, empty: bool, crowd: bool) -> Scene:
    """Return a scene of at most six objects, sometimes over a crowd; ``empty`` has a background only."""
    scene = Scene(_background(height, width, seed=seed, name=name))
    if empty:
        return scene
    numbers = _Numbers(seed, f"{name} objects", 1000)
    if crowd:
        _add_crowd(scene, numbers)
    while not any(thing.polygon for thing in scene.things):
        plans = [_plan(numbers, height, width) for _ in range(2 + int(numbers.between(0, 5)))]
        for kind, box in sorted(plans, key=lambda plan: -plan[1][2] * plan[1][3]):  # the small ones in front
            _add_if_visible(scene, kind, box)
    return scene


def _add_if_visible(scene: Scene, kind: Kind, box: Box) -> None:
    """Add an object, unless too little of it or of another one could be seen."""
    height, width = scene.pixels.shape[:2]
    thing = _thing(kind, box, height, width)
    if _all_visible(scene, thing):
        scene.things.append(thing)
        _paint(scene.pixels, thing.mask, kind)


def _background(height: int, width: int, *, seed: int, name: str) -> np.ndarray:
    """Return muted patches of 16 pixels under a fine noise."""
    rows, columns = -(-height // 16), -(-width // 16)
    patches = uniform(seed, f"{name} background", rows * columns * 3).reshape(rows, columns, 3) * 32.0
    coarse = np.repeat(np.repeat(patches, 16, axis=0), 16, axis=1)[:height, :width]
    noise = uniform(seed, f"{name} noise", height * width * 3).reshape(height, width, 3) * 12.0
    return np.asarray(120.0 + coarse + noise).astype(np.uint8)


def _plan(numbers: _Numbers, height: int, width: int) -> tuple[Kind, Box]:
    """Return a kind and its box (x, y, width, height) in pixels, inside the image."""
    share = numbers.between(0, 1)
    size = next(size for size, upto in _SHARES if share < upto)
    kinds = BROAD if size == "large" else KINDS
    kind = kinds[int(numbers.between(0, len(kinds)))]
    side = numbers.between(*_SIDES[size])
    wide, high = min(side * kind.aspect**0.5, 0.95 * width), min(side / kind.aspect**0.5, 0.95 * height)
    x, y = numbers.between(0, width - wide), numbers.between(0, height - high)
    return kind, (x, y, wide, high)


def _thing(kind: Kind, box: Box, height: int, width: int) -> Thing:
    x, y, wide, high = box
    polygon = tuple((round(x + wide * across, 2), round(y + high * down, 2)) for across, down in kind.outline)
    return Thing(kind.category, polygon, _inside(polygon, height, width))


def _inside(polygon: tuple[Point, ...], height: int, width: int) -> np.ndarray:
    """Return which pixel centres lie inside a convex polygon, given clockwise on the screen."""
    y, x = np.ogrid[0.5:height, 0.5:width]
    mask = np.ones((height, width), dtype=bool)
    for (x0, y0), (x1, y1) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        mask &= (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) >= 0.0
    return mask


def _all_visible(scene: Scene, new: Thing) -> bool:
    """Return whether enough of everything can be seen with one thing more."""
    if not new.mask.any():
        return False
    seen = Scene(scene.pixels, [*scene.things, new]).visible()
    pairs = zip(seen, [*scene.things, new], strict=True)
    return all(mask.sum() >= _LEAST_VISIBLE * thing.mask.sum() for mask, thing in pairs)


def _paint(pixels: np.ndarray, mask: np.ndarray, kind: Kind) -> None:
    y, x = np.indices(mask.shape)
    dark = np.zeros_like(mask)
    for place, period in zip((x, y), kind.texture, strict=True):
        dark ^= (place % period < period // 2) if period else False
    colour = np.array(kind.colour, dtype=np.uint8)
    pixels[mask] = colour
    pixels[mask & dark] = colour // 2


def _add_crowd(scene: Scene, numbers: _Numbers) -> None:
    """Add a crowd: small people side by side, of whom nobody is annotated alone."""
    height, width = scene.pixels.shape[:2]
    kind = KINDS[0]
    left, top = numbers.between(0, 0.5 * width), numbers.between(0, 0.6 * height)
    union = np.zeros((height, width), dtype=bool)
    for _ in range(_CROWD):
        x, y = left + numbers.between(0, 0.35 * width), top + numbers.between(0, 0.1 * height)
        member = _thing(kind, (x, y, 0.07 * width, 0.2 * height), height, width)
        _paint(scene.pixels, member.mask, kind)
        union |= member.mask
    scene.things.append(Thing(kind.category, (), union))
