"""An environment whose making is killed is never taken for whole; the next call makes it so. Its pip is a fake."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import fake_python
import pytest

from parity.engines import environment
from parity.engines.environment import default_folder, legacy_python
from parity.engines.prepared import MARKER
from parity.errors import ParityError

STEPS = ("venv-start", "venv-cleared", "venv-made", "build-half", "build-whole", "rest-half", "rest-whole", "check")
KILLS = int(os.environ.get("PARITY_KILLS", "4"))  # at random moments; 40 take a minute
PATIENCE = 60  # seconds: for what takes one, on a machine that is busy


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a program that stands for Python 3.8."""
    python = tmp_path / "python3.8"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {fake_python.__file__} . "$@"\n')
    python.chmod(0o755)
    (tmp_path / "fake").mkdir()
    monkeypatch.setenv("FAKE", str(tmp_path / "fake"))
    monkeypatch.setenv("PARITY_ENVS", str(tmp_path / "envs"))
    return str(python)


def start(python: str, **variables: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "parity", "env", "mmdet2", "--python", python]
    surroundings = {**os.environ, **variables}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=surroundings)


def finished(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, out
    return out


def kill(process: subprocess.Popen[str]) -> None:
    """End a process and none of those that it started."""
    process.send_signal(signal.SIGKILL)
    process.wait(PATIENCE)
    assert process.stdout is not None
    process.stdout.close()


def wait_until(there: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not there():
        assert time.monotonic() < until
        time.sleep(0.01)


def assert_whole(python: str) -> None:
    """The environment is there, whole, and what runs it says so; a second call makes nothing."""
    assert legacy_python("mmdet2", None) == str(default_folder("mmdet2") / "bin" / "python")
    environment.check_environment("mmdet2", legacy_python("mmdet2", None))
    assert finished(start(python)) == f"mmdet2: ready at {default_folder('mmdet2')}\n"


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_each_step_it_is_not_whole_and_the_next_call_makes_it_so(step: str, fake: str) -> None:
    place = Path(os.environ["FAKE"])
    first = start(fake, PAUSE=step)
    wait_until((place / f"{step}.here").exists)
    kill(first)
    folder = default_folder("mmdet2")
    message = (
        r"^engine mmdet2 has no environment yet: run `parity env mmdet2`, or give --legacy-python$"
        if not any(folder.iterdir())
        else rf"^the environment of mmdet2 at {folder} is not complete: run `parity env mmdet2` again$"
    )
    with pytest.raises(ParityError, match=message):
        legacy_python("mmdet2", None)
    # What the first one started still writes there: the second waits for its end.
    second = start(fake)
    (place / f"{step}.go").touch()
    finished(second)
    assert_whole(fake)


@pytest.mark.parametrize("seed", range(KILLS))
def test_killed_at_any_moment_the_next_call_makes_it_whole(seed: int, fake: str) -> None:
    first = start(fake, FAKE_SECONDS="0.02")
    time.sleep(random.Random(seed).uniform(0.0, 1.5))
    kill(first)
    if (default_folder("mmdet2") / MARKER).exists():
        environment.check_environment("mmdet2", legacy_python("mmdet2", None))
    finished(start(fake))
    assert_whole(fake)


def test_of_two_at_once_the_second_waits_and_uses_what_the_first_makes(fake: str) -> None:
    place = Path(os.environ["FAKE"])
    first = start(fake, PAUSE="build-half")
    wait_until((place / "build-half.here").exists)
    second = start(fake)
    assert second.stdout is not None
    folder = default_folder("mmdet2")
    assert second.stdout.readline() == f"another process is making {folder}: waiting for it\n"
    (place / "build-half.go").touch()
    finished(first)
    assert finished(second) == f"mmdet2: ready at {folder}\n"
    assert (place / "log").read_text().splitlines().count("venv-start") == 1
    assert_whole(fake)


def test_an_environment_that_is_made_anew_is_not_whole_meanwhile(fake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    finished(start(fake))
    folder = default_folder("mmdet2")
    monkeypatch.setattr(environment, "_fingerprint", lambda engine: "others")
    message = rf"^the environment of mmdet2 at {folder} was made for other requirements than today's: run `parity env"
    with pytest.raises(ParityError, match=message):
        legacy_python("mmdet2", None)
    monkeypatch.undo()
    monkeypatch.setattr(environment, "_run", stopped)
    monkeypatch.setattr(environment, "_fingerprint", lambda engine: "others")
    with pytest.raises(KeyboardInterrupt):
        environment.make_environment("mmdet2", python=fake, folder=folder, say=lambda line: None)
    assert not (folder / MARKER).exists()


def stopped(*_: object) -> None:
    raise KeyboardInterrupt
