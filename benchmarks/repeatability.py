"""Whether the float32 check says the same under 1 and 2 threads and without oneDNN, run after run.

Compared are the verdicts that a user acts on: of each stage, whether it passes, and of each decision,
whether anything is uncertified. How many ties flip is the machine's own affair. The settings are printed as they were
read back while the check ran.
"""

from __future__ import annotations

import argparse
import itertools

from parity.cases.registry import find_case
from parity.check import Checker
from parity.engines.numerics import in_force
from parity.records.locate import default_fixtures, find_records
from parity.records.store import Record

SETTINGS = ((1, True), (2, True), (1, False), (2, False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--case", default="ddq_detr_4scale_r50_12e")
    parser.add_argument("--inference", action="store_true", help="leave the training records out")
    options = parser.parse_args()
    checker = Checker(find_case(options.case))
    passed = 0
    for run, (threads, onednn) in zip(range(options.runs), itertools.cycle(SETTINGS), strict=False):
        with in_force({"threads": threads, "onednn": onednn}):
            failures, flips, used = checked(checker, inference=options.inference)
        passed += not failures
        settings = checker.settings  # as the last check of the run read them back
        assert (settings["threads"], settings["onednn"]) == (threads, onednn)
        setting = f"{settings['threads']} threads, oneDNN {'on' if settings['onednn'] else 'off'}"
        outcome = failures or "all pass"
        print(f"run {run + 1:2} ({setting}): {outcome}; {flips} flips; at most {used:.2f} x noise", flush=True)
    print(f"{passed} of {options.runs} runs pass (must be all)")


def checked(checker: Checker, *, inference: bool) -> tuple[list[str], int, float]:
    """Return the checks of all records that fail, how many ties flip, and the greatest ratio of an error to noise."""
    failures, flips, used = [], 0, 0.0
    for folder in find_records(default_fixtures(), case=checker.case.id):
        record = Record(folder)
        checks = record.checks(checker.case)
        if "fp32" not in checks.dtypes or (inference and "isolated" not in checks.modes):
            continue
        for mode in checks.modes:
            for result in checker.check(record, mode=mode, dtype="fp32"):
                failures += [] if result.verdict.passes else [result.id]
                flips += sum(decision.flips for decision in result.decisions)
                used = max(used, *(t.minimum_budget for t in result.tensors))
    return failures, flips, used


if __name__ == "__main__":
    main()
