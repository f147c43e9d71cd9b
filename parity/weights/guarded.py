"""``torch.load`` for code that is not ours: makes what mmengine and mmcv keep in checkpoints, runs nothing.

Runs in both interpreters. Since 2.6 torch reads tensors only, by itself; what the frameworks put beside them is
allowed by name, for the time of a load. Before, torch only knew how to unpickle: there the names are looked up in the
same list, and whatever is not in it is refused.
"""

from __future__ import annotations

import contextlib
import importlib
import pickle
import re
import types
import warnings
from collections import OrderedDict
from typing import Any, Callable, Dict, Iterator, List

import numpy as np
import torch

from parity.errors import ParityError

_TORCH = (
    ["torch._utils.%s" % name for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")]
    + ["torch.%s" % name for name in ("Size", "device")]
    + ["torch.%s" % name for name, value in sorted(vars(torch).items()) if isinstance(value, torch.dtype)]
    + ["torch.%sStorage" % kind for kind in ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char")]
    + ["torch.%sStorage" % kind for kind in ("Byte", "Bool", "ComplexDouble", "ComplexFloat")]
)
_PLAIN = [
    "collections.OrderedDict",
    "collections.Counter",
    "collections.defaultdict",
    "builtins.set",
    "builtins.frozenset",
    "builtins.complex",
    "builtins.list",
    "builtins.dict",
    "datetime.datetime",
    "datetime.date",
    "datetime.timedelta",
    "argparse.Namespace",
    "numpy.ndarray",
    "numpy.dtype",
]
_ARRAYS = ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
_FRAMEWORKS = ["mmengine.logging.history_buffer.HistoryBuffer", "torch.torch_version.TorchVersion"]
# A configuration is a dictionary, and has to be exactly one for torch's restricted unpickler.
_CONFIGS = ["mmcv.utils.config.ConfigDict", "mmengine.config.config.ConfigDict"]
_DTYPES = "?bhilqBHILQefdg"  # numpy's numbers; nothing that holds objects

_plain_load = torch.load


def install() -> None:
    """Make ``torch.load`` the guarded one in this process, for whoever calls it."""
    torch.load = torch.serialization.load = load


def load(f: Any, map_location: Any = None, *_: Any, **__: Any) -> Any:
    """Return what a checkpoint holds, as ``torch.load`` does; other arguments make no difference.

    Raises:
        ParityError: it asks for something that no checkpoint needs; the file is named, and nothing of it has been run.
    """
    try:
        if hasattr(torch.serialization, "clear_safe_globals"):
            with _exactly(_allowed()), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that a program of TorchScript is none, which is then an error
                return _plain_load(f, map_location=map_location, weights_only=True)
        with _no_programs():
            return _plain_load(f, map_location=map_location, pickle_module=_restricted(_allowed()))
    except (pickle.UnpicklingError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "TorchScript" not in str(error):
            raise
        raise ParityError("%s: %s" % (_name(f), _refusal(str(error)))) from None


def _name(f: Any) -> str:
    return str(f) if isinstance(f, str) or hasattr(f, "__fspath__") else str(getattr(f, "name", "a checkpoint"))


def _refusal(message: str) -> str:
    asked = re.search(r"GLOBAL ([\w.]*\w)(?:\s|$)", message)
    if asked:
        return "its pickle asks for %s, which no checkpoint of mmcv or mmengine needs: refused" % asked[1]
    telling = [line.strip() for line in message.splitlines() if re.search("nsupported|Can only|TorchScript", line)]
    return "its pickle is refused (%s)" % (telling or ["damaged"])[0][:200]


def _allowed() -> Dict[str, Any]:
    """Return full name -> what it is, of all that a checkpoint may ask for."""
    names = {name: _imported(name) for name in (*_TORCH, *_PLAIN, *_FRAMEWORKS)}
    for core in ("core", "_core"):  # numpy 2 has renamed it, and reads what numpy 1 wrote
        for name in _ARRAYS:
            names["numpy.%s.%s" % (core, name)] = _imported("numpy._core." + name) or _imported("numpy.core." + name)
    names.update(dict.fromkeys(_CONFIGS, OrderedDict))
    names["_codecs.encode"] = _latin_1
    names["builtins.getattr"] = _method
    for code in _DTYPES:
        kind = type(np.dtype(code))
        names["%s.%s" % (kind.__module__, kind.__name__)] = kind
    return {name: value for name, value in names.items() if value is not None}


def _imported(full_name: str) -> Any:
    module, _, name = full_name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None


def _latin_1(text: str, encoding: str = "latin1") -> bytes:
    """Stand for ``codecs.encode``, by which Python pickles bytes in protocol 2; no other encoding is needed."""
    if encoding != "latin1":
        raise pickle.UnpicklingError("unsupported GLOBAL _codecs.encode")
    return text.encode("latin1")


def _method(owner: Any, name: str) -> Any:
    """Stand for ``getattr``, by which newer mmengine pickles ``HistoryBuffer.min`` and the like; for nothing else."""
    kind = _imported("mmengine.logging.history_buffer.HistoryBuffer")
    method = vars(kind).get(name) if kind is not None and owner is kind and not name.startswith("_") else None
    if not isinstance(method, types.FunctionType):
        raise pickle.UnpicklingError("unsupported GLOBAL builtins.getattr")
    return method


@contextlib.contextmanager
def _exactly(allowed: Dict[str, Any]) -> Iterator[None]:
    """Allow these names and no others while the block runs, whatever other packages have registered."""
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals([(value, name) for name, value in allowed.items()])
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _restricted(allowed: Dict[str, Any]) -> Any:
    """Return a stand-in for the module ``pickle`` whose unpickler knows these names only."""

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            full = ("%s.%s" % (module, name)).replace("__builtin__.", "builtins.", 1)
            if full not in allowed:
                raise pickle.UnpicklingError("unsupported GLOBAL %s" % full)
            return allowed[full]

    def read(file: Any, **words: Any) -> Any:
        return Unpickler(file, **words).load()

    module = types.ModuleType("restricted_pickle")
    members: Dict[str, Any] = {"Unpickler": Unpickler, "load": read, "UnpicklingError": pickle.UnpicklingError}
    module.__dict__.update(members)
    return module


@contextlib.contextmanager
def _no_programs() -> Iterator[None]:
    """Refuse a TorchScript program, which old torch would load, and in part run, in place of a checkpoint."""
    is_program: Callable[[Any], bool] = torch.serialization._is_torchscript_zip

    def refuse(archive: Any) -> bool:
        names: List[str] = archive.get_all_records()
        if any(name.split("/")[-1] == "constants.pkl" or name.startswith("code/") for name in names):
            raise pickle.UnpicklingError("a TorchScript program")
        return False

    torch.serialization._is_torchscript_zip = refuse
    try:
        yield
    finally:
        torch.serialization._is_torchscript_zip = is_program
