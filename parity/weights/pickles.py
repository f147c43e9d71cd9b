"""Read a ``.pth`` without running what its pickle asks for.

``torch.load(weights_only=True)`` builds tensors and plain containers only. What mmengine and mmcv put beside
the weights is let through by name, and answered with inert stand-ins, so that nothing but a tensor ever
comes out of a checkpoint: neither package need be installed, and numpy's own unpickling is not run.
"""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from parity.errors import ParityError


class Inert:
    """Stands for an object of a checkpoint that is not looked at, such as a log or a scheduler's numpy scalar."""

    def __new__(cls, *args: object) -> Inert:
        """Take what the real class would be made of."""
        return super().__new__(cls)

    def __init__(self, *args: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


class _History(Inert):
    """Stands for mmengine's ``HistoryBuffer``."""


def _attribute(owner: object, name: str) -> Inert:
    """Stand for ``getattr``, which newer mmengine pickles for ``HistoryBuffer.min`` and the like, and nothing else."""
    if owner is not _History:
        raise pickle.UnpicklingError("unsupported GLOBAL builtins.getattr")
    return Inert()


# Found by writing checkpoints with mmcv 1.4.7, mmengine 0.6.0 and mmengine 0.10.7. A configuration is a
# dictionary, and has to be exactly one for the restricted unpickler.
ALLOWED = (
    (Inert, "numpy.core.multiarray._reconstruct"),
    (Inert, "numpy.core.multiarray.scalar"),
    (Inert, "numpy._core.multiarray._reconstruct"),
    (Inert, "numpy._core.multiarray.scalar"),
    (Inert, "numpy.ndarray"),
    (Inert, "numpy.dtype"),
    (_History, "mmengine.logging.history_buffer.HistoryBuffer"),
    (_attribute, "builtins.getattr"),
    (OrderedDict, "mmcv.utils.config.ConfigDict"),
    (OrderedDict, "mmengine.config.config.ConfigDict"),
    (Inert, "mmcv.utils.config.Config"),
    (Inert, "mmengine.config.config.Config"),
)


def load(path: Path, *, trust_pickle: bool = False) -> Any:
    """Return what a ``.pth`` holds, tensors on the CPU.

    Args:
        trust_pickle: run whatever the file's pickle asks for, as Python does.

    Raises:
        ParityError: there is no such file, it is damaged or no checkpoint, or it asks for something that is
            not allowed, which is named.
    """
    try:
        with path.open("rb") as file, torch.serialization.safe_globals(list(ALLOWED)):
            return torch.load(file, map_location="cpu", weights_only=not trust_pickle)
    except OSError as error:
        raise ParityError(f"{path}: {error.strerror or error}") from None
    except pickle.UnpicklingError as error:
        raise ParityError(f"{path}: {_refusal(str(error))}") from None
    except Exception as error:  # whatever a damaged or a trusted pickle comes to
        reason = (str(error).splitlines() or [""])[0]
        raise ParityError(f"{path} is damaged or no checkpoint ({type(error).__name__}: {reason})") from None


def _refusal(message: str) -> str:
    """Return what to tell of a refused pickle, in one line."""
    refused = re.search(r"GLOBAL ([\w.]*\w)(?:\s|$)", message)
    if refused:
        return (
            f"its pickle asks for {refused[1]}, which no checkpoint of mmcv or mmengine needs: refused;"
            " --trust-pickle runs it all the same, which lets the file do whatever it wants"
        )
    reason = next((line.strip() for line in message.splitlines() if "nsupported" in line or "Can only" in line), "")
    return f"its pickle is refused ({reason or 'damaged'}); --trust-pickle runs it, if you know where it comes from"
