"""Crafted checkpoints given to ``parity coco labels``: each ends in one line or a well-formed file, and none is run.

    python benchmarks/crafted_checkpoints.py [COUNT] [FIRST]

How many would have run if Python had unpickled them is counted, too, in processes of their own: a file that does
nothing when it is trusted proves nothing.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from crafted_checkpoints import craft
from test_checkpoint_fuzz import fault

from parity.cli import main as parity

LIMIT = 20.0  # seconds that a trusted one may take


def trust(path: Path) -> None:
    """Unpickle a file as Python does, silently, and end."""
    resource.setrlimit(resource.RLIMIT_AS, (1 << 33, 1 << 33))
    with open(os.devnull, "w") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
    with contextlib.suppress(BaseException):
        torch.load(path, map_location="cpu", weights_only=False)
    os._exit(0)


def would_run(path: Path, mark: Path) -> bool:
    process = multiprocessing.get_context("fork").Process(target=trust, args=(path,))
    process.start()
    process.join(LIMIT)
    process.kill()
    process.join()
    ran = mark.exists()
    mark.unlink(missing_ok=True)
    return ran


def read(path: Path, output: Path) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = parity(["coco", "labels", str(path), str(output), "--80"])
    return status, out.getvalue(), err.getvalue()


def main(count: int, first: int) -> int:
    torch.set_num_threads(1)
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        mark, output = Path(folder) / "was_run", Path(folder) / "out.pth"
        for seed in range(first, first + count):
            crafted = craft(seed, mark)
            path = Path(folder) / f"model{crafted.suffix}"
            path.write_bytes(crafted.data)
            began = time.perf_counter()
            status, out, err = read(path, output)
            slowest = max(slowest, time.perf_counter() - began)
            if mark.exists():
                outcomes["run"] += 1
                print(f"{seed}: {crafted.name}: it was run")
                mark.unlink()
            if reason := fault(path, output, status, out, err):
                outcomes["wrong"] += 1
                print(f"{seed}: {crafted.name}: {reason}")
            outcomes["read" if status == 0 else "refused in one line"] += 1
            outcomes["would run if trusted"] += would_run(path, mark)
            for file in (path, output):
                file.unlink(missing_ok=True)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{count} crafted checkpoints: {dict(outcomes)}; slowest {slowest:.2f} s, memory grew by {grown:.0f} MB")
    return int(bool(outcomes["run"] or outcomes["wrong"] or not outcomes["would run if trusted"]))


if __name__ == "__main__":
    sys.exit(main(*(int(word) for word in [*sys.argv[1:], *("500", "0")[len(sys.argv) - 1 :]])))
