"""What a record is of and which comparisons it is for: its manifest says so, read here without torch.

Records of earlier versions do not say it; their names do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from parity.cases.base import CASCADE as CASCADE
from parity.cases.base import ISOLATED as ISOLATED
from parity.cases.base import MODES as MODES
from parity.cases.base import TRAJECTORY, Batch, Case, TrainingBatch
from parity.errors import ParityError
from parity.records.listing import MANIFEST, require_listed
from parity.text import shown

if TYPE_CHECKING:  # collection must not wait for torch
    from torch import Tensor

DTYPES = ("fp64", "fp32")

INFERENCE, TRAINING, RECIPE = "inference", "training", "recipe"  # kinds; a trajectory's is the name of its stage
KINDS = (INFERENCE, TRAINING, TRAJECTORY, RECIPE)

# How records are named where nothing else is asked for; the names of old ones tell their kind.
TRAINING_PREFIX = "train-"
TRAJECTORY_PREFIX = "trajectory"

GROUND_TRUTH = "objects"  # the stage that a training record keeps its ground truth under


@dataclass(frozen=True)
class Checks:
    """Which stage checks a record is for: every stage in every mode and dtype."""

    stages: tuple[str, ...]
    modes: tuple[str, ...] = MODES
    dtypes: tuple[str, ...] = DTYPES
    kind: str = INFERENCE

    def plain(self) -> dict[str, Any]:
        """Return them as JSON has them; see ``checks_from_plain``."""
        return {
            "kind": self.kind,
            "stages": list(self.stages),
            "modes": list(self.modes),
            "dtypes": list(self.dtypes),
        }


def checks_from_plain(plain: Mapping[str, Any]) -> Checks:
    """Return what ``Checks.plain`` made into JSON."""
    stages, modes, dtypes = (tuple(map(str, plain[part])) for part in ("stages", "modes", "dtypes"))
    return Checks(stages, modes, dtypes, str(plain["kind"]))


def kind_by_name(record: str) -> str:
    """Return what a record of an earlier version is of: its name tells.

    >>> [kind_by_name(record) for record in ("padded", "train-two-sizes", "trajectory", "recipe")]
    ['inference', 'training', 'trajectory', 'recipe']
    """
    if record == RECIPE:
        return RECIPE
    if record.startswith(TRAJECTORY_PREFIX):
        return TRAJECTORY
    return TRAINING if record.startswith(TRAINING_PREFIX) else INFERENCE


def checks_of_kind(case: Case, kind: str) -> Checks:
    """Return all checks that a case's record of one kind may be for.

    A training step is one run from the pixels to the new parameters, so it has no isolated mode. A
    trajectory is compared in float64 only: it makes its own decisions, and float32 engines part ways at
    the first tie. The recipe (schedule, initialisation, data pipeline) is no run of the detector at all
    and has one form.
    """
    if kind == RECIPE:
        return Checks(case.recipe_stages, (ISOLATED,), ("fp64",), kind)
    if kind == TRAJECTORY:
        return Checks((TRAJECTORY,), (CASCADE,), ("fp64",), kind)
    if kind == TRAINING:
        return Checks(case.training_stage_names(), (CASCADE,), DTYPES, kind)
    return Checks(case.stage_names())


def checks_of(case: Case, record: str) -> Checks:
    """Return the checks of a record that is known by its name alone."""
    return checks_of_kind(case, kind_by_name(record))


def checks_of_batch(case: Case, batch: Batch) -> Checks:
    """Return the checks that a record of a batch is made for.

    Raises:
        ParityError: the batch names a stage or a mode that such a record does not have.
    """
    kind = INFERENCE
    if isinstance(batch, TrainingBatch):
        kind = TRAINING if batch.steps == 1 else TRAJECTORY
    asked = {"stages": batch.stages, "modes": batch.modes if kind == INFERENCE else ()}
    return _restricted(checks_of_kind(case, kind), asked, what=f"case {case.id}: a batch")


def said_of(checks: Checks, case: Case) -> dict[str, Any]:
    """Return what the manifest says: the kind, and of the checks what is not all that the kind has.

    A stage that a case gains later has to be missed in its records: so "all stages" is not written out.
    """
    everything = checks_of_kind(case, checks.kind)
    parts = ("stages", "modes", "dtypes")
    limited = [part for part in parts if getattr(checks, part) != getattr(everything, part)]
    return {"kind": checks.kind, "checks": {part: list(getattr(checks, part)) for part in limited}}


class _Head(msgspec.Struct):
    """What a manifest says of its kind; the rest of it, megabytes of tensors, is passed over."""

    kind: str = ""
    checks: dict[str, list[str]] = {}


def checks_in(case: Case, folder: Path) -> Checks:
    """Return the checks of the record in a folder.

    A manifest that is damaged, or not the one that is listed, is told when the record is read, by ``Record``; until
    then its name has to do: what such a manifest says may not keep it from being read.

    Raises:
        ParityError: its kind is unknown, or it is for checks that the case does not have.
    """
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
        require_listed(folder, content)
        head = msgspec.json.decode(content, type=_Head)
    except (OSError, ParityError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return checks_of(case, folder.name)
    return checks_said(case, folder.name, kind=head.kind, limits=head.checks, where=str(path))


def checks_said(case: Case, record: str, *, kind: str, limits: Mapping[str, Sequence[str]], where: str) -> Checks:
    """Return the checks that a manifest speaks of; see ``said_of``.

    Raises:
        ParityError: its kind is unknown, or it is for checks that the case does not have.
    """
    kind = kind or kind_by_name(record)
    require_kind(kind, where=where)
    return _restricted(checks_of_kind(case, kind), limits, what=where)


def require_kind(kind: str, *, where: str) -> None:
    """Raise ``ParityError`` where there is no such kind of record."""
    if kind not in KINDS:
        raise ParityError(
            f"{where} is of the kind {shown(kind)}; this version knows {', '.join(KINDS)}: update parity, or freeze it"
            " again"
        )


def _restricted(everything: Checks, asked: Mapping[str, Sequence[str]], *, what: str) -> Checks:
    """Return of all checks those that are asked for, by stage, mode and dtype; all of a part that is not named."""
    parts = {}
    for part in ("stages", "modes", "dtypes"):
        known: tuple[str, ...] = getattr(everything, part)
        wanted = asked.get(part) or known
        unknown = [name for name in wanted if name not in known]
        if unknown:
            raise ParityError(
                f"{what} is for the {part[:-1]} {shown(unknown[0])}; a record of the kind {everything.kind!r} has"
                f" {', '.join(known)}"
            )
        parts[part] = tuple(name for name in known if name in wanted)
    return Checks(**parts, kind=everything.kind)


def is_draw(name: str) -> bool:
    """Whether a tensor of a training run is what the engine was given as random numbers.

    >>> is_draw("draw.rand().0"), is_draw("step[3].draw.rand().0"), is_draw("loss_cls")
    (True, True, False)
    """
    return name.startswith("draw.") or ".draw." in name


def draws_among(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the draws of a run, named as they are to be replayed: after what was asked for, and the step.

    >>> list(draws_among({"step[3].decoder.draw.rand().0": None, "draw.rand().0": None}))
    ['step[3].rand().0', 'rand().0']
    """
    return {re.sub(r"(\w+\.)?draw\.", "", name): tensor for name, tensor in tensors.items() if is_draw(name)}
