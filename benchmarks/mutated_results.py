"""Thousands of damaged results files: each is refused in one line or shown whole, and costs the history no other run.

python benchmarks/mutated_results.py [COUNT] [--seed N]
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from mutated_results import complaints, known_runs, mutant
from report_tools import OFF, check, run_of
from test_mutated_results import write_runs

from parity.report.results import to_json


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, nargs="?", default=5000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw, found, begin = random.Random(options.seed), [], time.perf_counter()
    plain = json.loads(to_json(run_of(check("backbone"), check("encoder", OFF))))
    whole = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        others = known_runs(folder, write_runs)
        for number in range(options.count):
            content = mutant(plain, draw)
            if number % 500 == 499:  # a log of every mutant that could be read would make this quadratic
                (folder / "history.jsonl").unlink()
                others = known_runs(folder, write_runs)
            before = (folder / "page" / "index.html").stat().st_mtime_ns if (folder / "page").exists() else 0
            try:
                found += [f"mutant {number}: {complaint}" for complaint in complaints(content, folder, others=others)]
            except Exception as error:
                found.append(f"mutant {number}: {type(error).__name__}: {error}")
            page = folder / "page" / "index.html"
            whole += page.exists() and page.stat().st_mtime_ns != before
    print("\n".join(found[:50]))
    print(
        f"{options.count} mutants, seed {options.seed}: {options.count - whole} refused in one line, {whole} shown"
        f" whole, {len(found)} complaints; {time.perf_counter() - begin:.0f} s"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
