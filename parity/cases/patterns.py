"""Where the named tensors of a stage sit in the arguments and results of a call.

A pattern has the shape of the value it describes: tuples, lists and dictionaries stand for
themselves, and a plain string is the name of the tensor found at that place. The markers below
cover what is left. One pattern serves both ways: ``match`` takes a value apart into named tensors,
``build`` puts the value together again from them, which is how a frozen stage is replayed.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterable, List, Mapping, Tuple, Union

Tensors = Dict[str, Any]
Pattern = Union[str, "Marker", Tuple[Any, ...], Mapping[str, Any]]


class Marker:
    """A place in a pattern that is not simply one named tensor."""


@dataclass(frozen=True)
class Ignore(Marker):
    """A value that is not looked at: it repeats another one, or is no number."""


@dataclass(frozen=True)
class Constant(Marker):
    """An argument that is the same in every call, such as ``dn_mask=None`` at inference."""

    value: Any


@dataclass(frozen=True)
class Samples(Marker):
    """The batch's metas as the engine's own data samples."""


@dataclass(frozen=True)
class Metas(Marker):
    """The batch's metas as a list of plain dictionaries, one an image."""


@dataclass(frozen=True)
class Many(Marker):
    """A list of ``count`` tensors: ``name[0]``, ``name[1]``, …"""

    name: str
    count: int


@dataclass(frozen=True)
class Split(Marker):
    """A tensor whose first axis counts layers: one named tensor a layer, ``name[0]``, …

    ``only`` keeps those layers of it; a call that reads just its last layer is replayed with that.
    """

    name: str
    count: int
    only: Tuple[int, ...] = ()

    def layers(self) -> Tuple[int, ...]:
        return self.only or tuple(range(self.count))


@dataclass(frozen=True)
class Instances(Marker):
    """A list with one result object an image, whose attributes are tensors: ``name[image]``."""

    fields: Tuple[Tuple[str, str], ...]  # (attribute, name)


@dataclass(frozen=True)
class Every(Marker):
    """Of a tensor that is too large to send and to keep, every ``step``-th row; it is compared, and fed to no call."""

    name: str
    step: int


@dataclass(frozen=True)
class PerImage(Marker):
    """A list with one tensor an image (or, ``stacked``, a tensor whose first axis counts images): ``name[image]``."""

    name: str
    stacked: bool = False


@dataclass(frozen=True)
class Detections(Marker):
    """mmdet 2's results: for each image (N, 5) boxes with their score, and (N,) labels."""

    boxes: str
    scores: str
    labels: str


@dataclass(frozen=True)
class Proposals(Marker):
    """mmdet 2's proposals: for each image (N, 5) boxes with their score last."""

    boxes: str
    scores: str


@dataclass(frozen=True)
class Transposed(Marker):
    """A tensor whose axes an engine has in an order of its own: axis ``i`` of the named one is its axis ``axes[i]``."""

    name: str
    axes: Tuple[int, ...]


@dataclass(frozen=True)
class Attribute(Marker):
    """What the detector itself holds at a path, such as ``roi_head.test_cfg``, and hands on to the call."""

    path: str


@dataclass(frozen=True)
class ScoredBoxes(Marker):
    """mmdet 2's boxes of one image, (N, 5) with the score last."""

    boxes: str
    scores: str


@dataclass(frozen=True)
class Derived(Marker):
    """An argument that the engine computes by itself from what ``source`` describes: ``function(value)``.

    ``function`` is named (``package.module:function``), so that a declaration imports nothing heavy.
    """

    source: Any
    function: str

    def __call__(self, tensor: Any) -> Any:
        module, attribute = self.function.split(":")
        return getattr(importlib.import_module(module), attribute)(tensor)


def item(name: str, index: int) -> str:
    """Return the name of one element of a list of tensors.

    >>> item("references", 2)
    'references[2]'
    """
    return f"{name}[{index}]"


def every(name: str) -> str:
    """Return what stands for the tensors of all images.

    >>> every("scores")
    'scores[*]'
    """
    return f"{name}[*]"


def expand(name: str, known: Iterable[str]) -> List[str]:
    """Return the names that ``name`` stands for: itself, or one for each image.

    >>> expand("scores[*]", ["scores[0]", "boxes[0]", "scores[1]"])
    ['scores[0]', 'scores[1]']
    """
    if not name.endswith("[*]"):
        return [name]
    return [other for other in known if other.startswith(name[:-2])]


def match(pattern: Pattern, value: Any) -> Tensors:
    """Return the named tensors that ``pattern`` finds in ``value``; a ``None`` has no name."""
    found: Tensors = {}
    _match(pattern, value, found)
    return found


def _match(pattern: Pattern, value: Any, found: Tensors) -> None:
    if value is None or isinstance(pattern, (Ignore, Constant, Samples, Metas, Derived, Attribute)):
        return
    if isinstance(pattern, str):
        found[pattern] = value
    elif isinstance(pattern, Many):
        _expect_length(pattern.name, len(value), pattern.count)
        found.update({item(pattern.name, i): element for i, element in enumerate(value)})
    elif isinstance(pattern, Split):
        _expect_length(pattern.name, len(value), pattern.count)
        found.update({item(pattern.name, i): value[i] for i in pattern.layers()})
    elif isinstance(pattern, PerImage):
        found.update({item(pattern.name, image): element for image, element in enumerate(value)})
    elif isinstance(pattern, ScoredBoxes):
        found.update({pattern.boxes: value[:, :4], pattern.scores: value[:, 4]})
    elif isinstance(pattern, Transposed):
        found[pattern.name] = value.permute(pattern.axes)
    elif isinstance(pattern, Every):
        found[pattern.name] = value[:: pattern.step]
    elif isinstance(pattern, Proposals):
        for image, boxes in enumerate(value):
            _match(ScoredBoxes(item(pattern.boxes, image), item(pattern.scores, image)), boxes, found)
    elif isinstance(pattern, Detections):
        for image, (boxes, labels) in enumerate(value):
            _match(ScoredBoxes(item(pattern.boxes, image), item(pattern.scores, image)), boxes, found)
            found[item(pattern.labels, image)] = labels
    elif isinstance(pattern, Instances):
        for image, instances in enumerate(value):
            for attribute, name in pattern.fields:
                found[item(name, image)] = getattr(instances, attribute)
    elif isinstance(pattern, Mapping):
        for key, inner in pattern.items():
            _match(inner, value[key], found)
    elif isinstance(pattern, tuple):
        _expect_length(str(pattern), len(value), len(pattern))
        for inner, element in zip(pattern, value):
            _match(inner, element, found)
    else:
        raise TypeError(f"no pattern: {pattern!r}")


def _expect_length(what: str, actual: int, expected: int) -> None:
    if actual != expected:
        raise ValueError(f"{what}: {actual} elements where the case declares {expected}")


def names(pattern: Pattern) -> List[str]:
    """Return the tensor names a pattern declares; ``name[*]`` where there is one for each image.

    >>> names({"query": PerImage("query"), "mask": Constant(None), "refs": Many("references", 2)})
    ['query[*]', 'references[0]', 'references[1]']
    """
    if isinstance(pattern, str):
        return [pattern]
    if isinstance(pattern, (Transposed, Every)):
        return [pattern.name]
    if isinstance(pattern, Instances):
        return [every(name) for _, name in pattern.fields]
    if isinstance(pattern, PerImage):
        return [every(pattern.name)]
    if isinstance(pattern, Derived):
        return names(pattern.source)
    if isinstance(pattern, Many):
        return [item(pattern.name, i) for i in range(pattern.count)]
    if isinstance(pattern, Split):
        return [item(pattern.name, i) for i in pattern.layers()]
    if isinstance(pattern, Mapping):
        return [name for inner in pattern.values() for name in names(inner)]
    if isinstance(pattern, tuple):
        return [name for inner in pattern for name in names(inner)]
    return []


def build(
    pattern: Pattern,
    lookup: Callable[[str], Any],
    *,
    samples: Any,
    metas: Any,
    stack: Callable[[List[Any]], Any],
    attribute: Callable[[str], Any] = str,
    instances: Callable[[Dict[str, Any]], Any] = dict,
) -> Any:
    """Return the value that ``pattern`` describes, from named tensors.

    Args:
        lookup: name -> tensor, or ``None`` for a tensor that the engine does without.
        samples, metas: what ``Samples`` and ``Metas`` stand for.
        stack: puts a list of tensors on a new first axis (``torch.stack``; this file knows no torch).
        attribute: path -> what the detector holds there.
        instances: attributes of one image's result object -> that object.
    """

    def again(inner: Pattern) -> Any:
        return build(inner, lookup, samples=samples, metas=metas, stack=stack, attribute=attribute, instances=instances)

    if isinstance(pattern, str):
        return lookup(pattern)
    if isinstance(pattern, Constant):
        return pattern.value
    if isinstance(pattern, Attribute):
        return attribute(pattern.path)
    if isinstance(pattern, Transposed):
        value = lookup(pattern.name)
        return value.permute([pattern.axes.index(i) for i in range(len(pattern.axes))])
    if isinstance(pattern, Samples):
        return samples
    if isinstance(pattern, Metas):
        return metas
    if isinstance(pattern, PerImage):
        elements = [lookup(item(pattern.name, image)) for image in range(len(metas))]
        return stack(elements) if pattern.stacked else elements
    if isinstance(pattern, Instances):
        images = range(len(metas))
        return [instances({key: lookup(item(name, image)) for key, name in pattern.fields}) for image in images]
    if isinstance(pattern, Derived):
        return pattern(again(pattern.source))
    if isinstance(pattern, Many):
        return [lookup(item(pattern.name, i)) for i in range(pattern.count)]
    if isinstance(pattern, Split):
        return stack([lookup(item(pattern.name, i)) for i in pattern.layers()])
    if isinstance(pattern, Mapping):
        return {key: again(inner) for key, inner in pattern.items()}
    if isinstance(pattern, tuple):
        return tuple(again(inner) for inner in pattern)
    raise TypeError(f"{pattern!r} cannot be built, only matched")
