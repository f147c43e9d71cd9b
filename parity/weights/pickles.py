"""Read a ``.pth`` without running what its pickle asks for.

The pickle is read as data by ``opcodes``, with ``claims`` as the table of what mmengine, mmcv and torch put into
checkpoints; neither package need be installed, no function of torch or numpy is called by it, and what other packages
have registered for ``torch.load`` makes no difference.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from parity.errors import ParityError
from parity.text import one_line, shown
from parity.weights.archive import Content, read_old, read_zip
from parity.weights.claims import TABLE
from parity.weights.kinds import OLD, PICKLE, ZIP
from parity.weights.opcodes import Damaged, RefusedName, described, read_pickle

_READERS: dict[str, Callable[[Path], Content]] = {ZIP: read_zip, OLD: read_old}


def load(path: Path, *, kind: str, option: str = "--trust-pickle") -> Content:
    """Return what a file of torch's holds, nothing run.

    Args:
        kind: ``ZIP``, ``OLD`` or ``PICKLE``, as ``kind_of`` says.
        option: what would run the pickle, as the message calls it; empty where nothing does.

    Raises:
        ParityError: it is damaged or no checkpoint, or it asks for something that is not in the table, which is named.
    """
    try:
        if kind == PICKLE:
            raise ParityError(f"{path} is no checkpoint but a pickle that torch.save did not write, {_plain(path)}")
        return _READERS[kind](path)
    except RefusedName as error:
        raise ParityError(f"{path}: {_refusal(str(error), option)}") from None
    except Damaged as error:
        raise ParityError(f"{path} is damaged or no checkpoint: {one_line(str(error))}") from None
    except MemoryError:
        raise ParityError(f"{path} takes more memory than there is") from None
    except OSError as error:
        raise ParityError(f"{path}: {error.strerror or error}") from None


def load_trusted(path: Path) -> Any:
    """Return what a ``.pth`` holds, tensors on the CPU; whatever its pickle asks for is run, as Python does.

    Raises:
        ParityError: that failed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # whatever a pickle that is run comes to
        reason = one_line(str(error), most=200)
        raise ParityError(f"{path} is damaged or no checkpoint ({type(error).__name__}: {reason})") from None


def _plain(path: Path) -> str:
    def none(_: Any) -> Any:
        raise Damaged("a storage outside of torch's own file")

    with path.open("rb") as file:
        value = read_pickle(file, table=TABLE, persistent=none)
    keys = ", ".join(shown(key) for key in value if isinstance(key, str)) if isinstance(value, dict) else ""
    return one_line(f"a {described(value)}{f' with {keys}' if keys else ''}", most=200)


def _refusal(name: str, option: str) -> str:
    """Return what to say of a refused pickle, in one line."""
    text = shown(name)[1:-1]
    if not option:
        return f"its pickle asks for {text}, which no checkpoint of mmcv or mmengine needs: refused"
    if name.startswith("torch.nn.modules.") or ".models." in name:
        return (
            f"its pickle asks for {text}: a whole pickled model, whose code would be run, not its weights; save its"
            f" state_dict() instead, or {option} runs it, which lets the file do whatever it wants"
        )
    return (
        f"its pickle asks for {text}, which no checkpoint of mmcv or mmengine needs: refused;"
        f" {option} runs it all the same, which lets the file do whatever it wants"
    )
