"""How much of its budget correct code needs: for each row of the table the greatest multiple of a floor, and where.

Runs `parity check` on all records (a long time), or reads what such runs wrote: `--read FILE.json …`. Its output is the
table in `docs/how-it-works.md`, and what the rows' own texts in `parity/compare/budgets.py` cite.
Of a table (gradients, parameters) every row counts as a tensor.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from parity.compare.budgets import ANY, KINDS, ROUNDOFF, TABLE
from parity.report.results import WITHOUT_FIGURES, Report, StageResult, read_report

SHARE = 99.9  # percent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="default: all")
    parser.add_argument("--read", nargs="+", type=Path, metavar="FILE.json")
    options = parser.parse_args()
    reports = [read_report(path) for path in options.read] if options.read else [checked(options.cases)]
    needed: dict[tuple[str, str], list[tuple[float, str]]] = {row: [] for row in TABLE if row[1] != ANY}
    for result in (result for report in reports for result in report.results):
        needed[result.dtype, KINDS.get(result.stage, result.mode)] += multiples(result)
    print(
        "| dtype | row | allowed | greatest | 99.9 % | tensors | where the greatest is |\n|---|---|---|---|---|---|---|"
    )
    for row, found in needed.items():
        print(line(row, found))


def checked(cases: list[str]) -> Report:
    """Run the check of all records; its exit status is the check's."""
    with tempfile.TemporaryDirectory(prefix="parity-budgets-") as folder:
        path = Path(folder) / "results.json"
        done = subprocess.run([sys.executable, "-m", "parity", "check", *cases, "--json", str(path)], check=False)
        if not path.is_file():
            sys.exit(done.returncode)
        return read_report(path)


def multiples(result: StageResult) -> Iterator[tuple[float, str]]:
    """Yield of every tensor, and of every row of a table, the smallest multiple that would have passed, and where."""
    for tensor in result.tensors:
        if tensor.kind == "row" or tensor.verdict in WITHOUT_FIGURES or not tensor.budget:
            continue  # a table's worst rows are listed once more beside it
        each = tensor.rows or ((tensor.name, tensor.minimum_budget),)
        yield from ((multiple, f"{result.id}: {name}") for name, multiple in each if math.isfinite(multiple))


def line(row: tuple[str, str], found: list[tuple[float, str]]) -> str:
    dtype, kind = row
    allowed = TABLE[row].multiple
    if not found:
        return f"| {dtype} | {kind} | {allowed:g} | | | 0 | |"
    values = np.array([multiple for multiple, _ in found])
    greatest, where = max(found)
    unit = "roundoffs" if dtype == "fp64" else "floors"
    size = f" ({allowed * ROUNDOFF[dtype]:.0e} of the size)" if dtype == "fp64" else ""
    share = np.percentile(values, SHARE)
    return f"| {dtype} | {kind} | {allowed:g} {unit}{size} | {greatest:.3g} | {share:.3g} | {len(values)} | `{where}` |"


if __name__ == "__main__":
    main()
