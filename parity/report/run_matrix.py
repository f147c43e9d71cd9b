"""Case x stage as the page of a run shows it: a line a case, and below it one for each way in which it was run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from parity.records.kinds import DTYPES, INFERENCE, ISOLATED, MODES, RECIPE
from parity.report.checks import Check, missing_checks, share
from parity.report.figures import word
from parity.report.order import rank, unique

FLOAT_WORDS = {"fp64": "float64", "fp32": "float32"}

Way = tuple[str, str, str, str]  # kind of record, dtype, mode, device


@dataclass(frozen=True)
class Cell:
    """What was found in one stage.

    Attributes:
        says: the verdict in one word, with the error in units of its budget; empty where nothing was run.
        lacking: how many checks there should be, but are not.
        target: the check to look at: the first that failed, else the one that used most of its budget.
    """

    says: str
    passed: int
    ran: int
    lacking: int
    target: Check | None

    @property
    def passes(self) -> bool:
        """Whether all that was run passed."""
        return self.passed == self.ran


@dataclass(frozen=True)
class Line:
    """One line of the matrix: a name, and a cell for every stage."""

    name: str
    cells: Sequence[Cell]


@dataclass(frozen=True)
class CaseLines:
    """A case: all of it in one line, and a line for each way in which it was run."""

    case: str
    whole: Line
    ways: Sequence[Line]

    @property
    def passes(self) -> bool:
        """Whether all of the case passed."""
        return all(cell.passes for cell in self.whole.cells)


def run_matrix(checks: Sequence[Check], stages: Sequence[str]) -> list[CaseLines]:
    """Return the lines of every case, a cell for each of ``stages``."""
    lacking = missing_checks(checks)
    cases = unique(check.result.case for check in checks)
    devices = unique(check.result.device for check in checks)
    return [_case(case, checks, stages, lacking, several=len(devices) > 1) for case in cases]


def _case(
    case: str, checks: Sequence[Check], stages: Sequence[str], lacking: Sequence[tuple[str, ...]], *, several: bool
) -> CaseLines:
    own = [check for check in checks if check.result.case == case]
    missing = [each for each in lacking if each[0] == case]
    ways = sorted({way(check) for check in own}, key=_order)
    lines = [
        Line(way_name(each, several=several), _cells([check for check in own if way(check) == each], stages))
        for each in ways
    ]
    return CaseLines(case, Line(case, _cells(own, stages, [each[2] for each in missing])), lines)


def way(check: Check) -> Way:
    """Return in which way a check was made; training and trajectory are one, and have no modes."""
    kind = "training" if check.kind == "trajectory" else check.kind
    result = check.result
    return kind, result.dtype, result.mode if kind == INFERENCE else "", result.device


def _order(each: Way) -> tuple[int, int, int, str]:
    kind, dtype, mode, device = each
    return rank(kind, (INFERENCE, "training", RECIPE)), rank(dtype, DTYPES), rank(mode, MODES), device


def way_name(each: Way, *, several: bool) -> str:
    """Return a way for people, with its device if there are several.

    >>> way_name(("inference", "fp64", "isolated", "cpu"), several=False)
    'float64 isolated'
    >>> way_name(("training", "fp32", "", "cuda"), several=True)
    'float32 training, cuda'
    """
    kind, dtype, mode, device = each
    name = kind if kind == RECIPE else f"{FLOAT_WORDS.get(dtype, dtype)} {mode or kind}"
    return f"{name}, {device}" if several else name


def _cells(checks: Sequence[Check], stages: Sequence[str], lacking: Iterable[str] = ()) -> list[Cell]:
    missing = list(lacking)
    return [_cell([check for check in checks if check.result.stage == s], missing.count(s)) for s in stages]


def _cell(checks: Sequence[Check], lacking: int) -> Cell:
    failed = [check for check in checks if not check.passes]
    used = max(checks, key=lambda check: (check.result.used, check.result.mode == ISOLATED), default=None)
    target = failed[0] if failed else used
    return Cell(_says(checks, target), len(checks) - len(failed), len(checks), lacking, target)


def _says(checks: Sequence[Check], target: Check | None) -> str:
    if target is None:
        return ""
    greatest = max((check.result.used for check in checks if check.passes == target.passes), default=0.0)
    return share(greatest) or ("exact" if target.passes else word(target.result.verdict))
