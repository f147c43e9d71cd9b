"""Keys that an object has twice: JSON readers keep the last of them without a word.

A decoder drops the first of two pairs, and with it at least one colon: where an object has more colons than its kept
pairs account for, a key is there twice. Only then is it read again, slowly, for the key's name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

_CHUNK = 1 << 20


def repeated_outside(content: bytes, pairs: Mapping[str, Raw]) -> list[str]:
    """Return the keys that a file's outermost object has twice; ``pairs`` is what a decoder kept of it."""
    return _outermost_repeated(content) if _pairs_dropped(content, pairs) else []


def repeated_keys(entry: bytes | Raw) -> list[str]:
    """Return the keys that an object has twice, or one of those inside of it.

    >>> repeated_keys(b'{"id": 1, "segments_info": [{"id": 2, "area": 9, "id": 3}]}')
    ['id']
    """
    return _repeated(bytes(entry)) if _has_repeated(entry) else []


def _has_repeated(piece: bytes | Raw) -> bool:
    content = bytes(piece)
    if b"{" not in content or content[:1] == b'"':
        return False
    if content[:1] == b"[":
        return any(map(_has_repeated, msgspec.json.decode(content, type=list[Raw])))
    pairs = msgspec.json.decode(content, type=dict[str, Raw])
    if content.count(b":") == len(pairs):  # no object inside, no colon in a word: nearly all entries
        return False
    return _pairs_dropped(content, pairs) or any(map(_has_repeated, pairs.values()))


def _pairs_dropped(content: bytes | Raw, pairs: Mapping[str, Raw]) -> bool:
    return _colons(content) > sum(_colons(value) + key.count(":") + 1 for key, value in pairs.items())


def _colons(piece: bytes | Raw) -> int:
    """Count colons; piece by piece, since ``Raw`` has no ``count`` and a copy of a large file is large."""
    view = memoryview(piece)
    return sum(bytes(view[start : start + _CHUNK]).count(b":") for start in range(0, view.nbytes, _CHUNK))


def _repeated(content: bytes) -> list[str]:
    found: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in pairs]
        found.extend(dict.fromkeys(name for name in names if names.count(name) > 1))

    json.loads(content, object_pairs_hook=note)
    return found


def _outermost_repeated(content: bytes) -> list[str]:
    names: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> None:
        names[:] = [name for name, _ in pairs]  # the outermost object is the last that is read

    json.loads(content, object_pairs_hook=note)
    return [name for name in dict.fromkeys(names) if names.count(name) > 1]
