"""A bug that is planted before the engine was ever imported leaves nothing behind when it is taken back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent

RUN = """
import json, sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from planted_first import left_behind_by
from parity.mutants.base import Mutant
from parity.mutants.registry import built_in
{extra}
assert "mmdet" not in sys.modules, "the engine has to be imported inside of the block"
chosen = {chosen}
print(json.dumps({{mutant.id: names for mutant, names in left_behind_by(chosen)}}))
"""

# It forgets a name that was bound to the changed function while it stood: what `plant` did before.
FORGETFUL = """
from contextlib import contextmanager

@contextmanager
def forgetful():
    import mmdet.structures.bbox as bbox
    original = bbox.bbox2roi
    def changed(*args, **kwargs):
        return original(*args, **kwargs)
    bbox.bbox2roi = changed
    try:
        yield
    finally:
        bbox.bbox2roi = original
"""


def run(chosen: str, extra: str = "") -> dict[str, list[str]]:
    """Run in a process without an engine; return mutant -> names at which something is left."""
    words = [sys.executable, "-W", "ignore", "-c", RUN.format(chosen=chosen, extra=extra), str(HERE)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def test_a_sample_of_all_bugs_leaves_nothing_behind() -> None:
    """One in 120; ``benchmarks/planted_first.py`` plants them all."""
    left = run("built_in()[::120]")
    assert len(left) >= 4
    assert {mutant: names for mutant, names in left.items() if names} == {}


def test_a_plant_that_forgets_who_imported_it_meanwhile_is_seen() -> None:
    left = run('[Mutant("forgetful", "predict", ("*",), forgetful, "a test")]', FORGETFUL)
    assert "mmdet.models.roi_heads.standard_roi_head.bbox2roi" in left["forgetful"]
