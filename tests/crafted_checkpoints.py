"""Crafted checkpoints without end: seeded, each of a kind, in a place, in a container, and perhaps damaged.

``craft(seed)`` is always the same file. The test takes some hundreds, ``benchmarks/crafted_checkpoints.py`` as many
as are asked for.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import random
import struct
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from hostile_checkpoints import weights


@dataclass(frozen=True)
class Crafted:
    """A file to be.

    Attributes:
        name: says what it is, in words.
        suffix: of its name.
    """

    name: str
    suffix: str
    data: bytes


class _Call:
    """Pickles as a call, with a state if one is given."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.value = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.value


def _tuples(times: int) -> Any:
    value: Any = (1,)
    for _ in range(times):
        value = (value, value)
    return value


def _within(times: int, kind: Callable[[Any], Any]) -> Any:
    value: Any = 1
    for _ in range(times):
        value = kind(value)
    return value


def _itself() -> Any:
    value: dict[str, Any] = {}
    value.update(ema=value, state_dict=value)
    return value


def hostile(mark: Path) -> dict[str, Callable[[], Any]]:
    """Return name -> what makes ``mark`` when it is unpickled as Python does."""
    import builtins
    import importlib
    import os
    import subprocess

    line = f"open({str(mark)!r}, 'w').close()"
    inner = pickle.dumps(_Call(exec, line))
    return {
        "exec": lambda: _Call(exec, line),
        "eval": lambda: _Call(eval, line),
        "os.system": lambda: _Call(os.system, f": > '{mark}'"),
        "subprocess": lambda: _Call(subprocess.getoutput, f": > '{mark}'"),
        "open": lambda: _Call(open, str(mark), "w"),
        "touch": lambda: _Call(Path.touch, mark),
        "a pickle in a pickle": lambda: _Call(pickle.loads, inner),
        "torch's own loads": lambda: _Call(torch.storage._load_from_bytes, _bytes(_Call(exec, line))),
        "getattr": lambda: _Call(getattr(builtins, "getattr"), _Call(importlib.import_module, "os"), "system"),  # noqa: B009
        "import": lambda: _Call(importlib.import_module, "this"),
        "an array of calls": lambda: np.array([_Call(exec, line)], dtype=object),
        "a state": lambda: _Call(OrderedDict, state=_Call(exec, line)),
        "arguments": lambda: _Call(OrderedDict, [("a", _Call(exec, line))]),
    }


ODD: dict[str, Callable[[], Any]] = {
    "a long number": lambda: 10**400,
    "a longer number": lambda: -(10**5000),
    "not a number": lambda: float("nan"),
    "infinity": lambda: float("-inf"),
    "a NUL": lambda: "a\0b",
    "half a letter": lambda: "a\ud800b",
    "lines": lambda: "a\nb\r\nc\x1b[31m",
    "a long text": lambda: "x" * 1_000_000,
    "no text": lambda: "",
    "bytes": lambda: b"\x00\xff" * 10,
    "nothing": lambda: None,
    "a set": lambda: {1, "a"},
    "tuples of tuples": lambda: _tuples(16),
    "deep lists": lambda: _within(400, lambda value: [value]),
    "deep dictionaries": lambda: _within(300, lambda value: {"ema": value}),
    "itself": _itself,
    "an empty dictionary": dict,
    "numbers for keys": lambda: {0: torch.ones(1), 1: torch.ones(1)},
    "tuples for keys": lambda: {(1, 2): torch.ones(1)},
    "an array": lambda: np.ones(3),
    "an array of texts": lambda: np.array(["a", "b"]),
    "a scalar": lambda: np.float64(0.5),
    "a configuration too deep": lambda: {"config": "(" * 3000, "mmcv_version": "1.4.7"},
    "a wrong version": lambda: {"mmengine_version": 3, "dataset_meta": [1], "CLASSES": "abc"},
    "a whole layer": lambda: torch.nn.Linear(2, 2),
    "a device": lambda: torch.device("cuda:7"),
    "a type": lambda: torch.float16,
    "a size": lambda: torch.Size([1, 2]),
    "a tensor on meta": lambda: torch.ones(2, device="meta"),
    "a sparse tensor": lambda: torch.ones(2, 2).to_sparse(),
    "a huge view": lambda: torch.ones(1).expand(1 << 20, 1 << 20),
    "a half tensor": lambda: torch.ones(91, 2).half(),
    "a tensor of NaN": lambda: torch.full((91, 2), float("nan")),
    "a complex tensor": lambda: torch.ones(91, dtype=torch.complex64),
    "a tensor of nothing": lambda: torch.ones(0, 3),
    "a tensor without axes": lambda: torch.tensor(1.0),
    "a parameter": lambda: torch.nn.Parameter(torch.ones(91, 2)),
    "a narrow float": lambda: torch.ones(91).to(torch.float8_e5m2),
}


def _checkpoint(**more: Any) -> dict[str, Any]:
    return {"meta": {"mmengine_version": "0.10.7"}, "state_dict": OrderedDict(weights()), **more}


PLACES: dict[str, Callable[[Any], Any]] = {
    "the whole": lambda value: value,
    "meta": lambda value: _checkpoint(meta=value),
    "in meta": lambda value: _checkpoint(meta={"mmcv_version": "1.4.7", "config": value, "CLASSES": value}),
    "classes": lambda value: _checkpoint(meta={"dataset_meta": {"classes": value}}),
    "state_dict": lambda value: _checkpoint(state_dict=value),
    "a weight": lambda value: _checkpoint(state_dict={**weights(), "x": value}),
    "the head": lambda value: _checkpoint(state_dict={**weights(), "bbox_head.fc_cls.weight": value}),
    "model": lambda value: {"model": value},
    "a bare weight": lambda value: {**weights(), "x": value},
    "optimizer": lambda value: _checkpoint(optimizer={"state": {0: {"step": value}}, "param_groups": [value]}),
    "message hub": lambda value: _checkpoint(message_hub={"log_scalars": OrderedDict(loss=value)}),
    "average": lambda value: _checkpoint(ema_state_dict=value),
    "in an average": lambda value: _checkpoint(ema={"module": {**weights(), "x": value}}),
    "left over": lambda value: _checkpoint(parity_left=value),
    "a list": lambda value: [value, value],
    "a key": lambda value: _checkpoint(state_dict=_keyed(value)),
    "a key of all": lambda value: {**_checkpoint(), **_keyed(value)},
}


def _keyed(value: Any) -> dict[Any, Any]:
    try:
        return {value: torch.ones(1)}
    except TypeError:  # it has no hash
        return {"x": value}


def _bytes(content: Any, **words: Any) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(content, file, **words)
    return file.getvalue()


CONTAINERS: dict[str, Callable[[Any], bytes]] = {
    "zip": _bytes,
    "zip, protocol 4": lambda content: _bytes(content, pickle_protocol=4),
    "before torch 1.6": lambda content: _bytes(content, _use_new_zipfile_serialization=False),
    "a plain pickle": lambda content: pickle.dumps(content, protocol=4),
    "safetensors": lambda content: safetensors.torch.save(weights()),
}


def _flipped(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 8])):
        if changed:
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data) + 1)]


def _spliced(data: bytes, draw: random.Random) -> bytes:
    first, second, third = sorted(draw.randrange(len(data) + 1) for _ in range(3))
    return data[:first] + data[second:third] + data[first:]


def _grown(data: bytes, draw: random.Random) -> bytes:
    """Return data with numbers that are sizes, perhaps, made large."""
    place = draw.randrange(max(1, len(data) - 8))
    large = draw.choice([b"\xff" * 4, struct.pack("<q", 1 << 40), struct.pack("<i", -1), b"\x8a\x08" + b"\x7f" * 8])
    return data[:place] + large + data[place + len(large) :]


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "flipped": _flipped,
    "cut": _cut,
    "spliced": _spliced,
    "grown": _grown,
}


def _in_its_pickle(data: bytes, change: Callable[[bytes, random.Random], bytes], draw: random.Random) -> bytes:
    """Return a zip whose pickle is damaged and whose checksums are right: the damage is believed."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, change(content, draw) if name.endswith("data.pkl") else content)
    return file.getvalue()


def craft(seed: int, mark: Path) -> Crafted:
    """Return a file, always the same for a seed; its hostile part makes ``mark`` if it is run."""
    draw = random.Random(seed)
    things = {**hostile(mark), **ODD} if draw.random() < 0.7 else hostile(mark)
    thing, place = draw.choice(sorted(things)), draw.choice(sorted(PLACES))
    container = draw.choice(sorted(CONTAINERS))
    try:
        data = CONTAINERS[container](PLACES[place](things[thing]()))
    except Exception as error:  # what cannot be written so is written as what can
        container, data = f"zip, for {type(error).__name__}", _bytes(_checkpoint())
    damage = draw.choice(["none", "none", *DAMAGES])
    where = "its pickle" if container.startswith("zip") and draw.random() < 0.7 else "the file"
    if damage != "none":
        with contextlib.suppress(zipfile.BadZipFile):
            change = DAMAGES[damage]
            data = _in_its_pickle(data, change, draw) if where == "its pickle" else change(data, draw)
    return Crafted(
        f"{thing} as {place}, {container}; {damage} in {where}", draw.choice([".pth", ".pth.tar", ".bin"]), data
    )
