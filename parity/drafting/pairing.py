"""Pair the tensors that two engines give at the same step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from parity.cases.patterns import Split, Transposed

Tree = Mapping[str, Any]

# The axes that engines have in another order: images and positions.
EXCHANGES = ((1, 0, 2), (0, 2, 1, 3))


@dataclass(frozen=True)
class Paired:
    """A tensor of the legacy engine, and what is the same in the new one.

    Attributes:
        new: one tensor, or several of which the legacy engine has a stack.
        axes: the order of the legacy tensor's axes that the new one has; empty for its own order.
    """

    legacy: Tree
    new: tuple[Tree, ...]
    axes: tuple[int, ...] = ()

    def form(self, name: str) -> Any:
        """Return the pattern by which the legacy tensor has that name; ``None`` where it is the name itself."""
        if len(self.new) > 1:
            return Split(name, len(self.new))
        return Transposed(name, self.axes) if self.axes else None


def paired(legacy: Sequence[Tree], new: Sequence[Tree]) -> list[Paired]:
    """Pair tensors by their key or, in order, by their shape, which may have two axes exchanged.

    What either engine gives beyond the other is left out.
    """
    slots = [tree["slot"] for tree in new]
    by_key = all(slots) and {tree["slot"] for tree in legacy} <= set(slots)
    free = list(new)
    pairs = []
    for one in sorted(legacy, key=lambda tree: slots.index(tree["slot"])) if by_key else legacy:
        wanted = [tree for tree in free if tree["slot"] == one["slot"]] if by_key else free
        found = next((_pair(one, other) for other in wanted if _pair(one, other)), None) or _stack(one, free)
        if found is not None:
            free = [tree for tree in free if tree not in found.new]
            pairs.append(found)
    return pairs


def _pair(one: Tree, other: Tree) -> Paired | None:
    if one["shape"] == other["shape"]:
        return Paired(one, (other,))
    for axes in EXCHANGES:
        if len(axes) == len(one["shape"]) and [one["shape"][axis] for axis in axes] == other["shape"]:
            return Paired(one, (other,), axes)
    return None


def _stack(one: Tree, others: Sequence[Tree]) -> Paired | None:
    """Pair a stack with the last so many of the tensors of a layer's shape: the first may be what entered."""
    layers, *shape = one["shape"] or [0]
    alike = tuple(tree for tree in others if tree["shape"] == shape)
    return Paired(one, alike[-layers:]) if layers > 1 and len(alike) >= layers else None
