"""Processes that are killed: at a random moment, or before each thing in turn that they do to files.

``PARITY_KILLS`` says how often at a random moment: 4 times unless it is set.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

KILLS = int(os.environ.get("PARITY_KILLS", "4"))
TO_FILES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "subprocess.Popen"}
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


def killed_at_each_step(act: Callable[[], object], folder: Path, check: Callable[[], object]) -> int:
    """Do something in a forked process that is killed before the first thing it does to files below ``folder``.

    Then before the second, and so on, until it comes to its end. ``check`` is called after each.

    Returns:
        how many things it does.
    """
    for step in itertools.count():
        child = os.fork()
        if child == 0:
            try:
                _die_before(step, folder)
                act()
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        _, status = os.waitpid(child, 0)
        check()
        if not os.WIFSIGNALED(status):
            assert os.WEXITSTATUS(status) == 0
            return step
    raise AssertionError


def _die_before(step: int, folder: Path) -> None:
    """Have this process kill itself before it does its next but ``step`` thing to files below ``folder``."""
    left = itertools.count(step, -1)

    def seen(event: str, words: tuple[Any, ...]) -> None:
        if event not in TO_FILES or (event == "open" and not words[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            return
        if str(folder) in str(words) and next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(seen)


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
