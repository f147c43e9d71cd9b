"""Checkpoints that run a command as they are unpickled, and every place in which one can hide it."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


class Runs:
    """Pickles as a call that makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (exec, (f"open({str(self.mark)!r}, 'w').close()",))


def weights() -> dict[str, torch.Tensor]:
    return {"bbox_head.fc_cls.weight": torch.ones(91, 2), "backbone.conv1.weight": torch.ones(2)}


def checkpoint(**more: Any) -> dict[str, Any]:
    return {"meta": {"mmengine_version": "0.10.7", "epoch": 1, "iter": 2}, "state_dict": weights(), **more}


def _saved(content: Any, **words: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **words)
    return file.getvalue()


def _twice(mark: Path) -> bytes:
    """Return a zip with a second folder that has a pickle, the hostile one."""
    file = io.BytesIO(_saved(checkpoint()))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("second/data.pkl", pickle.dumps(Runs(mark)))
    return file.getvalue()


def _shadowed(mark: Path) -> bytes:
    """Return a zip with two members of one name, the latter hostile."""
    import warnings

    file = io.BytesIO(_saved(checkpoint()))
    with zipfile.ZipFile(file, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        archive.writestr(name, pickle.dumps(Runs(mark)))
    return file.getvalue()


VARIANTS: dict[str, Callable[[Path], bytes]] = {
    "the whole": lambda mark: _saved(Runs(mark)),
    "meta": lambda mark: _saved(checkpoint(meta={"mmcv_version": "1.4.7", "config": Runs(mark)})),
    "optimizer state": lambda mark: _saved(
        checkpoint(optimizer={"state": {0: {"step": Runs(mark)}}, "param_groups": []})
    ),
    "message hub": lambda mark: _saved(checkpoint(message_hub={"log_scalars": OrderedDict(loss=Runs(mark))})),
    "a weight": lambda mark: _saved(checkpoint(state_dict={"a": Runs(mark)})),
    "a key": lambda mark: _saved(checkpoint(state_dict={Runs(mark): torch.ones(1)})),
    "before torch 1.6": lambda mark: _saved(checkpoint(extra=Runs(mark)), _use_new_zipfile_serialization=False),
    "protocol 4": lambda mark: _saved(checkpoint(extra=[Runs(mark)]), pickle_protocol=4),
    "old, protocol 4": lambda mark: _saved(
        checkpoint(extra=Runs(mark)), pickle_protocol=4, _use_new_zipfile_serialization=False
    ),
    "a plain pickle": lambda mark: pickle.dumps(checkpoint(state_dict={}, extra=Runs(mark))),
    "an old plain pickle": lambda mark: pickle.dumps(Runs(mark), protocol=0),
    "a second pickle in the zip": _twice,
    "a second member of its name": _shadowed,
}


def write(kind: str, folder: Path, *, name: str = "model.pth") -> tuple[Path, Path]:
    """Write a hostile file; return it, and the file that would be there if it had been run."""
    mark = folder / "was_run"
    (folder / name).write_bytes(VARIANTS[kind](mark))
    return folder / name, mark


def write_shards(folder: Path) -> tuple[Path, Path]:
    """Write an index whose one shard is hostile; return both as ``write`` does."""
    shard, mark = write("meta", folder, name="model-1.bin")
    index = folder / "model.bin.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(weights(), shard.name)}))
    return index, mark
