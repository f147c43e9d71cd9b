"""Loss curves of several trainings, one over the other: what ``parity train`` logs, as a section of the page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parity.cases.registry import all_cases
from parity.errors import DAMAGE, ParityError
from parity.training.loss_log import SCHEMA

BINS = 240  # points of a drawn line: the means of so many equal ranges of steps
WIDTH, HEIGHT = 400, 130  # of a chart, in its own units
LOGARITHMIC_FROM = 20.0  # ratio of greatest to least value

Series = list[tuple[int, float]]  # (step, value)


@dataclass(frozen=True)
class Curve:
    """One training: what ran, and name -> its values by step."""

    case: str
    engine: str
    gpus: int
    series: Mapping[str, Series]

    @property
    def label(self) -> str:
        """What the legend calls it."""
        where = f"{self.gpus} GPU{'s' * (self.gpus > 1)}" if self.gpus else "the CPU"
        return f"{self.case}, {self.engine} on {where}"


@dataclass(frozen=True)
class Panel:
    """One chart: a quantity over the steps.

    Attributes:
        lines: (number of the curve, points of an SVG polyline) of every curve that has it.
        low, high: the values at the chart's lower and upper edge.
        rows: of every curve its first value and its mean over the last tenth of the steps that all have.
    """

    name: str
    lines: Sequence[tuple[int, str]]
    low: float
    high: float
    last_step: int
    logarithmic: bool
    rows: Sequence[tuple[int, float, float]]


def read_curve(path: Path) -> Curve:
    """Return what a training logged.

    Raises:
        ParityError: it is no such file, has no step, or a line other than the last one is damaged.
    """
    try:
        lines = path.read_text().splitlines()
        header = json.loads(lines[0])
        if header["schema"] != SCHEMA:
            raise ValueError(f"schema {header['schema']!r}, this version reads {SCHEMA}")
        steps = [json.loads(line) for line in lines[1:-1]] + _last(lines)
        series = _series(steps, _renaming(header))
        curve = Curve(str(header["case"]), str(header["engine"]), int(header["gpus"]), series)
    except DAMAGE as error:
        raise ParityError(f"{path} is no loss curve ({error}): `parity train` writes losses.jsonl") from None
    if not curve.series:
        raise ParityError(f"{path} has no step yet: nothing to draw")
    return curve


def _last(lines: Sequence[str]) -> list[dict[str, Any]]:
    """Return the last step; a training that was interrupted may have written half of it."""
    try:
        return [json.loads(lines[-1])] if len(lines) > 1 else []
    except DAMAGE:
        return []


def _renaming(header: Mapping[str, Any]) -> Mapping[str, str]:
    """Return prefix -> prefix for loss names: one term may have two names in the two engines."""
    case = all_cases().get(header["case"])
    return case.loss_names if case is not None and header["engine"] == case.new else {}


def _series(steps: Sequence[Mapping[str, Any]], renaming: Mapping[str, str]) -> dict[str, Series]:
    found: dict[str, Series] = {}
    for line in steps:
        values = {_renamed(name, renaming): value for name, value in line["losses"].items()}
        values |= {"gradient norm": line["grad_norm"], "learning rate": max(line["lr"])}
        for name, value in values.items():
            if value is not None:
                found.setdefault(name, []).append((int(line["step"]), float(value)))
    return found


def _renamed(name: str, renaming: Mapping[str, str]) -> str:
    prefix = max((prefix for prefix in renaming if name.startswith(prefix)), key=len, default=None)
    return name if prefix is None else renaming[prefix] + name.removeprefix(prefix)


def panels(curves: Sequence[Curve]) -> list[Panel]:
    """Return a chart for every quantity that some curve has: the whole loss first, then its terms."""
    names = dict.fromkeys(name for curve in curves for name in curve.series)
    order = sorted(names, key=lambda name: (name != "loss", name in ("gradient norm", "learning rate")))
    return [_panel(name, curves) for name in order]


def _panel(name: str, curves: Sequence[Curve]) -> Panel:
    has = {number: curve.series[name] for number, curve in enumerate(curves) if name in curve.series}
    binned = {number: _binned(series) for number, series in has.items()}
    values = [value for series in binned.values() for _, value in series if math.isfinite(value)]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    logarithmic = low > 0.0 and high / low > LOGARITHMIC_FROM
    last = max(step for series in has.values() for step, _ in series)
    place = _Place(low, high, last, logarithmic)
    lines = [(number, place.points(series)) for number, series in binned.items()]
    common = min(series[-1][0] for series in has.values())
    rows = [(number, series[0][1], _late_mean(series, common)) for number, series in has.items()]
    return Panel(name, lines, low, high, last, logarithmic, rows)


def _binned(series: Series) -> Series:
    """Return means over equal ranges of steps, at the middle of each."""
    size = max(1, -(-len(series) // BINS))
    pieces = [series[start : start + size] for start in range(0, len(series), size)]
    return [(piece[len(piece) // 2][0], sum(value for _, value in piece) / len(piece)) for piece in pieces]


def _late_mean(series: Series, common: int) -> float:
    late = [value for step, value in series if 0.9 * common < step <= common]
    return sum(late) / len(late) if late else math.nan


@dataclass(frozen=True)
class _Place:
    """Where a step's value lies in a chart; what is not finite lies at the top."""

    low: float
    high: float
    last: int
    logarithmic: bool

    def points(self, series: Series) -> str:
        return " ".join(f"{self._x(step):.1f},{self._y(value):.1f}" for step, value in series)

    def _x(self, step: int) -> float:
        return WIDTH * (step - 1) / max(self.last - 1, 1)

    def _y(self, value: float) -> float:
        if not math.isfinite(value) or self.high == self.low:
            return 0.0 if not math.isfinite(value) else HEIGHT / 2
        low, high = (math.log(self.low), math.log(self.high)) if self.logarithmic else (self.low, self.high)
        part = ((math.log(value) if self.logarithmic else value) - low) / (high - low)
        return HEIGHT * (1.0 - part)


def curves_view(curves: Sequence[Curve]) -> dict[str, Any]:
    """Return what the template ``curves.html.j2`` asks for."""
    return {"curves": curves, "panels": panels(curves), "width": WIDTH, "height": HEIGHT}
