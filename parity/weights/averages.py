"""Where a checkpoint keeps averaged (EMA) weights.

* Under a key of their own, at the top or deeper: ``ema_state_dict``, ``state_dict_ema`` (timm), ``model_ema``,
  ``ema.module`` (RT-DETR), ``ema_model`` (DINO), … mmengine's ``EMAHook`` saves the average **as** ``state_dict``,
  and the trained weights as ``ema_state_dict``: its tests and its users run on the average.
* Beside the trained weights, by a prefix: ``ema_model.backbone…``.
* mmcv 1.x's ``EMAHook`` keeps a buffer ``ema_backbone_conv1_weight`` for each parameter. With mmcv's own priority the
  buffers hold the average when a checkpoint is saved; registered ahead of the checkpoint hook, as mmdet 2.x does
  (``priority=49``), the two have been exchanged.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from parity.weights.layouts import Values, is_tensor, without_wrapper

_WORD = re.compile(r"(?:^|[._\-\s])(?:ema|swa|averaged?)(?![A-Za-z])|EMA|Ema(?![a-z])")
_COUNTERS = frozenset(("steps", "step", "updates", "num_updates", "n_averaged", "initted", "decay"))
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
_PRIORITIES = {"HIGHEST": 0, "VERY_HIGH": 10, "HIGH": 30, "ABOVE_NORMAL": 40}
_CHECKPOINT_PRIORITY = 50
_DEEPEST, _MOST_PLACES = 5, 10_000
_MOST_AVERAGES = 20  # of a kind: each is held against all names
_MOST_CONFIG = 1 << 20
LOOKED_AT = (
    "keys with the word ema, swa or average at any depth (ema, ema.module, model_ema, ema_model, ema_state_dict,"
    " state_dict_ema, module_ema), names of the state dict that begin so, and mmcv's ema_ buffers"
)


@dataclass(frozen=True)
class Average:
    """Averaged weights, and the trained ones that belong to them.

    Attributes:
        place: where they are, as ``--ema-from`` names it.
        trained: name -> value; empty if the file has none.
        averaged: name -> value, with the names of the trained ones if there are any.
        odd: names that only one of the two has; empty if they fit together.
    """

    place: str
    trained: Values
    averaged: Values
    odd: tuple[str, ...] = ()


def averages(content: Mapping[Any, Any], layout: str, state: Values, meta: Mapping[Any, Any]) -> list[Average]:
    """Return all averaged weights of a checkpoint, in the order in which they are preferred.

    Args:
        state: the file's state dict, without its wrapper; empty if it has none.
    """
    apart = [] if layout == "bare" else _below_keys(content)
    by_key = [_paired(place, state, other, exchanged=_exchanged(place, meta)) for place, other in apart]
    return [*by_key, *_by_prefix(state), *_mmcv_buffers(state, meta)]


def _below_keys(content: Mapping[Any, Any]) -> list[tuple[str, Values]]:
    """Return place -> tensors of each mapping below a key that speaks of an average."""
    places: list[tuple[str, Values]] = []
    waiting: list[tuple[tuple[str, ...], Any]] = [((), content)]
    for _ in range(_MOST_PLACES):
        if not waiting or len(places) == _MOST_AVERAGES:
            break
        path, value = waiting.pop(0)
        tensors = _state(value) if any(_WORD.search(key) for key in path) else None
        if tensors:
            places.append((".".join(path), tensors))
        elif isinstance(value, Mapping) and len(path) < _DEEPEST:
            waiting += [((*path, key), below) for key, below in value.items() if _leads_on(key, below)]
    return places


def _leads_on(key: Any, value: Any) -> bool:
    return isinstance(key, str) and isinstance(value, Mapping) and key not in ("optimizer", "message_hub")


def _state(value: Mapping[Any, Any]) -> Values | None:
    """Return the tensors of a mapping that holds them and counters only."""
    tensors = {name: entry for name, entry in value.items() if isinstance(name, str) and is_tensor(entry)}
    others = [entry for name, entry in value.items() if name not in tensors]
    plain = all(isinstance(entry, (int, float, bool, str, type(None))) for entry in others)
    return {name: entry for name, entry in tensors.items() if name not in _COUNTERS} if plain else None


def _exchanged(place: str, meta: Mapping[Any, Any]) -> bool:
    """Return whether the average lies where trained weights are expected: mmengine exchanges them, others do not."""
    return place == "ema_state_dict" and "mmengine_version" in meta


def _paired(place: str, state: Values, other: Values, *, exchanged: bool) -> Average:
    """Return two sets of weights with the names of the first."""
    for names in _spellings(other):
        missing = [name for name in state if name not in names]
        if state and not names.keys() - state.keys() and all(name.endswith(_BUFFERS) for name in missing):
            second = {name: names.get(name, value) for name, value in state.items()}
            return Average(place, second, state) if exchanged else Average(place, state, second)
    plain = without_wrapper(other)
    odd = tuple(sorted(plain.keys() ^ state.keys())) if state else ()
    return Average(place, plain, state, odd) if exchanged and state else Average(place, state, plain, odd)


def _spellings(state: Values) -> Iterator[Values]:
    """Yield a state dict with one after the other of the components taken off that all its names begin with."""
    while True:
        yield state
        first = {name.partition(".")[0] for name in state if "." in name}
        if len(first) != 1 or any("." not in name for name in state):
            return
        state = {name.partition(".")[2]: value for name, value in state.items()}


def _by_prefix(state: Values) -> list[Average]:
    """Return the averages that lie beside the trained weights, under names that begin with where they are."""
    parts: dict[str, Values] = {}
    for name, value in state.items():
        parts.setdefault(_prefix(name), {})[name] = value
    rest = {name: value for name, value in parts.pop("", {}).items() if name not in _COUNTERS}
    beside = []
    for prefix, part in list(parts.items())[:_MOST_AVERAGES]:
        other = {name.removeprefix(prefix): value for name, value in part.items()}
        for prefixed in _prefixed(other, rest):
            pair = _paired(prefix.rstrip("."), rest, prefixed, exchanged=False)
            if rest and not pair.odd:
                beside.append(pair)
                break
    return beside


def _prefix(name: str) -> str:
    """Return the first one or two components of a name, up to the one that speaks of an average; else nothing."""
    components = name.split(".", 2)[:-1][:2]
    for depth, component in enumerate(components, 1):
        if _WORD.search(component):
            return ".".join(components[:depth]) + "."
    return ""


def _prefixed(other: Values, rest: Values) -> Iterator[Values]:
    """Yield averages under their own names, and below the first component that all trained ones have in common."""
    yield other
    first = {name.partition(".")[0] for name in rest}
    if len(first) == 1:
        (component,) = first
        for names in _spellings(other):
            yield {f"{component}.{name}": value for name, value in names.items()}


def _mmcv_buffers(state: Values, meta: Mapping[Any, Any]) -> list[Average]:
    """Return the average that mmcv 1.x's hook keeps in buffers of the state dict."""
    buffers = {name: f"ema_{name.replace('.', '_')}" for name in state}
    partner = {name: buffer for name, buffer in buffers.items() if buffer in state}
    if not partner:
        return []
    taken = set(partner.values())
    own = {name: value for name, value in state.items() if name not in taken}
    other = {**own, **{name: state[buffer] for name, buffer in partner.items()}}
    config = meta.get("config")
    first = isinstance(config, str) and _ema_first(config)
    return [Average("ema_ buffers", other, own) if first else Average("ema_ buffers", own, other)]


def _ema_first(config: str) -> bool:
    """Return whether mmcv's EMA hook ran before the checkpoint hook, so that the average bears the plain names."""
    try:
        tree = ast.parse(config[:_MOST_CONFIG])
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    for call in calls:
        values = {word.arg: word.value.value for word in call.keywords if isinstance(word.value, ast.Constant)}
        if str(values.get("type", ""))[-60:].endswith("EMAHook"):
            priority = values.get("priority", _CHECKPOINT_PRIORITY)
            number = _PRIORITIES.get(priority.upper(), 50) if isinstance(priority, str) else priority
            return isinstance(number, int) and number < _CHECKPOINT_PRIORITY
    return False
