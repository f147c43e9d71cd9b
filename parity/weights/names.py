"""Turn a renaming round: from ``a.(\\d+).b -> c.\\1`` follow the pattern and the replacement that lead back.

Python 3.8, no torch: the rules that use this are declared by cases, which travel to the legacy worker.
"""

from __future__ import annotations

import re

SAME = r"\g<0>"  # the replacement that keeps the name

# A pattern or a replacement is a sequence of these: literal text, or the number of a group.
_LITERAL_SPECIAL = ".^$*+?{}[]|"
_REFERENCE = re.compile(r"\\(\d)|\\g<(\d+)>|(\\\\)|([^\\]+)")


def inverted(pattern: str, replacement: str) -> tuple[str, str]:
    """Return the pattern and the replacement of the opposite renaming.

    Outside of its groups a pattern must be literal text (dots escaped), and every group must come back
    in the replacement: else two names could become one.

    Raises:
        ValueError: the renaming has no inverse that can be read off; says why.

    >>> inverted(r"head\\.(\\d+)\\.(weight|bias)", r"layers.\\1.head_\\2")
    ('layers\\\\.(\\\\d+)\\\\.head_(weight|bias)', 'head.\\\\g<1>.\\\\g<2>')
    """
    if replacement == SAME:
        return pattern, SAME
    source, groups = _pattern_parts(pattern)
    target = _replacement_parts(replacement, source)
    order: list[int] = []
    back = ""
    for part in target:
        if isinstance(part, str):
            back += re.escape(part)
        elif part in order:
            back += f"(?:\\{order.index(part) + 1})"
        else:
            order.append(part)
            back += f"({groups[part - 1]})"
    unused = sorted(set(range(1, len(groups) + 1)) - set(order))
    if unused:
        raise ValueError(f"{pattern!r} -> {replacement!r} has no inverse: group {unused[0]} does not come back")
    there = [part.replace("\\", r"\\") if isinstance(part, str) else f"\\g<{order.index(part) + 1}>" for part in source]
    return back, "".join(there)


def _pattern_parts(pattern: str) -> tuple[list[str | int], list[str]]:
    """Return literals and group numbers in order, and each group's own pattern."""
    parts: list[str | int] = []
    groups: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == "(":
            end = _closing(pattern, at)
            if pattern[at + 1] == "?":
                raise ValueError(f"{pattern!r} has no inverse: '{pattern[at : at + 3]}' is a group that keeps nothing")
            groups.append(pattern[at + 1 : end])
            parts.append(len(groups))
            at = end + 1
            continue
        if char == "\\":
            at += 1
            char = pattern[at : at + 1]
            if not char or char.isalnum():
                raise ValueError(f"{pattern!r} has no inverse: '\\{char}' stands outside of a group")
        elif char in _LITERAL_SPECIAL:
            raise ValueError(f"{pattern!r} has no inverse: '{char}' stands outside of a group; escape it or group it")
        parts.append(char)
        at += 1
    return parts, groups


def _closing(pattern: str, start: int) -> int:
    """Return where the group that begins at ``start`` ends; groups inside it must not capture."""
    depth, at = 0, start
    while at < len(pattern):
        char = pattern[at]
        if char == "\\":
            at += 1
        elif char == "(":
            if depth and pattern[at + 1 : at + 2] != "?":
                raise ValueError(f"{pattern!r} has no inverse: a group within a group; write the inner one as (?:...)")
            depth += 1
        elif char == ")":
            depth -= 1
            if not depth:
                return at
        at += 1
    raise ValueError(f"{pattern!r}: a group is not closed")


def _replacement_parts(replacement: str, source: list[str | int]) -> list[str | int]:
    parts: list[str | int] = []
    for digit, number, backslash, text in _REFERENCE.findall(replacement):
        group = int(digit or number or -1)
        if group == 0:
            parts += source
        else:
            parts.append(group if group > 0 else text or "\\" * bool(backslash))
    return parts
