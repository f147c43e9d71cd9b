"""Weights in safetensors: one file, or several with an index that says which holds what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from parity.errors import ParityError
from parity.text import listed, one_line, shown
from parity.weights.kinds import read_json

Read = Callable[[Path], Mapping[str, Tensor]]


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of one file.

    Raises:
        ParityError: it is damaged; it is named.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
    except OSError as error:
        raise ParityError(f"{path}: {error.strerror or one_line(str(error))}") from None
    except (SafetensorError, ValueError, KeyError, RuntimeError, MemoryError, TypeError, AttributeError) as error:
        raise ParityError(f"{path} is a damaged safetensors file: {one_line(str(error), most=200)}") from None


def read_index(path: Path, *, read: Read) -> dict[str, Tensor]:
    """Return the tensors that an index of shards names.

    Args:
        read: returns the tensors of a shard.

    Raises:
        ParityError: the index or a shard is wrong; which is named.
    """
    names: Mapping[str, object] = read_json(path)["weight_map"]
    shards: dict[str, dict[str, None]] = {}
    for name, shard in names.items():
        if not isinstance(shard, str) or not shard or Path(shard).name != shard or shard == path.name or "\0" in shard:
            raise ParityError(f"{path}: the shard of {shown(name)} is no name of a file beside it")
        shards.setdefault(shard, {})[name] = None
    state: dict[str, Tensor] = {}
    for shard, wanted in shards.items():
        tensors = _shard(path, shard, read)
        if wanted.keys() != tensors.keys():
            odd = wanted.keys() ^ tensors.keys()
            raise ParityError(f"{path} and its shard {shard} differ in {len(odd)} names {listed(odd)}")
        state.update(tensors)
    return {name: state[name] for name in names}


def _shard(path: Path, shard: str, read: Read) -> Mapping[str, Tensor]:
    place = path.with_name(shard)
    if not place.is_file():
        raise ParityError(f"{path}: its shard {shown(shard)} is not beside it")
    return read(place)
