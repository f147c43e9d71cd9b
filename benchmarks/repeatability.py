"""Whether the float32 check says the same under 1 and 2 threads and without oneDNN, run after run.

Compared are the verdicts that a user acts on: of each stage, whether it passes, and of each decision,
whether anything is uncertified. How many ties flip is the machine's own affair.
"""

from __future__ import annotations

import argparse
import itertools

from parity.cases.registry import find_case
from parity.check import Checker
from parity.records.kinds import MODES
from parity.records.locate import default_fixtures, find_records
from parity.records.store import Record

SETTINGS = ((1, True), (2, True), (1, False), (2, False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--case", default="ddq_detr_4scale_r50_12e")
    options = parser.parse_args()
    checker = Checker(find_case(options.case))
    folders = find_records(default_fixtures(), case=options.case)
    passed = 0
    for run, (threads, onednn) in zip(range(options.runs), itertools.cycle(SETTINGS), strict=False):
        failures, flips, used = [], 0, 0.0
        for folder in folders:
            record = Record(folder)
            checker.prepared(record, "fp32")[0].configure(threads, onednn)
            for mode in MODES:
                for result in checker.check(record, mode=mode, dtype="fp32"):
                    failures += [] if result.verdict.passes else [result.id]
                    flips += sum(decision.flips for decision in result.decisions)
                    used = max(used, *(t.minimum_budget for t in result.tensors))
        passed += not failures
        setting = f"{threads} threads, oneDNN {'on' if onednn else 'off'}"
        outcome = failures or "all pass"
        print(f"run {run + 1:2} ({setting}): {outcome}; {flips} flips; at most {used:.2f} x noise", flush=True)
    print(f"{passed} of {options.runs} runs pass (must be all)")


if __name__ == "__main__":
    main()
