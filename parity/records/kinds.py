"""What a record is of, told by the name of its folder: collection must not read manifests."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from parity.cases.base import TRAJECTORY, Case

if TYPE_CHECKING:  # collection must not wait for torch
    from torch import Tensor

ISOLATED, CASCADE = "isolated", "cascade"
MODES = (ISOLATED, CASCADE)
DTYPES = ("fp64", "fp32")

TRAINING_PREFIX = "train-"
TRAJECTORY_PREFIX = "trajectory"
RECIPE = "recipe"

GROUND_TRUTH = "objects"  # the stage that a training record keeps its ground truth under


@dataclass(frozen=True)
class Checks:
    """Which stage checks a record is for: every stage in every mode and dtype."""

    stages: tuple[str, ...]
    modes: tuple[str, ...] = MODES
    dtypes: tuple[str, ...] = DTYPES


def is_training(record: str) -> bool:
    """Whether a record holds one training step, or a trajectory of them.

    >>> is_training("train-two-sizes"), is_training("trajectory"), is_training("padded")
    (True, True, False)
    """
    return record.startswith((TRAINING_PREFIX, TRAJECTORY_PREFIX))


def checks_of(case: Case, record: str) -> Checks:
    """Return the checks that a case's record is for.

    A training step is one run from the pixels to the new parameters, so it has no isolated mode. A
    trajectory is compared in float64 only: it makes its own decisions, and float32 engines part ways at
    the first tie. The recipe (schedule, initialisation, data pipeline) is no run of the detector at all
    and has one form.
    """
    if record == RECIPE:
        return Checks(case.recipe_stages, (ISOLATED,), ("fp64",))
    if record.startswith(TRAJECTORY_PREFIX):
        return Checks((TRAJECTORY,), (CASCADE,), ("fp64",))
    if is_training(record):
        return Checks(case.training_stage_names(), (CASCADE,))
    return Checks(case.stage_names())


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
