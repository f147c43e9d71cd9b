"""Throughput and extra memory of the tensor comparison beside ``torch.testing.assert_close``."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable

import torch

from parity.compare.tensors import measure

COUNT = 50_000_000
REPEATS = 5


def peak_megabytes() -> float:
    """Return the most memory this process has ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    torch.manual_seed(0)
    expected = torch.randn(COUNT)
    actual = expected + 1e-7
    before = peak_megabytes()
    ours = [seconds(lambda: measure(actual, expected, allowance=1e-6)) for _ in range(REPEATS)]
    extra = peak_megabytes() - before
    theirs = [seconds(lambda: torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)) for _ in range(REPEATS)]
    size = 2 * 4 * COUNT / 1e9
    for name, times in (("parity", ours), ("assert_close", theirs)):
        print(f"{name:13} median {statistics.median(times):.3f} s, {size / statistics.median(times):.2f} GB/s")
    print(f"throughput ratio {statistics.median(theirs) / statistics.median(ours):.1f} (must be at least 10)")
    print(f"extra memory {extra:.1f} MB (must be below 64)")


if __name__ == "__main__":
    main()
