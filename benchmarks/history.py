"""How fast is the history of a year? Draws N nights, times the update, and the page in Chromium.

    python benchmarks/history.py [--runs 365] [--cases 7] [--keep DIR]

The nights are drawn, not run: seven cases, a check for each stage, record, mode and dtype, two weeks of a planted
divergence, and software that changes now and then. Figures are told as they are; the target is 3 s.
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from parity.cases.registry import all_cases
from parity.compare.verdicts import Verdict
from parity.report.history import History, added
from parity.report.history_log import append, open_log
from parity.report.history_page import update_history
from parity.report.results import Report, StageResult, TensorResult

FINE = TensorResult("memory", Verdict.WITHIN_BUDGET, budget=8.0, minimum_budget=1.0, floor_max=1e-6, max_abs=1e-6)
FIRST = datetime(2026, 1, 1, 2, tzinfo=UTC)
BROKEN = range(200, 214)


def checks(cases: int) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield case, record, stage, mode and dtype."""
    for case in list(all_cases().values())[:cases]:
        for record in ("padded", "unpadded", "photos"):
            for stage in case.stage_names():
                for mode in ("isolated", "cascade"):
                    for dtype in ("fp64", "fp32"):
                        yield case.id, record, stage, mode, dtype


def night(at: int, cases: int) -> Report:
    """Return the results of one night."""
    chance = random.Random(at)
    results = []
    for case, record, stage, mode, dtype in checks(cases):
        level = (hash((stage, dtype, mode)) % 60) / 100 + 0.05
        tensor = replace(FINE, minimum_budget=8.0 * level * chance.uniform(0.9, 1.1))
        if at in BROKEN and stage in ("decoder", "detr_head", "predict") and mode == "cascade":
            tensor = replace(tensor, verdict=Verdict.DIVERGED, minimum_budget=9e3, max_abs=0.3)
        results.append(StageResult(case, record, stage, mode, dtype, "cpu", chance.uniform(0.2, 0.4), (tensor,)))
    new = {"engine": "mmdet3", "torch": f"2.{13 + at // 120}.0", "mmcv": "2.1.0" if at < 200 else "2.1.1"}
    when = (FIRST + timedelta(days=at)).isoformat()
    commit = f"{at // 3:012x}"
    return Report({"when": when, "commit": commit, "device": "cpu", "parity": "0.1.0", "new": new}, tuple(results))


def drawn(runs: int, cases: int) -> History:
    """Return the history of so many nights."""
    history = History()
    for at in range(runs):
        report = night(at, cases)
        name = report.environment["when"][:10]
        history = added(history, report, name=name, source=f"{at}-{at}")
    return history


def opened(page: Path) -> float:
    """Return the seconds from when Chromium began to open the page until all of it was drawn."""
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000", "--dump-dom", page.as_uri()]
    done = subprocess.run(["chromium", *words], capture_output=True, text=True, check=True)
    drawn = re.search(r'data-drawn="(\d+)"', done.stdout)
    if drawn is None:
        sys.exit("the page was not drawn")
    return int(drawn[1]) / 1e3


def main() -> None:
    """Measure, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=365)
    parser.add_argument("--cases", type=int, default=7)
    parser.add_argument("--keep", type=Path, help="write it there, and keep it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        history = drawn(options.runs, options.cases)
        with open_log(folder) as file:
            append(file, history, history.runs)
        start = time.perf_counter()
        page = update_history(folder)
        print(f"{options.runs} runs of {len(history.checks)} checks: page made in {time.perf_counter() - start:.2f} s")
        for path in (page, folder / "history.jsonl"):
            print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")
        times = sorted(opened(page) for _ in range(5))
        print(f"opened in Chromium, drawn after {', '.join(f'{seconds:.2f}' for seconds in times)} s")


if __name__ == "__main__":
    main()
