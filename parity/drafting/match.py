"""Pair the parameters of two models by name, value, shape and position, and say what is not certain."""

from __future__ import annotations

import difflib
import functools
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Shapes = Mapping[str, Sequence[int]]
Tokens = tuple[str, ...]

NAME, VALUE, SIMILAR, AMBIGUOUS = "name", "value", "similar", "ambiguous"
# Two names that share less than this of their parts are no pair, whatever their shapes.
LEAST_SIMILARITY = 0.3


@dataclass(frozen=True)
class Pair:
    """A legacy key and the new engine's key that it becomes.

    Attributes:
        how: ``name``, ``value`` or ``similar`` (the names' parts, within one shape); ``ambiguous`` where position
            alone decides, which a reader has to confirm.
        rivals: the other new keys that fit as well.
    """

    source: str
    target: str
    how: str
    rivals: tuple[str, ...] = ()


@dataclass(frozen=True)
class Match:
    """All pairs, and what is left with its likeliest partners."""

    pairs: tuple[Pair, ...]
    left_sources: Mapping[str, tuple[str, ...]]
    left_targets: Mapping[str, tuple[str, ...]]

    @property
    def ambiguous(self) -> tuple[Pair, ...]:
        """The pairs that a reader has to confirm."""
        return tuple(pair for pair in self.pairs if pair.how == AMBIGUOUS)


def match(
    sources: Shapes, targets: Shapes, *, source_values: Mapping[str, str], target_values: Mapping[str, str]
) -> Match:
    """Pair the legacy engine's keys with those of the new engine.

    Args:
        sources, targets: name -> shape.
        source_values, target_values: name -> hash of the values, where both engines' checkpoints are at hand.
    """
    pairs = [Pair(name, name, NAME) for name in sources if list(sources[name]) == list(targets.get(name, ()))]
    pairs += _by_value(
        _without(sources, pairs, "source"), _without(targets, pairs, "target"), source_values, target_values
    )
    pairs += _by_likeness(_without(sources, pairs, "source"), _without(targets, pairs, "target"))
    left, other = _without(sources, pairs, "source"), _without(targets, pairs, "target")
    order = {name: i for i, name in enumerate(sources)}
    return Match(
        tuple(sorted(pairs, key=lambda pair: order[pair.source])),
        {name: _likeliest(name, other or targets) for name in left},
        {name: _likeliest(name, left or sources) for name in other},
    )


def _without(shapes: Shapes, pairs: Iterable[Pair], end: str) -> dict[str, Sequence[int]]:
    taken = {getattr(pair, end) for pair in pairs}
    return {name: shape for name, shape in shapes.items() if name not in taken}


def _by_value(sources: Shapes, targets: Shapes, first: Mapping[str, str], second: Mapping[str, str]) -> list[Pair]:
    """Pair keys whose values are the same and are held by no other key."""
    holders: dict[str, list[str]] = defaultdict(list)
    for name in targets:
        holders[second.get(name, "")].append(name)
    held = [first.get(name, "") for name in sources]
    return [
        Pair(name, holders[value][0], VALUE)
        for name, value in zip(sources, held, strict=True)
        if value and held.count(value) == 1 and len(holders.get(value, ())) == 1
    ]


def _by_likeness(sources: Shapes, targets: Shapes) -> list[Pair]:
    by_shape: dict[tuple[int, ...], tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for end, shapes in enumerate((sources, targets)):
        for name, shape in shapes.items():
            by_shape[tuple(shape)][end].append(name)
    return [pair for first, second in by_shape.values() for pair in _likest(first, second)]


def _likest(sources: list[str], targets: list[str]) -> list[Pair]:
    """Pair the likest first; among equals those that come first, and say so."""
    scores = {(s, t): likeness(s, t) for s in sources for t in targets}
    places = {name: i for names in (sources, targets) for i, name in enumerate(names)}
    pairs: list[Pair] = []
    doubtful: set[str] = set()  # who lost a tie: if its winner is wrong, so is what it was given instead
    free = {key: score for key, score in scores.items() if score >= LEAST_SIMILARITY}
    while free:
        best = max(free.values())
        ties = [key for key, score in free.items() if score > best - 1e-9]
        source, target = min(ties, key=lambda key: (abs(places[key[0]] - places[key[1]]), places[key[0]]))
        rivals = tuple(t for s, t in ties if s == source and t != target)
        losers = {s for s, t in ties if t == target and s != source}
        doubtful |= {*rivals, *losers}
        doubted = rivals or losers or doubtful & {source, target}
        pairs.append(Pair(source, target, AMBIGUOUS if doubted else SIMILAR, rivals))
        free = {(s, t): score for (s, t), score in free.items() if s != source and t != target}
    return pairs


def _likeliest(name: str, others: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(others, key=lambda other: -likeness(name, other))[:3])


@functools.lru_cache(maxsize=200_000)
def likeness(first: str, second: str) -> float:
    """Return how much of two dotted names is the same, in order: 1 for the same name, 0 for nothing.

    Numbers have to be equal; words may be alike.

    >>> likeness("encoder.layers.1.ffns.0.bias", "encoder.layers.1.ffn.bias") > 0.8
    True
    """
    a, b = tokens(first), tokens(second)
    row = [0.0] * (len(b) + 1)
    for token in a:
        before, row = row, [0.0]
        for i, other in enumerate(b):
            row.append(max(before[i] + _alike(token, other), before[i + 1], row[i]))
    return 2.0 * row[-1] / (len(a) + len(b))


def tokens(name: str) -> Tokens:
    """Return a name's parts."""
    return tuple(name.split("."))


@functools.cache
def _alike(first: str, second: str) -> float:
    if first == second:
        return 1.0
    if re.fullmatch(r"\d+", first) or re.fullmatch(r"\d+", second):
        return 0.0
    return 0.9 * difflib.SequenceMatcher(None, first, second, autojunk=False).ratio()
