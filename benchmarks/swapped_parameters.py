"""Whether swapping any two parameters of one shape is caught, in float64: by inference, else by a training step.

The pairs are random and seeded. One that is not caught is listed, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from tqdm import tqdm

from parity.cases.registry import find_case
from parity.records.locate import default_fixtures
from parity.records.store import Record
from parity.weights.perturb import Swaps


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", nargs="?", default="ddq_detr_4scale_r50_12e")
    parser.add_argument("--record", default="padded")
    parser.add_argument("--training", default="train-two-sizes", help="the record of what inference does not notice")
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start = time.perf_counter()
    folder = default_fixtures() / options.case
    training = Record(folder / options.training)
    swaps = Swaps(find_case(options.case), Record(folder / options.record), training=training)
    print(
        f"ready after {time.perf_counter() - start:.0f} s; of {len(swaps.uses)} entries no stage uses"
        f" {len(swaps.unused())}, and NaN in their place is {'' if swaps.unused_are_inert else 'NOT '}without effect"
    )
    pairs = swaps.pairs(options.pairs, seed=options.seed)
    found = [swaps.try_pair(pair) for pair in tqdm(pairs, unit="pair", leave=False, disable=None)]
    stages = Counter(f"{'training: ' if swap.trained else ''}{swap.stage}" for swap in found if swap.caught)
    print(f"{sum(stages.values())} of {len(found)} swaps caught: {dict(stages)}; {time.perf_counter() - start:.0f} s")
    survivors = [swap for swap in found if not swap.caught]
    for swap in survivors:
        print(f"  not caught: {swap.pair[0]} <-> {swap.pair[1]}: {swap.reason}")
    return int(bool(survivors))


if __name__ == "__main__":
    sys.exit(main())
