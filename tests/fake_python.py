"""Stands for a Python and its pip: makes a folder that looks like an environment, slowly, file by file.

It pauses where PAUSE says so, a step's name, until the file of that name with .go is there, and says that it does
by the file with .here; both lie in the folder FAKE.
"""

import os
import shutil
import sys
import time
from pathlib import Path

FILES = 5  # that each installation writes


def pause(step: str) -> None:
    place = Path(os.environ["FAKE"])
    with (place / "log").open("a") as log:
        log.write(f"{step}\n")
    if os.environ.get("PAUSE") == step:
        (place / f"{step}.here").touch()
        while not (place / f"{step}.go").exists():
            time.sleep(0.01)


def venv(folder: Path) -> None:
    pause("venv-start")
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    pause("venv-cleared")
    (folder / "bin").mkdir()
    python = folder / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {folder} "$@"\n')
    python.chmod(0o755)
    pause("venv-made")


def install(folder: Path, requirements: Path) -> None:
    name = "build" if requirements.name.endswith("-build.txt") else "rest"
    for number in range(FILES):
        (folder / f"{name}-{number}").write_text("whole")
        if number == 2:
            pause(f"{name}-half")
        time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
    pause(f"{name}-whole")


def check(folder: Path) -> None:
    pause("check")
    wanted = [folder / f"{name}-{number}" for name in ("build", "rest") for number in range(FILES)]
    missing = [path.name for path in wanted if not path.is_file() or path.read_text() != "whole"]
    sys.exit(f"missing: {missing}" if missing else 0)


if __name__ == "__main__":
    folder, words = Path(sys.argv[1]), sys.argv[2:]
    if words[:2] == ["-m", "venv"]:
        venv(Path(words[-1]))
    elif words[:2] == ["-m", "pip"]:
        install(folder, Path(words[-1]))
    elif "version_info" in words[-1]:
        print("3.8")
    else:
        check(folder)
