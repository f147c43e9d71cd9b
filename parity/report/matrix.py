"""Case x stage: what a person looks at first, for the terminal and for Markdown alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from parity.cases.registry import all_cases
from parity.report.figures import number
from parity.report.order import stage_order, unique
from parity.report.results import StageResult

NOT_RUN = "\N{EN DASH}"
_WIDTH = 10  # characters of a column: the parts of a case's name are put below one another


@dataclass(frozen=True)
class Cell:
    """All checks of one stage of one case.

    Attributes:
        passed, ran: of the checks (records, modes, dtypes, devices).
        used: the greatest share of its budget that a tensor used, 1 being all of it; infinite without such a figure.
    """

    passed: int
    ran: int
    used: float

    @property
    def passes(self) -> bool:
        """Whether all checks passed, and there was one."""
        return 0 < self.ran == self.passed

    def __str__(self) -> str:
        """Return it in ten characters at most.

        >>> [str(Cell(*figures)) for figures in ((4, 4, 0.123), (4, 4, 0.0), (3, 4, 7.2))]
        ['✓ 12 %', '✓ exact', '✕ 1 of 4']
        """
        if not self.passes:
            return f"✕ {self.ran - self.passed} of {self.ran}"
        if math.isinf(self.used):
            return "✓"
        return f"✓ {percent(self.used)}" if self.used else "✓ exact"


@dataclass(frozen=True)
class Matrix:
    """``cells[stage, case]``; a pair that is not there was not run, or the case has no such stage."""

    cases: Sequence[str]
    stages: Sequence[str]
    cells: dict[tuple[str, str], Cell]

    def text(self, stage: str, case: str) -> str:
        """Return one cell as text: a dash where it was not run, nothing where the case has no such stage."""
        cell = self.cells.get((stage, case))
        if cell is not None:
            return str(cell)
        known = all_cases().get(case)
        return NOT_RUN if known and stage in known.all_stage_names() else ""


def matrix(results: Sequence[StageResult]) -> Matrix:
    """Return the results by stage, in the order of the detector, and case."""
    found: dict[tuple[str, str], list[StageResult]] = {}
    for result in results:
        found.setdefault((result.stage, result.case), []).append(result)
    cells = {key: _cell(checks) for key, checks in found.items()}
    return Matrix(unique(result.case for result in results), stage_order(results), cells)


def _cell(checks: Sequence[StageResult]) -> Cell:
    return Cell(sum(check.verdict.passes for check in checks), len(checks), max(check.used for check in checks))


def percent(share: float) -> str:
    """Return a share of a budget for people.

    >>> percent(0.123), percent(0.0004), percent(3.14), percent(4.2e9)
    ('12 %', '<1 %', '314 %', '4.20e9 times all')
    """
    if share >= 10.0:
        return f"{number(share)} times all"
    return "<1 %" if share < 0.01 else f"{100.0 * share:.0f} %"


def table(found: Matrix, *, width: int) -> list[str]:
    """Return the lines of a table for a terminal; where the cases do not fit side by side, they go below."""
    left = max((len(stage) for stage in found.stages), default=0)
    heads = {case: wrapped(case) for case in found.cases}
    each = max([_WIDTH, *(len(part) for head in heads.values() for part in head)]) + 1
    fit = max(1, (width - left) // each)
    lines: list[str] = []
    for at in range(0, len(found.cases), fit):
        lines += ["", *_block(found, found.cases[at : at + fit], left=left, each=each)]
    return lines[1:]


def _block(found: Matrix, cases: Sequence[str], *, left: int, each: int) -> list[str]:
    heads = [wrapped(case) for case in cases]
    height = max(len(head) for head in heads)
    rows = [["", *(head[at] if at < len(head) else "" for head in heads)] for at in range(height)]
    stages = [stage for stage in found.stages if any((stage, case) in found.cells for case in cases)]
    rows += [[stage, *(found.text(stage, case) for case in cases)] for stage in stages]
    return [(row[0].ljust(left) + "".join(f" {cell:<{each - 1}}" for cell in row[1:])).rstrip() for row in rows]


def wrapped(case: str) -> list[str]:
    """Return a case's name in short lines, broken at its underscores.

    >>> wrapped("ddq_detr_4scale_swinl_30e")
    ['ddq_detr_', '4scale_', 'swinl_30e']
    """
    lines = [""]
    for part in case.replace("_", "_\n").splitlines():
        if lines[-1] and len(lines[-1]) + len(part) > _WIDTH:
            lines.append("")
        lines[-1] += part
    return lines
