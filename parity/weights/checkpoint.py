"""The weights in a checkpoint, whatever wrote it, and a ``.pth`` that mmengine reads.

Layouts: mmengine's and mmcv 1.x's ``{meta, state_dict, …}``, ``{model: …}``, a bare state dict, and safetensors. Where
averaged (EMA) weights lie is each framework's own affair: see ``averages``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from torch import Tensor

from parity.atomic import writing
from parity.errors import ParityError
from parity.text import listed, one_line, shown
from parity.weights import pickles
from parity.weights.averages import LOOKED_AT, Average, averages
from parity.weights.claims import Claim
from parity.weights.kinds import INDEX, SAFETENSORS, kind_of
from parity.weights.layouts import Values, nothing, state_dict, tensors, without_wrapper
from parity.weights.opcodes import Damaged
from parity.weights.remarks import about_averages, about_values
from parity.weights.shards import read_index, read_safetensors

# The version of its names that every module is said to have: the present one, of torch, mmcv and mmdet 2 and 3 alike.
# Without any, their loaders take a state dict for one of an early release and rename its keys (mmdet's AnchorFreeHead
# makes another of every name that holds conv_cls or conv_reg).
PRESENT_VERSION = 2
LEFT = "parity_left"  # where what a conversion left over is kept beside the weights it made
_MOST_TIMES, _AT_LEAST = 16, 1 << 26  # how much more memory than disk the tensors of a file may take


@dataclass(frozen=True)
class Checkpoint:
    """The weights of a file.

    Attributes:
        state: parameter and buffer name -> value on the CPU, contiguous, in memory of its own size.
        origin: which weights these are, in words.
        classes: the class names it was trained on, empty if it does not say.
        left: what the conversion that made the file left over; ``None`` if no conversion made it.
        averages: where the file has averaged (EMA) weights.
        remarks: what else of the file the user has to know, a line each.
    """

    state: dict[str, Tensor]
    origin: str
    classes: tuple[str, ...] = ()
    left: dict[str, Tensor] | None = None
    averages: tuple[str, ...] = ()
    remarks: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class _File:
    """What a file holds, before its tensors are made."""

    content: Any
    make: Callable[[Any], Tensor]
    remarks: tuple[str, ...] = ()
    is_safetensors: bool = False


def read_checkpoint(
    path: Path,
    *,
    ema: bool = False,
    ema_from: str = "",
    trust_pickle: bool = False,
    options: tuple[str, str] = ("--ema", "--trust-pickle"),
) -> Checkpoint:
    """Return the weights in a ``.pth``, a ``.safetensors`` or an index of shards.

    Args:
        ema: the averaged weights, not the trained ones.
        ema_from: which averaged ones, where the file has several; implies ``ema``.
        trust_pickle: run whatever the file's pickle asks for, as Python does.
        options: what messages call the two, where the command at hand has neither.

    Raises:
        ParityError: the file cannot be read, or not without trusting its pickle, holds no state dict, or has no
            averaged weights where they are asked for; the file is named, and what is in it.
    """
    file = _open(path, trust_pickle=trust_pickle, option=options[1])
    layout, part = state_dict(file.content)
    meta = file.content.get("meta") if isinstance(file.content, Mapping) and layout != "bare" else None
    meta = meta if isinstance(meta, Mapping) else {}
    state = without_wrapper(tensors(part, path)) if part is not None else {}
    places = averages(file.content, layout, state, meta) if isinstance(file.content, Mapping) else []
    if part is None and not places:
        raise ParityError(f"{path} holds {nothing(file.content)}")
    chosen = _chosen(places, path, ema_from) if ema or ema_from else None
    values = chosen.averaged if chosen else _trained(places, state, path, option=options[0])
    left = file.content.get(LEFT) if layout != "bare" else None
    made = _made({"": tensors(values, path)} | _left(left, path), file, path)
    return Checkpoint(
        made[""],
        f"{_which(places, chosen)} of {_container(file, layout or (chosen.place if chosen else ''))}",
        _classes(meta),
        made.get(LEFT),
        tuple(average.place for average in places),
        (*about_averages(places, chosen, option=options[0]), *file.remarks, *about_values(made[""])),
    )


def _which(places: list[Average], chosen: Average | None) -> str:
    if chosen:
        return "averaged (EMA) weights"
    return "trained weights, not the averaged (EMA) ones" if places else "weights"


def _container(file: _File, layout: str) -> str:
    return "a safetensors file" if file.is_safetensors else f"a {layout} checkpoint"


def _left(left: Any, path: Path) -> dict[str, Values]:
    return {LEFT: tensors(left, path)} if isinstance(left, Mapping) else {}


def _open(path: Path, *, trust_pickle: bool, option: str, within: bool = False) -> _File:
    """Return what a file holds; a shard (``within``) is no index itself."""
    kind = kind_of(path)
    if kind == INDEX and within:
        raise ParityError(f"{path} is an index of shards where a shard belongs")
    if kind == INDEX:
        return _File(
            read_index(path, read=lambda shard: _shard(shard, trust_pickle=trust_pickle, option=option)),
            _itself,
            is_safetensors=True,
        )
    if kind == SAFETENSORS:
        return _File(read_safetensors(path), _itself, is_safetensors=True)
    if trust_pickle:
        return _File(pickles.load_trusted(path), _itself)
    content = pickles.load(path, kind=kind, option=option)
    remarks = () if content.checked else ("the file has no checksums: a damaged byte in it could not be noticed",)
    return _File(content.value, content.read, remarks)


def _itself(value: Tensor) -> Tensor:
    return value.detach()


def _shard(path: Path, *, trust_pickle: bool, option: str) -> Values:
    file = _open(path, trust_pickle=trust_pickle, option=option, within=True)
    _, part = state_dict(file.content)
    if part is None:
        raise ParityError(f"{path} holds {nothing(file.content)}")
    return dict(_made({"": tensors(part, path)}, file, path)[""])


def _made(parts: Mapping[str, Values], file: _File, path: Path) -> dict[str, dict[str, Tensor]]:
    """Make the tensors of the parts of a file that are wanted.

    Raises:
        ParityError: a tensor does not fit its storage, or all of them do not fit the file.
    """
    claims = [value for part in parts.values() for value in part.values() if isinstance(value, Claim)]
    wanted, size = sum(claim.bytes for claim in claims), path.stat().st_size
    if wanted > _MOST_TIMES * size + _AT_LEAST:
        raise ParityError(f"{path}: its tensors take {wanted:,} bytes of memory, the file only {size:,}: refused")
    try:
        return {key: {name: _own(file.make(value)) for name, value in part.items()} for key, part in parts.items()}
    except (Damaged, BadZipFile, RuntimeError, ValueError, TypeError, EOFError) as error:
        raise ParityError(f"{path} is damaged: {one_line(str(error), most=200)}") from None
    except MemoryError:
        raise ParityError(f"{path} takes more memory than there is") from None
    except OSError as error:
        raise ParityError(f"{path}: {error.strerror or error}") from None


def _own(value: Tensor) -> Tensor:
    """Return a tensor that keeps no more memory alive than it needs."""
    whole = value.numel() * value.element_size() == value.untyped_storage().nbytes() and value.is_contiguous()
    return value if whole else value.contiguous().clone()


def _trained(places: Iterable[Average], state: Values, path: Path, *, option: str) -> Values:
    """Return the trained weights, which mmengine and mmcv may keep where others keep the average."""
    for average in places:
        if average.trained.keys() != state.keys() or any(average.trained[name] is not state[name] for name in state):
            _expect_same_names(average, path)
            return average.trained
    if not state:
        names = " and ".join(average.place for average in places)
        raise ParityError(f"{path} holds averaged (EMA) weights only, in {shown(names)[1:-1]}: {option} takes them")
    return state


def _chosen(places: list[Average], path: Path, ema_from: str) -> Average:
    if not places:
        raise ParityError(f"{path} holds no averaged (EMA) weights: leave --ema away; looked at {LOOKED_AT}")
    named = [average for average in places if average.place == ema_from] if ema_from else places
    if not named:
        having = listed([average.place for average in places], most=8)
        raise ParityError(f"{path} holds no averaged (EMA) weights in {shown(ema_from)}: they are in {having}")
    _expect_same_names(named[0], path)
    return named[0]


def _expect_same_names(average: Average, path: Path) -> None:
    if average.odd:
        both = f"state_dict and {shown(average.place)[1:-1]}"
        raise ParityError(f"{path}: {both} differ in {len(average.odd)} names {listed(average.odd)}")


def _classes(meta: Mapping[str, Any]) -> tuple[str, ...]:
    described = meta.get("dataset_meta")
    places = [described if isinstance(described, Mapping) else {}, meta]
    for place in places:
        for key in ("classes", "CLASSES"):
            if isinstance(place.get(key), (tuple, list)) and all(isinstance(name, str) for name in place[key]):
                return tuple(place[key])
    return ()


def write_checkpoint(
    path: Path, state: Mapping[str, Tensor], *, source: Path, meta: Mapping[str, Any], left: Mapping[str, Tensor] | None
) -> None:
    """Write weights in mmengine's layout, whole or not at all; see ``unfinished_checkpoint``."""
    with unfinished_checkpoint(path, state, source=source, meta=meta, left=left) as part:
        part.replace(path)


@contextmanager
def unfinished_checkpoint(
    path: Path, state: Mapping[str, Tensor], *, source: Path, meta: Mapping[str, Any], left: Mapping[str, Tensor] | None
) -> Iterator[Path]:
    """Yield a hidden file beside ``path`` with weights in mmengine's layout; it has to be renamed, or is gone.

    The file holds tensors and plain values only: mmengine, mmcv and ``torch.load(weights_only=True)`` read it.

    Args:
        source: the file the weights came from, which is never written.
        left: what the conversion left over, kept so that it can be reversed; ``None`` for a reversed one.

    Raises:
        ParityError: ``path`` is the source, or cannot be written.
    """
    if path.exists() and path.samefile(source):
        raise ParityError(f"{path} is the input itself: name another output")
    content = {"meta": dict(meta), "state_dict": _versioned(state)}
    if left is not None:
        content[LEFT] = dict(left)
    try:
        with writing(path) as (part, file):
            torch.save(content, file)
            file.flush()
            yield part
    except (OSError, RuntimeError) as error:
        raise ParityError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}") from None


def _versioned(state: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """Return a state dict that says, as ``Module.state_dict`` does, of which version each module's names are."""
    modules = {"": None}
    for name in state:
        parts = name.split(".")[:-1]
        modules.update({".".join(parts[: i + 1]): None for i in range(len(parts))})
    versioned = OrderedDict(state)
    versioned._metadata = OrderedDict((module, {"version": PRESENT_VERSION}) for module in modules)  # type: ignore[attr-defined]
    return versioned
