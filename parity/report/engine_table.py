"""Both engines' versions side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from parity.report.order import unique

ENGINE_WORDS = {
    "python": "Python",
    "blas": "BLAS",
    "cpu": "CPU",
    "cv2": "OpenCV",
    "cuda": "CUDA",
    "vector_instructions": "vector instructions",
}
_ROWS = ("python", "torch", "mmcv", "mmdet", "mmengine", "numpy", "cv2", "blas", "cpu")


@dataclass(frozen=True)
class Engines:
    """A table of both engines' versions: rows of (what, legacy, new, whether both are known and differ)."""

    records: Sequence[str]
    legacy: str
    new: str
    rows: Sequence[tuple[str, str, str, bool]]


def engines(environment: Mapping[str, Any]) -> list[Engines]:
    """Return a table for every legacy environment among the records; usually that is one."""
    new = _plain(environment.get("new"))
    legacies: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for record, both in _mapping(environment.get("records")).items():
        legacy = _plain(_mapping(both).get("legacy"))
        legacy.pop("sandbox", None)  # no number depends on it
        legacies.setdefault(tuple(legacy.items()), []).append(str(record))
    return [_table(records, dict(legacy), new) for legacy, records in (legacies or {(): []}).items()]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _plain(value: Any) -> dict[str, str]:
    return {str(key): str(inner) for key, inner in sorted(_mapping(value).items())}


def _table(records: Sequence[str], legacy: Mapping[str, str], new: Mapping[str, str]) -> Engines:
    keys = [key for key in unique([*_ROWS, *legacy, *new]) if key != "engine" and (key in legacy or key in new)]
    rows = [(ENGINE_WORDS.get(key, key), legacy.get(key, ""), new.get(key, "")) for key in keys]
    marked = [(what, old, now, bool(old and now and old != now)) for what, old, now in rows]
    return Engines(records, legacy.get("engine", ""), new.get("engine", ""), marked)
