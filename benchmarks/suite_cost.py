"""What ``pytest parity`` costs beside the bare forwards that it needs: two a record and dtype.

The bare forwards run first, in this process; then the suite in one of its own. Start-up is measured as
a suite that runs a single preprocess check.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

from parity.cases.registry import find_case
from parity.check import DTYPES, Checker
from parity.records.locate import default_fixtures, find_records
from parity.records.store import Record
from parity.taps.decisions import DecisionTaps

CASE = "ddq_detr_4scale_r50_12e"
FORWARDS = 2  # one cascade, and one forward's worth of isolated stages


def bare_seconds() -> float:
    """Return the time of the forwards alone, models built and filled beforehand."""
    checker, total = Checker(find_case(CASE)), 0.0
    for folder in find_records(default_fixtures(), case=CASE):
        for dtype in DTYPES:
            session, pixels = checker.prepared(Record(folder), dtype)
            # float64 needs the cast at the compiled NMS, which is part of the decision taps; nothing else is on.
            with DecisionTaps(lambda: None):
                session.bare(pixels)
                start = time.perf_counter()
                session.bare(pixels)
                total += FORWARDS * (time.perf_counter() - start)
    return total


def suite_seconds(*options: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "pytest", "parity", "-q", "--case", CASE, *options], check=True)
    return time.perf_counter() - start


def main() -> None:
    bare = bare_seconds()
    start_up = suite_seconds("-k", "padded-preprocess-isolated-fp32")
    whole = suite_seconds()
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024 / 1024
    print(f"bare forwards {bare:.1f} s, suite {whole:.1f} s, start-up {start_up:.1f} s")
    print(f"ratio {(whole - start_up) / bare:.2f} (must be at most 3); peak memory {peak:.2f} GB (must be below 6)")


if __name__ == "__main__":
    main()
