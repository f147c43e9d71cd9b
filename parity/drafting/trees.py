"""Turn observed values into patterns: what a call reads by the names of known tensors, what it writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from parity.cases.patterns import (
    Attribute,
    Constant,
    Derived,
    Ignore,
    Instances,
    Many,
    Metas,
    PerImage,
    Samples,
)

Tree = Mapping[str, Any]


class Unreadable(Exception):
    """An argument that no named tensor makes; its text says which."""


@dataclass
class Names:
    """What the tensors of one engine's run are called.

    Attributes:
        tensors: number -> name.
        images: base names of which there is one tensor for each image.
        objects: the numbers inside of a value -> the name of that value as a whole.
        derived: number -> how an argument that was read before is made of tensors known.
    """

    tensors: dict[int, str]
    images: set[str] = field(default_factory=set)
    objects: dict[tuple[int, ...], str] = field(default_factory=dict)
    derived: dict[int, Derived] = field(default_factory=dict)

    def name_images(self, trees: Sequence[Tree], name: str) -> None:
        """Name one tensor an image."""
        self.images.add(name)
        for image, tree in enumerate(trees):
            self.tensors[tree["t"]] = f"{name}[{image}]"

    def forget_private(self) -> None:
        """Forget the names of what helper calls gave: another stage has to make its own."""
        self.tensors = {number: name for number, name in self.tensors.items() if not name.startswith("_")}
        self.objects.clear()

    def with_private(self, call: Mapping[str, Any], wanted: Sequence[int]) -> Any:
        """Name what a helper call gives with a leading underscore, and return the pattern that finds it."""
        if "instances" in call["result"]:
            name = f"_{call['path'].split('.')[0]}_results"
            self.objects[tuple(tensors_of(call["result"]))] = name
            return name
        for tree in flat(call["result"]):
            if tree["t"] in wanted:
                self.tensors[tree["t"]] = f"_{tree['slot'] or 'value'}"
        return writing(call["result"], self, {}, only=wanted)


def tensors_of(tree: Any) -> Iterator[int]:
    """Yield the numbers of all tensors in an observed value."""
    if isinstance(tree, Mapping):
        if "t" in tree and "derived" not in tree:
            yield tree["t"]
        for inner in tree.values():
            yield from tensors_of(inner)
    elif isinstance(tree, (list, tuple)):
        for inner in tree:
            yield from tensors_of(inner)


def missing(tree: Tree, names: Names) -> list[int]:
    """Return the numbers of the tensors in an argument that no name is known for.

    Of result objects those are enough that have one, if their boxes do: the others are for other readers.
    """
    if "instances" in tree and _named_fields(tree, names):
        return []
    if "seq" in tree:
        return [number for inner in tree["seq"] for number in missing(inner, names)]
    return [n for n in tensors_of(tree) if n not in names.tensors and n not in names.derived]


def _named_fields(tree: Tree, names: Names) -> tuple[tuple[str, str], ...]:
    """Return attribute and base name of what every image's result object is known to hold; none without boxes."""
    found = {}
    for attribute, trees in tree["instances"].items():
        given = [names.tensors.get(each["t"], "") for each in trees]
        base = given[0].split("[")[0] if given else ""
        if base in names.images and given == [f"{base}[{image}]" for image in range(len(given))]:
            found[attribute] = base
    return tuple(found.items()) if "bboxes" in found else ()


def flat(tree: Tree, slot: str = "") -> list[dict[str, Any]]:
    """Return the tensors of a result in order, each with the key it is found under (``slot``)."""
    if "shape" in tree and "t" in tree:
        return [{**tree, "slot": slot}]
    if "dict" in tree:
        return [found for key, inner in tree["dict"].items() for found in flat(inner, key)]
    return [found for inner in tree.get("seq", ()) for found in flat(inner, slot)]


def reading(tree: Tree, names: Names, *, argument: str) -> Any:
    """Return the pattern of an argument.

    Raises:
        Unreadable: it holds something that no name is known for.
    """
    if "derived" in tree:
        made = Derived(reading(tree["source"], names, argument=argument), tree["derived"])
        if "t" in tree:
            names.derived[tree["t"]] = made
        return made
    if "t" in tree:
        if tree["t"] in names.derived:
            return names.derived[tree["t"]]
        if tree["t"] not in names.tensors:
            raise Unreadable(f"{argument} {tuple(tree['shape'])}")
        return names.tensors[tree["t"]]
    for key, marker in (("metas", Metas), ("samples", Samples)):
        if key in tree:
            return marker()
    if "constant" in tree:
        return Constant(tree["constant"])
    if "attribute" in tree:
        return Attribute(tree["attribute"])
    if "dict" in tree:
        return {key: reading(inner, names, argument=argument) for key, inner in tree["dict"].items()}
    if "seq" in tree:
        inner = tuple(reading(each, names, argument=argument) for each in tree["seq"])
        return _listed(inner, names) or inner
    known = names.objects.get(tuple(tensors_of(tree)))
    if known is None and "instances" in tree and _named_fields(tree, names):
        return Instances(_named_fields(tree, names))
    if known is None:
        raise Unreadable(f"{argument} ({next(iter(tree))})")
    return known


def _listed(inner: tuple[Any, ...], names: Names) -> Any:
    """Return one marker for names that count up from 0: ``name[0]``, ``name[1]``, …"""
    base = inner[0].split("[")[0] if inner and isinstance(inner[0], str) else ""
    if not base or inner != tuple(f"{base}[{i}]" for i in range(len(inner))):
        return None
    return PerImage(base) if base in names.images else Many(base, len(inner))


def writing(tree: Tree, names: Names, forms: Mapping[int, Any], only: Sequence[int] | None = None) -> Any:
    """Return the pattern of a result; what has no name is ignored.

    Args:
        forms: number -> the pattern of a tensor that is not just one named tensor.
        only: the numbers that are to be found, if not all that have a name.
    """
    if "t" in tree and "shape" in tree:
        if tree["t"] in forms:
            return forms[tree["t"]]
        known = tree["t"] in names.tensors and (only is None or tree["t"] in only)
        return names.tensors[tree["t"]] if known else Ignore()
    if "dict" in tree:
        found = {key: writing(inner, names, forms, only) for key, inner in tree["dict"].items()}
        return {key: inner for key, inner in found.items() if not isinstance(inner, Ignore)} or Ignore()
    if "seq" in tree:
        inner = tuple(writing(each, names, forms, only) for each in tree["seq"])
        if all(isinstance(each, Ignore) for each in inner):
            return Ignore()
        return _listed(inner, names) or inner
    return Ignore()
