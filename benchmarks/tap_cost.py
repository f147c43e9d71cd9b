"""What tapping costs the legacy engine: a tapped float32 forward over a bare one, taken in turn."""

from __future__ import annotations

import argparse
import statistics

from parity.cases.registry import find_case
from parity.engines.environment import legacy_python
from parity.engines.host import RemoteSession
from parity.records.images import encoded_images

REPEATS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--legacy-root", required=True)
    parser.add_argument("--legacy-python")
    parser.add_argument("--case", default="ddq_detr_4scale_r50_12e")
    options = parser.parse_args()
    case = find_case(options.case)
    python = legacy_python(case.legacy, options.legacy_python)
    with RemoteSession(case.legacy, python=python, root=options.legacy_root) as legacy:
        for name, batch in case.records.items():
            legacy.load(case.id, "fp32")
            legacy.fill(batch.seed)
            pixels = legacy.preprocess(encoded_images(batch, seed=batch.seed), batch.scale)
            legacy.time_forwards(pixels.tensors, 1)  # warm up
            times = legacy.time_forwards(pixels.tensors, REPEATS)
            bare, tapped = (statistics.median(times[kind]) for kind in ("bare", "tapped"))
            print(f"{name:10} bare {bare:.3f} s, tapped {tapped:.3f} s, ratio {tapped / bare:.2f} (at most 1.3)")


if __name__ == "__main__":
    main()
