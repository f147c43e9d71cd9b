"""What the user says of full-val AP: the file ``full_ap.toml``, and the options that win over it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parity.cases.registry import all_cases, find_case, nearest
from parity.engines.session import ENGINES, engine_class
from parity.errors import DAMAGE, ParityError

FILE = "full_ap.toml"
_TABLES = ("checkpoints", "ap", "legacy")


@dataclass(frozen=True)
class Settings:
    """Where everything is.

    Attributes:
        coco: root of COCO, laid out as mmdet expects.
        folder: where predictions go.
        checkpoints: case -> the legacy engine's ``.pth``.
        reported: case -> AP to expect, where it is not the case's own.
        roots, pythons: engine -> checkout, and interpreter.
        gpus: how many; 0 is the CPU.
        processes: how many on the CPU.
    """

    coco: Path = Path("data/coco")
    folder: Path = Path("reports/ap")
    checkpoints: Mapping[str, Path] = field(default_factory=dict)
    reported: Mapping[str, float] = field(default_factory=dict)
    roots: Mapping[str, str] = field(default_factory=dict)
    pythons: Mapping[str, str] = field(default_factory=dict)
    gpus: int = 0
    processes: int = 1
    time_limit: float = 900.0

    def root(self, engine: str) -> str:
        """Return the checkout for an engine, or nothing where none is known that fits."""
        return next((root for root in (self.roots.get(engine), self.roots.get("")) if fits(engine, root)), "") or ""


def read_settings(
    *,
    file: Path | None = None,
    checkpoints: Sequence[str] = (),
    legacy_root: str | None = None,
    legacy_python: str | None = None,
    **others: Any,
) -> Settings:
    """Return the settings of the file and of the options; an option that is ``None`` was not given.

    Args:
        file: a settings file; by default ``full_ap.toml`` in the current folder, or the one beside this package.
        checkpoints: ``CASE=FILE``, as given.

    Raises:
        ParityError: the file cannot be read, or names what there is not.
    """
    path = file or _default_file()
    said = _read(path) if path else {}
    where = path.parent if path else Path()
    listed = {case: where / Path(name).expanduser() for case, name in said.get("checkpoints", {}).items()}
    roots = {engine: str(where / one["root"]) for engine, one in said.get("legacy", {}).items() if one.get("root")}
    pythons = {engine: one["python"] for engine, one in said.get("legacy", {}).items() if one.get("python")}
    if legacy_root:  # it is the checkout of one engine; the other one keeps what the file says
        roots = {engine: root for engine, root in roots.items() if not fits(engine, legacy_root)} | {"": legacy_root}
    if legacy_python:
        pythons = dict.fromkeys(_served(legacy_root), legacy_python) | {
            engine: python for engine, python in pythons.items() if engine not in _served(legacy_root)
        }
    return Settings(
        checkpoints=listed | dict(map(_checkpoint, checkpoints)),
        reported=said.get("ap", {}),
        roots=roots,
        pythons=pythons,
        **{name: value for name, value in others.items() if value is not None},
    )


def legacy_engines() -> list[str]:
    """Return the engines that have an interpreter of their own."""
    return [engine for engine in ENGINES if not engine_class(engine).runs_here]


def fits(engine: str, root: str | None) -> bool:
    """Return whether a folder is for an engine: its checkout, or for one that runs none, nobody's checkout."""
    if not root:
        return False
    owners = [name for name in legacy_engines() if _holds(root, engine_class(name).checkout_file)]
    return engine in owners if engine_class(engine).checkout_file else not owners


def _holds(root: str, file: str) -> bool:
    return bool(file) and (Path(root) / file).is_file()


def _served(root: str | None) -> list[str]:
    """Return the engines that ``--legacy-python`` is meant for: those that ``--legacy-root`` fits."""
    return [engine for engine in legacy_engines() if fits(engine, root)] if root else legacy_engines()


def _default_file() -> Path | None:
    beside = Path(__file__).resolve().parents[2] / FILE
    return next((path for path in (Path(FILE), beside) if path.is_file()), None)


def _read(path: Path) -> dict[str, Any]:
    try:
        said = tomllib.loads(path.read_text())
    except DAMAGE as error:
        raise ParityError(f"{path} cannot be read: {error}") from None
    for table, entries in said.items():
        if table not in _TABLES:
            raise ParityError(f"{path} has {table!r}{nearest(table, _TABLES)}; it may have {', '.join(_TABLES)}")
        if not isinstance(entries, dict):
            raise ParityError(f"{path}: {table} is a table; begin it with a line [{table}]")
        known = legacy_engines() if table == "legacy" else list(all_cases())
        for name, value in entries.items():
            if name not in known:
                raise ParityError(f"{path}, {table}: there is no {name!r}{nearest(name, known)}")
            kind = {"checkpoints": str, "ap": int | float, "legacy": dict}[table]
            if not isinstance(value, kind) or isinstance(value, bool) or not _are_words(value):
                raise ParityError(f"{path}, {table}.{name}: {value!r} is not what belongs there")
    return said


def _are_words(value: object) -> bool:
    """Return whether a table of an engine has nothing but its root and its interpreter; all else is no table."""
    if not isinstance(value, dict):
        return True
    return value.keys() <= {"root", "python"} and all(isinstance(word, str) for word in value.values())


def _checkpoint(text: str) -> tuple[str, Path]:
    case, equals, name = text.partition("=")
    if not (equals and name):
        raise ParityError(f"--checkpoint {text}: it is CASE=FILE, such as ddq_fcn_r50_12e=ddq_fcn.pth")
    return find_case(case).id, Path(name).expanduser()
