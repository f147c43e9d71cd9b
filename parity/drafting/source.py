"""Write a drafted case as the Python file that declares it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any

from parity.cases import deviations, patterns
from parity.cases.common import RESNET

WIDTH = 116


def _is_marker(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, patterns.Marker) and value is not patterns.Marker


MARKERS = ", ".join(sorted(name for name, value in vars(patterns).items() if _is_marker(value)))
DEVIATIONS = ", ".join(sorted(kind.__name__ for kind in deviations.KINDS.values()))
# How many fields stand without their name; in types that are not listed here all do.
POSITIONAL = {"Stage": 2, "Call": 3, "Fill": 1, "Batch": 0, "Case": 0}
POSITIONAL.update({kind.__name__: 0 for kind in deviations.KINDS.values()})

HEADER = '''"""{title}: {legacy} against {new}.

Drafted by `parity new-case`. Read it through: names, meanings and fills are proposals; stages and rules are proven
by `parity freeze` and `parity check`.
"""

from __future__ import annotations

from parity.cases.base import Batch, Call, Case, Fill, Meaning, Stage
from parity.cases.common import PIXELS, RESNET
from parity.cases.deviations import {deviations}
from parity.cases.patterns import {markers}
from parity.weights.rules import Drop, Rename
'''


@dataclass(frozen=True)
class Code:
    """Text that stands in the file as it is."""

    text: str


def written(value: Any, indent: int = 0) -> str:
    """Return a declaration as code, one line where that fits; fields that have their default are left out.

    >>> from parity.cases.patterns import Many
    >>> print(written((Many("p", 2), "c3")))
    (Many("p", 2), "c3")
    """
    flat = _flat(value)
    if len(flat) + indent <= WIDTH or not _parts(value):
        return flat
    opening, parts, closing = _parts(value)  # type: ignore[misc]  # not empty, as was just asked
    inner = " " * (indent + 4)
    lines = [f"{inner}{name}{written(part, indent + 4)}," for name, part in parts]
    return "\n".join([opening, *lines, " " * indent + closing])


def _flat(value: Any) -> str:
    if isinstance(value, Code):
        return value.text
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    found = _parts(value)
    if not found:
        return repr(value)
    opening, parts, closing = found
    text = ", ".join(f"{name}{_flat(part)}" for name, part in parts)
    return f"{opening}{text}{',' if closing == ')' and opening == '(' and len(parts) == 1 else ''}{closing}"


def _parts(value: Any) -> tuple[str, list[tuple[str, Any]], str] | tuple[()]:
    """Return how a container opens, its named parts and how it closes; nothing for any other value."""
    if isinstance(value, Mapping):
        return "{", [(_flat(key) + ": " * (inner != Code("")), inner) for key, inner in value.items()], "}"
    if isinstance(value, (tuple, list)):
        return "(", [("", inner) for inner in value], ")"
    if is_dataclass(value) and not isinstance(value, (type, Code)):
        given = [f for f in fields(value) if not _is_default(f, getattr(value, f.name))]
        plain = POSITIONAL.get(type(value).__name__, len(given))
        named = [("" if i < plain else f"{f.name}=", getattr(value, f.name)) for i, f in enumerate(given)]
        return f"{type(value).__name__}(", named, ")"
    return ()


def _is_default(field: Any, value: Any) -> bool:
    if field.default is not MISSING:
        return bool(value == field.default)
    return field.default_factory is not MISSING and bool(value == field.default_factory())


def module(sections: Sequence[tuple[str, str, Any]], *, title: str, legacy: str, new: str) -> str:
    """Return a file that defines the named sections, each a (comment, name, value)."""
    blocks = [HEADER.format(markers=MARKERS, deviations=DEVIATIONS, title=title, legacy=legacy, new=new)]
    for comment, name, value in sections:
        text = f"{name} = {written(value)}\n"
        blocks.append("".join(f"# {line}\n" for line in comment.splitlines()) + text)
    return _without_idle_imports("\n".join(blocks))


def fills(rules: Sequence[Any]) -> Any:
    """Return fill rules for the file, those of ResNet by their name."""
    own = tuple(rule for rule in rules if rule not in RESNET)
    return (Code("*RESNET"), *own) if len(own) < len(rules) else own


def _without_idle_imports(text: str) -> str:
    """Drop the names that the file does not use from its imports."""
    head, body = text.split("from parity.cases.base", 1)
    imports, _, rest = body.partition("\n\n")
    lines = []
    for line in _statements("from parity.cases.base" + imports):
        source, names = line.split(" import ")
        used = [name for name in names.split(", ") if f"{name}(" in rest or f"*{name}" in rest]
        if used:
            lines.append(_import(source, used))
    return head + "\n".join(lines) + "\n\n" + rest


def _statements(text: str) -> list[str]:
    joined = text.replace("(\n    ", "").replace(",\n)", "").replace(",\n    ", ", ")
    return joined.strip().splitlines()


def _import(source: str, names: Sequence[str]) -> str:
    line = f"{source} import {', '.join(names)}"
    return line if len(line) <= WIDTH else f"{source} import (\n    " + ",\n    ".join(names) + ",\n)"
