"""How a checkpoint's keys become those of another engine: rules as data.

A rule takes the keys that a pattern matches (a regular expression on the **full** name) and says what
becomes of them. Rules do not see each other's results: every key is moved by at most one rule, all at
once, so two rules may swap two names. A key that no rule matches keeps its name. What a rule does with
the values is in ``conversion.py``.

Python 3.8, no torch: cases declare rules, and travel to the legacy worker.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from parity.weights.names import SAME, inverted

# The category ids of COCO's 80 classes, which a layer with 91 outputs has as its rows.
COCO_IDS = tuple(sorted(set(range(1, 91)) - {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}))


class Rule:
    """What every rule has: the patterns it takes keys by, and the names it gives.

    Attributes:
        patterns: one for each key that is taken together; more than one only for ``Join``.
        names: replacement of each key that is given; ``\\1`` and ``\\g<0>`` stand for groups of the pattern.
    """

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns it takes keys by."""
        return self._ends()[0]

    @property
    def names(self) -> tuple[str, ...]:
        """The replacement for each key that it gives."""
        return self._ends()[1]

    def _ends(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        raise NotImplementedError

    def inverse(self) -> Rule | None:
        """Return the rule that leads back, or ``None`` where values are lost.

        Raises:
            ValueError: the names cannot be turned round; says why.
        """
        raise NotImplementedError

    def matches(self, name: str) -> list[tuple[int, tuple[str, ...]]]:
        """Return (which pattern, names given) for every pattern that matches the full name."""
        found = ((i, re.fullmatch(pattern, name)) for i, pattern in enumerate(self.patterns))
        return [(i, tuple(match.expand(new) for new in self.names)) for i, match in found if match]


class _OneToOne(Rule):
    """A key becomes one key, ``replacement``; rules that do more than rename keep the name unless it is given."""

    pattern: str
    replacement: str

    def _ends(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return (self.pattern,), (self.replacement,)


@dataclass(frozen=True)
class Rename(_OneToOne):
    """A key gets another name.

    >>> Rename(r"decoder\\.norms\\.(\\d)\\.(.*)", r"decoder.norm\\1.\\2").inverse().matches("decoder.norm3.bias")
    [(0, ('decoder.norms.3.bias',))]
    """

    pattern: str
    replacement: str

    def inverse(self) -> Rename:
        """Return the opposite renaming."""
        return Rename(*inverted(self.pattern, self.replacement))


@dataclass(frozen=True)
class Drop(Rule):
    """A key has no place in the target, for a reason; what it held is kept beside the weights.

    ``optional``: that no key matches is no mistake.
    """

    pattern: str
    reason: str
    optional: bool = False

    def _ends(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return (self.pattern,), ()

    def inverse(self) -> None:
        """Return ``None``: the value is gone, unless it was kept."""
        return


@dataclass(frozen=True)
class Split(Rule):
    """A key becomes several, cut along ``axis`` into the given sizes: a joint projection into q, k, v."""

    pattern: str
    targets: tuple[str, ...]
    sizes: tuple[int, ...]
    axis: int = 0

    def __post_init__(self) -> None:
        _expect(len(self.targets) == len(self.sizes) > 0, f"{self!r}: as many sizes as targets are needed")

    def _ends(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return (self.pattern,), self.targets

    def inverse(self) -> Join:
        """Return the rule that joins the parts."""
        back = [inverted(self.pattern, target) for target in self.targets]
        return Join(tuple(pattern for pattern, _ in back), back[0][1], self.sizes, self.axis)


@dataclass(frozen=True)
class Join(Rule):
    """Several keys, one for each pattern, become one key, laid side by side along ``axis``."""

    sources: tuple[str, ...]
    target: str
    sizes: tuple[int, ...]
    axis: int = 0

    def __post_init__(self) -> None:
        _expect(len(self.sources) == len(self.sizes) > 0, f"{self!r}: as many sizes as sources are needed")

    def _ends(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return self.sources, (self.target,)

    def inverse(self) -> Split:
        """Return the rule that cuts the parts apart."""
        back = [inverted(source, self.target) for source in self.sources]
        return Split(back[0][0], tuple(name for _, name in back), self.sizes, self.axis)


@dataclass(frozen=True)
class Permute(_OneToOne):
    """A key's axes change places: axis ``i`` of the target is axis ``axes[i]`` of the source."""

    pattern: str
    axes: tuple[int, ...]
    replacement: str = SAME

    def __post_init__(self) -> None:
        _expect(sorted(self.axes) == list(range(len(self.axes))), f"{self!r}: axes must be 0 to n-1, each once")

    def inverse(self) -> Permute:
        """Return the permutation that leads back."""
        pattern, replacement = inverted(self.pattern, self.replacement)
        return Permute(pattern, tuple(self.axes.index(i) for i in range(len(self.axes))), replacement)


@dataclass(frozen=True)
class ClassMap(_OneToOne):
    """Row ``i`` of the target is row ``rows[i]`` of the source, which has ``of`` rows along ``axis``.

    ``ClassMap(r"class_embed\\.(?:weight|bias)", COCO_IDS, 91)`` makes 80 classes of 91 outputs. Rows that
    are not taken are kept beside the weights.
    """

    pattern: str
    rows: tuple[int, ...]
    of: int
    replacement: str = SAME
    axis: int = 0

    def __post_init__(self) -> None:
        rows = set(self.rows)
        different = len(rows) == len(self.rows) > 0 and rows <= set(range(self.of))
        _expect(different, f"{self!r}: rows must be different ones of 0 to {self.of - 1}")

    def left(self) -> tuple[int, ...]:
        """Return the rows of the source that are not taken."""
        return tuple(sorted(set(range(self.of)) - set(self.rows)))

    def inverse(self) -> ClassFill:
        """Return the rule that puts the rows back; it needs those that were not taken."""
        pattern, replacement = inverted(self.pattern, self.replacement)
        return ClassFill(pattern, self.rows, self.of, replacement, self.axis)


@dataclass(frozen=True)
class ClassFill(_OneToOne):
    """The opposite of ``ClassMap``: row ``i`` becomes row ``rows[i]`` of ``of``, the others come from what was kept."""

    pattern: str
    rows: tuple[int, ...]
    of: int
    replacement: str = SAME
    axis: int = 0

    def inverse(self) -> ClassMap:
        """Return the rule that takes the rows."""
        pattern, replacement = inverted(self.pattern, self.replacement)
        return ClassMap(pattern, self.rows, self.of, replacement, self.axis)


def _expect(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)
