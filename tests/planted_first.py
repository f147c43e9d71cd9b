"""Plant a bug in a process that has not imported the engine, take it back, and say what is left of it.

Whoever imports the engine's modules while a bug stands may keep it: by a name that was imported, in a registry, as a
default. So each bug is planted in a process of its own, forked from one that has torch and the mutants but no engine;
inside the block the engine is imported, after it everything that the engine's packages hold is described. A process
without a bug gives the description to compare with.
"""

from __future__ import annotations

import enum
import hashlib
import json
import os
import sys
import types
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

from parity.mutants.base import Mutant

PACKAGES = ("mmcv", "mmdet", "mmengine", "parity", "torch", "torchvision")
ENGINE = ("mmcv.ops", "mmdet.models", "mmdet.datasets", "mmdet.engine", "parity.ports", "parity.engines.mmdet3")

Description = dict[str, str]


def import_engine() -> None:
    """Import all that a detector of the new engine is made of."""
    import importlib

    for module in ENGINE:
        importlib.import_module(module)
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=False)


def described() -> Description:
    """Return ``module.name`` -> what stands there, for every name of the engine's packages and of torch."""
    found: Description = {}
    for module_name, module in sorted(sys.modules.items()):
        package = module_name.split(".")[0]
        if type(module) is not types.ModuleType or package not in PACKAGES or module_name.startswith("parity.mutants"):
            continue
        for name, value in list(vars(module).items()):
            if not name.startswith("__"):
                found.update(_of_value(f"{module_name}.{name}", value, module_name))
    return found


def _of_value(where: str, value: Any, module: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, type):
        if value.__module__ == module and not issubclass(value, enum.Enum):
            for name, member in list(vars(value).items()):
                if isinstance(member, (staticmethod, classmethod)):
                    member = member.__func__
                yield f"{where}.{name}", _text(member)
    elif type(value).__name__ == "Registry":
        yield where, str(sorted((name, _place(kind)) for name, kind in value.module_dict.items()))
    else:
        yield where, _text(value)


def _text(value: Any) -> str:
    """Return what a value is, alike in all processes; a function by its code, defaults and closure."""
    if isinstance(value, property):
        return f"property {_text(value.fget)} {_text(value.fset)}"
    if isinstance(value, types.FunctionType):
        inner = [_cell(cell) for cell in value.__closure__ or ()]
        return f"function {_place(value)} {_code(value.__code__)} {_plain(value.__defaults__)} {inner}"
    if isinstance(value, types.ModuleType):  # torch.classes has an answer to any attribute: nothing is asked of it
        return f"module {vars(value).get('__name__')}"
    if isinstance(value, types.BuiltinFunctionType):
        return f"built-in {_place(value)}"
    return _plain(value)


def _cell(cell: Any) -> str:
    try:
        content = cell.cell_contents
    except ValueError:
        return "empty"
    return f"function {_code(content.__code__)}" if isinstance(content, types.FunctionType) else _plain(content)


def _plain(value: Any) -> str:
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    if isinstance(value, (tuple, list)) and len(value) < 100:
        return f"{type(value).__name__}[{', '.join(map(_plain, value))}]"
    if isinstance(value, (type, types.FunctionType)):
        return _place(value)
    return type(value).__name__


def _place(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', getattr(value, '__name__', ''))}"


def _code(code: types.CodeType) -> str:
    inner = [_code(each) if isinstance(each, types.CodeType) else repr(type(each)) for each in code.co_consts]
    plain = [each for each in code.co_consts if isinstance(each, (bool, int, float, str))]
    raw = repr((code.co_code, code.co_names, code.co_varnames, inner, plain))
    return f"{code.co_name}:{hashlib.sha256(raw.encode()).hexdigest()[:16]}"


def description_after(mutant: Mutant | None) -> Description:
    """Return what stands in a forked process in which a bug was planted first and taken back; see the module text.

    Raises:
        RuntimeError: the process failed; says how.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            warnings.simplefilter("ignore")
            with mutant.apply() if mutant is not None else nullcontext():
                import_engine()
            with os.fdopen(writer, "w") as out:
                json.dump(described(), out)
            status = 0
        except BaseException as error:
            os.write(2, f"{mutant.id if mutant else 'no bug'}: {type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as content:
        text = content.read()
    if os.waitpid(child, 0)[1]:
        raise RuntimeError(f"{mutant.id if mutant else 'no bug'}: the process failed; its line stands above")
    return dict(json.loads(text))


def left_behind(expected: Mapping[str, str], actual: Mapping[str, str]) -> list[str]:
    """Return the names at which a process holds something else than is expected, sorted."""
    return sorted(name for name in expected if expected[name] != actual.get(name))


def left_behind_by(mutants: list[Mutant], *, jobs: int = 1) -> Iterator[tuple[Mutant, list[str]]]:
    """Yield each bug with the names at which something is left of it, ``jobs`` processes at a time."""
    once, again = description_after(None), description_after(None)
    clean = {name: text for name, text in once.items() if again.get(name) == text}  # torch makes keys at random
    with ThreadPoolExecutor(jobs) as pool:
        for mutant, actual in zip(mutants, pool.map(description_after, mutants), strict=True):
            yield mutant, left_behind(clean, actual)
