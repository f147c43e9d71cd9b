"""The end of a pytest run: case x stage, the first diverging stage, and where the report is."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from parity.compare.verdicts import Verdict
from parity.report.matrix import matrix, table
from parity.report.order import in_order, rerun
from parity.report.results import Report


def summarise(report: Report, terminal: Any, *, folder: Path | None, began: float | None = None) -> None:
    """Write the summary to pytest's terminal, and the report into ``folder`` if there is one.

    Args:
        began: when the run did, in seconds since 1970.
    """
    results = in_order(report.results)
    passed = sum(result.verdict.passes for result in results)
    flips = sum(decision.flips for result in results for decision in result.decisions)
    terminal.section("parity")
    failing = [result for result in results if not result.verdict.passes]
    first = max(failing, key=lambda result: result.verdict is not Verdict.INCONCLUSIVE, default=None)
    for line in table(matrix(results), width=shutil.get_terminal_size().columns):
        terminal.write_line(line, bold=first is not None and line.startswith(f"{first.stage} ") and "✕" in line)
    terminal.write_line(f"{passed} of {len(results)} stage checks the same; {flips} flips, each judged")
    if first is not None:
        what = "stage not compared" if first.verdict is Verdict.INCONCLUSIVE else "diverging stage"
        terminal.write_line(f"first {what}: {first.id}", bold=True, red=True)
        terminal.write_line(f"to reproduce: {rerun(first)}")
    if folder:
        from parity.report.publish import publish

        for line in publish(replace(report, results=tuple(results)), folder, began=began):
            terminal.write_line(line)
