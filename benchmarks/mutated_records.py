"""Thousands of altered records: each is refused in one line or read as before, and no verdict changes.

    python benchmarks/mutated_records.py [COUNT] [--seed N] [--show N]

Records whose list was made anew are counted apart: what nothing else in a record contradicts cannot be seen in it.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import torch
from record_mutations import mutation
from record_reading import Outcome, Subject
from small_record import CASE, RECORD, case, write_small

from parity.records.listing import LISTING, read_listing
from parity.records.locate import default_fixtures

COMMITTED = ("odd-images", "train-no-object", "recipe")  # of the same case; every eighth mutation is of these


def committed(fixtures: Path) -> None:
    """Copy some committed records of the case."""
    for name in COMMITTED:
        shutil.copytree(default_fixtures() / CASE / name, fixtures / CASE / name)
    listed = read_listing(default_fixtures())
    lines = [f"{digest}  {CASE}/{name}/manifest.json\n" for name in COMMITTED for digest in listed[f"{CASE}/{name}"]]
    (fixtures / LISTING).write_text("".join(lines))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, nargs="?", default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=0, metavar="N", help="tell this many of those that nobody can see")
    options = parser.parse_args()
    torch.set_num_threads(1)
    draw, begin = random.Random(options.seed), time.perf_counter()
    found: Counter[tuple[bool, Outcome]] = Counter()
    unseen: Counter[str] = Counter()
    faults, shown = [], 0
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        own, others = Path(name) / "own", Path(name) / "others"
        for record in (RECORD, "another"):
            write_small(own, record)
        committed(others)
        small, real = Subject(own, case()), Subject(others, case())
        for number in range(options.count):
            subject = real if number % 8 == 7 else small
            altered = mutation(subject.files, draw)
            read = subject.outcome(altered)
            found[altered.listed_anew, read.outcome] += 1
            if read.outcome is Outcome.FAULT or (read.outcome is Outcome.DIFFERENT and not altered.listed_anew):
                faults.append(f"mutation {number}, {altered.how}: {read.outcome.value}: {read.told}")
            elif read.outcome is Outcome.DIFFERENT:
                told = subject.told(altered) if subject is small else "a committed record: not tried"
                unseen[told] += 1
                if shown < options.show:
                    shown += 1
                    print(f"mutation {number}, {altered.how}: {told}")
    print("\n".join(faults[:50]))
    print(f"{options.count} mutations, seed {options.seed}, {time.perf_counter() - begin:.0f} s; {len(faults)} faults")
    for anew, title in ((False, "the list as it was"), (True, "the list made anew")):
        told = ", ".join(f"{each.value} {found[anew, each]}" for each in Outcome)
        print(f"{title}: {told}")
    print("of those read and different:")
    print("".join(f"  {count:6} {told}\n" for told, count in unseen.most_common()), end="")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
