"""Plant every bug first in a process of its own, take it back, and count those of which something is left."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from planted_first import left_behind_by

from parity.mutants.registry import built_in


def main() -> int:
    """Print every bug that leaves something behind, then how many leave nothing; return the exit status."""
    torch.set_num_threads(1)
    mutants = list(built_in())
    dirty = 0
    for mutant, names in left_behind_by(mutants, jobs=2):
        if names:
            dirty += 1
            print(f"{mutant.id}: {len(names)} names, first {', '.join(names[:3])}", flush=True)
    print(f"nothing left behind: {len(mutants) - dirty} of {len(mutants)}")
    return int(dirty > 0)


if __name__ == "__main__":
    sys.exit(main())
