"""Foreign text in a message: a name out of a file can hold anything, and a message is one line of plain letters."""

from __future__ import annotations

import re
from collections.abc import Iterable

_MOST = 80
_MOST_LINE = 1000


def shown(text: str, *, most: int = _MOST) -> str:
    """Return a text in quotes, with whatever no terminal prints escaped, and cut where it is long.

    >>> print(shown("a.weight"), shown("a\\n\\0"), shown("a" * 9, most=4))
    'a.weight' 'a\\n\\x00' 'aaaa…'
    """
    cut = repr(text[:most])
    safe = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in cut)
    return f"{safe[:-1]}…{safe[-1]}" if len(text) > most else safe


def listed(names: Iterable[str], *, most: int = 3) -> str:
    """Return the first few of some names, sorted, in brackets.

    >>> listed(["b", "a", "d", "c"])
    "['a', 'b', 'c', …]"
    """
    ordered = sorted(names)
    return f"[{', '.join(map(shown, ordered[:most]))}{', …' if len(ordered) > most else ''}]"


def one_line(text: str, *, most: int = _MOST_LINE) -> str:
    """Return a text of any length as one line that every terminal prints.

    >>> one_line("first\\n  second\\x00")
    'first second\\\\x00'
    """
    words = re.sub(r"\s*[\t\n\v\f\r]\s*", " ", text[: 4 * most].strip())
    safe = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in words)
    return safe if len(safe) <= most else f"{safe[:most]}…"
