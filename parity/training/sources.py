"""What a training begins from: said before it starts, and with ``--offline`` never fetched.

Runs in both interpreters.
"""

from __future__ import annotations

import importlib
import json
import os
from typing import Any, Iterator, List, NamedTuple, Tuple
from urllib.parse import urlparse

import torch

from parity.engines.initialisation import is_pretrained
from parity.errors import ParityError

# The function of mmengine.runner.checkpoint and mmcv.runner.checkpoint that knows the addresses of a kind of name.
_TABLES = {
    "torchvision": "get_torchvision_models",
    "modelzoo": "get_torchvision_models",
    "open-mmlab": "get_external_models",
    "openmmlab": "get_external_models",
    "mmcls": "get_mmcls_models",
}


class Source(NamedTuple):
    """A checkpoint that a config names.

    Attributes:
        place: where in the config.
        name: as the config has it.
        address: where it is fetched from; empty for a file, and where that is not known.
        file: where it is kept; empty where that is not known.
    """

    place: str
    name: str
    address: str
    file: str

    @property
    def is_there(self) -> bool:
        """Whether nothing has to be fetched."""
        return bool(self.file) and os.path.isfile(self.file)


def sources_of(config: Any) -> List[Source]:
    """Return every checkpoint that a training on this config reads before its first step."""
    start = config.get("load_from")
    named = [*_named(config.model, "model"), *([("load_from", start)] if start else [])]
    return [_source(place, str(name)) for place, name in named]


def _named(config: Any, path: str) -> Iterator[Tuple[str, str]]:
    """Yield what of a model's config names a checkpoint, and which."""
    if isinstance(config, dict):
        for key, value in config.items():
            if is_pretrained(value):
                yield f"{path}.{key}", value["checkpoint"]
            elif key == "pretrained" and value:
                yield f"{path}.{key}", value
            else:
                yield from _named(value, f"{path}.{key}")
    elif isinstance(config, (list, tuple)):
        for index, value in enumerate(config):
            yield from (
                [(f"{path}.{index}", value["checkpoint"])] if is_pretrained(value) else _named(value, f"{path}.{index}")
            )


def announce(sources: List[Source], *, offline: bool) -> List[str]:
    """Return what to say of the checkpoints, a line each.

    Raises:
        ParityError: one is not there and must not be fetched.
    """
    for source in sources:
        if offline and not source.is_there:
            where = source.file or "a file, and name it there"
            raise ParityError(
                f"--offline: {source.place} begins from {source.name}, which is not here: put"
                f" {source.address or 'it'} at {where}, or --cfg-option {source.place}=None begins without"
            )
    return [f"{source.place} begins from {source.name}: {_state(source)}" for source in sources]


def stay_offline() -> None:
    """Make every download of torch's, which mmcv's and mmengine's go through, end in a ``ParityError``."""

    def refuse(url: str, dst: str, *_: Any, **__: Any) -> None:
        raise ParityError(f"--offline: {url} would be downloaded: put it at {dst}")

    torch.hub.download_url_to_file = refuse


def _state(source: Source) -> str:
    if source.is_there:
        return f"it is here, {source.file}"
    if source.file and not source.address:
        return "there is no such file"
    if not source.address:
        return "where the framework fetches it from is not known here; --offline refuses"
    return f"it will be downloaded from {source.address} to {source.file}; --offline refuses"


def _source(place: str, name: str) -> Source:
    if "://" not in name:
        return Source(place, name, "", os.path.expanduser(name))
    address = _address(name)
    cached = os.path.join(torch.hub.get_dir(), "checkpoints", os.path.basename(urlparse(address).path))
    return Source(place, name, address, cached if address else "")


def _address(name: str) -> str:
    """Return the URL that the framework takes for a name; empty where that cannot be told."""
    if name.startswith(("http://", "https://")):
        return name
    kind, model = name.split("://", 1)
    address = str(_table(_TABLES[kind]).get(model, "")) if kind in _TABLES else ""
    return address if "://" in address else ""


def _table(function: str) -> Any:
    """Return model -> URL, as mmengine or mmcv 1.x has them."""
    for module in ("mmengine.runner.checkpoint", "mmcv.runner.checkpoint"):
        try:
            return getattr(importlib.import_module(module), function)()
        except (ImportError, AttributeError, RuntimeError):  # of another framework, or torchvision is not to be had
            continue
    return {} if function != "get_torchvision_models" else _torchvision_of_mmengine()


def _torchvision_of_mmengine() -> Any:
    try:
        folder = os.path.dirname(importlib.import_module("mmengine").__file__ or "")
        with open(os.path.join(folder, "hub", "torchvision_0.12.json"), encoding="utf-8") as file:
            return json.load(file)
    except (ImportError, OSError, ValueError):
        return {}
