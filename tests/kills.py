"""Processes that are killed at a random moment. ``PARITY_KILLS`` says how often: 4 unless it is set."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

KILLS = int(os.environ.get("PARITY_KILLS", "4"))
TESTS = Path(__file__).resolve().parent


def started(program: str, *words: object) -> subprocess.Popen[str]:
    """Start a program that may import from the tests; its output is read line by line."""
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )


def killed(program: str, *words: object, moment: random.Random, most: float) -> list[str]:
    """Kill a program up to ``most`` seconds after it printed ``ready``; return the whole lines it printed then."""
    with started(program, *words) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(moment.uniform(0.0, most))
        process.send_signal(signal.SIGKILL)
        return [line.removesuffix("\n") for line in process.stdout if line.endswith("\n")]


def together(program: str, *words_of_each: tuple[object, ...]) -> None:
    """Run a program several times at once, each with its own words: all begin when all have printed ``ready``."""
    processes = [started(program, *words) for words in words_of_each]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0] * len(processes)


def hidden(folder: Path) -> Iterator[Path]:
    """Yield all below a folder whose name begins with a dot: what is not finished."""
    return (path for path in folder.rglob(".*"))
