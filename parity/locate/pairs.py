"""Pair the modules of both engines: those that own matched parameters are the same module."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from parity.weights.plan import Step

Paths = dict[str, str]  # the new engine's module -> the legacy engine's


def pair_modules(steps: Iterable[Step], new_modules: Iterable[str], legacy_modules: Iterable[str]) -> Paths:
    """Return the new engine's modules with the legacy's.

    Two modules are the same if the parameters in one became exactly those in the other; of several that hold the
    same (a wrapper and what it wraps) the innermost is the innermost. A module without parameters goes by its place
    in a module that is paired.
    """
    sources, targets = _owned(steps)
    by_content: dict[frozenset[int], list[str]] = defaultdict(list)
    for path, held in sources.items():
        by_content[frozenset(held)].append(path)
    pairs: Paths = {}
    for content, new in _grouped(targets).items():
        legacy = sorted(by_content.get(content, ()), key=len, reverse=True)
        new = sorted(new, key=len, reverse=True)
        pairs.update(zip(new, legacy, strict=False))
    known = set(legacy_modules)
    for path in new_modules:
        if path not in targets and (place := _by_place(path, pairs)) in known:
            pairs[path] = place
    return pairs


def _owned(steps: Iterable[Step]) -> tuple[dict[str, set[int]], dict[str, set[int]]]:
    """Return legacy and new module -> the numbers of the moves that parameters in it take part in."""
    sources: dict[str, set[int]] = defaultdict(set)
    targets: dict[str, set[int]] = defaultdict(set)
    for number, step in enumerate(steps):
        for names, owned in ((step.sources, sources), (step.targets, targets)):
            for name in names:
                for owner in _owners(name):
                    owned[owner].add(number)
    return sources, targets


def _owners(name: str) -> Iterable[str]:
    parts = name.split(".")[:-1]
    return (".".join(parts[:i]) for i in range(1, len(parts) + 1))


def _grouped(owned: Mapping[str, set[int]]) -> dict[frozenset[int], list[str]]:
    groups: dict[frozenset[int], list[str]] = defaultdict(list)
    for path, held in owned.items():
        groups[frozenset(held)].append(path)
    return groups


def _by_place(path: str, pairs: Paths) -> str:
    """Return where the legacy engine would have a module: as the nearest paired parent says."""
    parent, _, name = path.rpartition(".")
    if parent in pairs:
        return f"{pairs[parent]}.{name}"
    return f"{_by_place(parent, pairs)}.{name}" if parent else name
