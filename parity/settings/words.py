"""What the table of settings is written in: rows that read the leaves of a config, in the words of one framework.

A row takes the leaves whose key it matches, and gives them a name and a value that both frameworks share. The first
row that matches a leaf takes it. A leaf that no row takes is unknown, which is a failure: nobody has looked at it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Leaves = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """A setting.

    Attributes:
        keys: a regular expression of the whole key of a leaf.
        name: what it is called in both frameworks; ``\\1`` is the first group of ``keys``.
        value: from the leaves that have the name, by key, to what is compared; by default the only leaf's value.
    """

    keys: str
    name: str
    value: Callable[[Leaves], Any] | None = None


@dataclass(frozen=True)
class Unread:
    """Leaves that are not compared here, and why; ``stage`` is where they are, if that is why."""

    keys: str
    reason: str
    stage: str = ""


@dataclass(frozen=True)
class Dialect:
    """How one framework says its settings; ``defaults`` are by name, what holds where the config says nothing."""

    rows: Sequence[Row | Unread]
    defaults: Leaves


@dataclass(frozen=True)
class Setting:
    """One setting as one config has it: the keys that say it, none for a default."""

    value: Any
    keys: tuple[str, ...] = ()


@dataclass
class Reading:
    """All leaves of one config, each in one place."""

    settings: dict[str, Setting] = field(default_factory=dict)
    unread: dict[str, Unread] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)


def read(leaves: Leaves, dialect: Dialect, more: Sequence[Row | Unread] = ()) -> Reading:
    """Return a config as its dialect says it; the rows in ``more`` go before the dialect's own."""
    reading = Reading()
    taken: dict[str, dict[str, Any]] = {}
    makers: dict[str, Row] = {}
    for key, value in leaves.items():
        row = next((row for row in (*more, *dialect.rows) if re.fullmatch(row.keys, key)), None)
        if row is None:
            reading.unknown.append(key)
        elif isinstance(row, Unread):
            reading.unread[key] = row
        else:
            name = re.sub(row.keys, row.name, key, count=1)
            taken.setdefault(name, {})[key] = value
            makers.setdefault(name, row)
    for name, found in taken.items():
        make = makers[name].value or only
        reading.settings[name] = Setting(make(found), tuple(found))
    for name, value in dialect.defaults.items():
        reading.settings.setdefault(name, Setting(value))
    return reading


def only(leaves: Leaves) -> Any:
    """Return the value of the only leaf, or all by key."""
    return next(iter(leaves.values())) if len(leaves) == 1 else dict(leaves)


def last(leaves: Leaves) -> dict[str, Any]:
    """Return the leaves by the last word of their keys.

    >>> last({"optim_wrapper.clip_grad.max_norm": 10})
    {'max_norm': 10}
    """
    return {key.rpartition(".")[2]: value for key, value in leaves.items()}


def nested(leaves: Leaves) -> Any:
    """Return the leaves as the dictionaries and lists that they came from.

    >>> nested({"hooks[0].type": "EMAHook", "hooks[0].momentum": 0.1, "hooks[1].type": "B"})
    {'hooks': [{'type': 'EMAHook', 'momentum': 0.1}, {'type': 'B'}]}
    """
    root: dict[str | int, Any] = {}
    for key, value in leaves.items():
        *steps, final = (int(word) if word.isdigit() else word for word in re.findall(r"[^.\[\]]+", key))
        owner = root
        for step in steps:
            owner = owner.setdefault(step, {})
        owner[final] = value
    return _with_lists(root)


def _with_lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    inner = {key: _with_lists(each) for key, each in value.items()}
    return list(inner.values()) if inner and all(isinstance(key, int) for key in inner) else inner
