"""What a manifest may say: one typed schema, decoded as a whole. What it does not know is refused, not passed over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from parity.cases.base import MOST_RANKS
from parity.compare.budgets import Noise
from parity.text import shown

# The greatest share of a tensor's size that its float32 noise may be. Of all committed records the greatest is 0.1 %;
# beyond this a float32 check would let pass whatever it is given.
LARGEST_NOISE = 0.05
MOST_LETTERS = 255  # of a name; the longest committed one has 120

_OTHER_HALVES = {"samples": ("projections", "sketch"), "projections": ("samples",)}

Figure = Annotated[float, msgspec.Meta(ge=0.0)]
Extent = Annotated[int, msgspec.Meta(ge=0, le=2**40)]
Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Mode = Literal["isolated", "cascade"]
Role = Annotated[str, msgspec.Meta(pattern="^(output|input|decision|image|annotations|noise|unpromoted( but .+)?)$")]
DType = Literal["float64", "float32", "int64", "int32", "bool", "uint8"]


class _NoiseFigures(msgspec.Struct, forbid_unknown_fields=True):
    max: Figure
    rms: Figure


class _Tensor(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    stage: str
    role: Role
    kind: Literal["whole", "samples", "projections", "sketch"]
    modes: tuple[Mode, ...]
    file: str
    shape: tuple[Extent, ...]
    of_shape: tuple[Extent, ...]
    dtype: DType
    meaning: str
    unit: str
    sha256: Digest
    max: Figure
    rms: Figure
    noise: dict[Mode, _NoiseFigures]
    rows: str = ""


class _Decision(msgspec.Struct):
    kind: Literal["nms", "topk", "sort", "assignment", "threshold"]
    stage: str
    settings: dict[str, float]
    size: Extent
    ordered: bool = True
    smallest_score_margin: float | None = None
    smallest_iou_margin: float | None = None


class _Batch(msgspec.Struct):
    seed: int = 0
    scale: tuple[Extent, Extent] = (0, 0)
    steps: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1
    per_step: Extent = 0
    ranks: Annotated[int, msgspec.Meta(ge=1, le=MOST_RANKS)] = 1


class _Weights(msgspec.Struct):
    sha256: Digest | None = None
    seed: int = 0
    shapes: dict[str, tuple[Extent, ...]] = {}
    constants: dict[str, str] = {}


class Manifest(msgspec.Struct):
    """A manifest of schema 1; parts that are not named here are free."""

    case: str
    record: str
    engines: dict[str, dict[str, Any]]
    batch: _Batch
    weights: _Weights
    decisions: dict[str, _Decision]
    islands: list[tuple[str, str, int]]
    tensors: dict[str, _Tensor]
    kind: str = ""
    rows: dict[str, list[str]] = {}
    checks: dict[str, list[str]] = {}


def require_schema(content: bytes) -> Manifest:
    """Return a manifest's bytes as what they say.

    Raises:
        ValueError: something in it is unknown, missing, of another type, or cannot be; says what and where.
    """
    manifest = msgspec.json.decode(content, type=Manifest)
    _require_names(manifest)
    _require_halves(manifest.tensors)
    stages = manifest.checks.get("stages")
    for name, decision in manifest.decisions.items():
        if stages and decision.stage not in stages:  # of a stage that it is not for, a record keeps the choice alone
            continue
        for part in ("scores", "chosen"):
            if f"{name}/{part}" not in manifest.tensors:
                raise ValueError(f"decision {name} has no {part}")
    for key, entry in manifest.tensors.items():
        for mode, noise in entry.noise.items():
            _require_small(key, mode, Noise(noise.max, noise.rms), of=Noise(entry.max, entry.rms))
    return manifest


def _require_names(manifest: Manifest) -> None:
    """Raise ``ValueError`` where a name is longer than a line or does not print: messages are made of names."""
    names = [manifest.case, manifest.record, *manifest.decisions]
    for key, entry in manifest.tensors.items():
        names += [key, entry.name, entry.stage, entry.file]
    for name in names:
        if len(name) > MOST_LETTERS or not name.isprintable():
            raise ValueError(f"{shown(name)} is no name")


def _require_halves(tensors: Mapping[str, _Tensor]) -> None:
    """Raise ``ValueError`` where of a digested output only a part is there.

    Samples are read by people; what sees every element are the projections, or in a small record the sketch.
    """
    for key, entry in tensors.items():
        others = _OTHER_HALVES.get(entry.kind, ()) if entry.role == "output" else ()
        if others and not any(f"{key.removesuffix(entry.kind)}{other}" in tensors for other in others):
            raise ValueError(f"{key} is there without its {others[0]}")


def _require_small(key: str, mode: str, noise: Noise, *, of: Noise) -> None:
    if (of.max and noise.max > LARGEST_NOISE * of.max) or (of.rms and noise.rms > LARGEST_NOISE * of.rms):
        share = max(noise.max / of.max if of.max else 0.0, noise.rms / of.rms if of.rms else 0.0)
        raise ValueError(
            f"the {mode} float32 noise of {key} is {share:.1%} of its size, and more than {LARGEST_NOISE:.0%} judges"
            " nothing"
        )
