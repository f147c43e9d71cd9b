"""Make and check an engine's own environment: ``parity env ENGINE``."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path

from parity.engines.prepared import MARKER, State, finish, interpreter, state
from parity.errors import ParityError
from parity.locks import locked_folder

# What proves an environment: a compiled operator is called, not just imported (mmcv builds without
# operators in silence), and the whole framework is imported once.
CHECK = """
import torch
from mmcv.ops import MultiScaleDeformableAttention, nms
boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [20.0, 20.0, 30.0, 30.0]])
kept = nms(boxes, torch.tensor([0.5, 0.9, 0.1]), 0.5)[1].tolist()
assert kept == [1, 2], "mmcv's NMS keeps %s, not [1, 2]" % kept
import mmdet.apis, mmdet.models, safetensors
print(torch.__version__)
"""
_NOT_OFFERED = "No matching distribution found"  # pip, where an index has no such file


@dataclass(frozen=True)
class Recipe:
    """How an engine's environment is made: which Python, and what one step takes longest."""

    python: str
    minutes: int
    requirements: str
    torch: tuple[str, ...] = ()  # requirements of torch by themselves: the first that the index of pip offers


# Engines of one set of requirements share an environment: the detectors' own code is no part of it.
RECIPES = {
    "mmdet2": Recipe("3.8", 4, "mmdet2"),
    "ddq_mmdet2": Recipe("3.8", 4, "mmdet2"),
    "ddq_mmdet3rc": Recipe("3.8", 5, "ddq_mmdet3rc"),
    "mmdet3": Recipe("3.11", 11, "mmdet3", torch=("mmdet3-torch-cpu", "mmdet3-torch")),
}


def default_folder(engine: str) -> Path:
    """Return where an engine's environment is kept: below ``PARITY_ENVS``, or the user's cache.

    It may have been made for another engine of the same requirements.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    envs = Path(os.environ.get("PARITY_ENVS", cache / "parity"))
    alike = [name for name, recipe in RECIPES.items() if recipe.requirements == RECIPES[engine].requirements]
    folders = [envs / name for name in dict.fromkeys((engine, *alike))]
    found = {folder: state(folder, _fingerprint(engine)) for folder in folders}
    # A whole one before one that has to be made again, and that before none.
    wanted = (State.READY, State.OUTDATED, State.UNFINISHED)
    return next((folder for kind in wanted for folder in folders if found[folder] is kind), envs / engine)


def legacy_python(engine: str, given: str | None) -> str:
    """Return the interpreter to use for an engine: the one given, or that of its environment.

    Raises:
        ParityError: there is neither, or its environment is not whole or not for today's requirements.
    """
    if given:
        if "=" not in given and shutil.which(given) is None:
            raise ParityError(f"--legacy-python {given}: no such program")
        return given
    folder = default_folder(engine)
    found = state(folder, _fingerprint(engine))
    if found is State.ABSENT:
        raise ParityError(f"engine {engine} has no environment yet: run `parity env {engine}`, or give --legacy-python")
    if found is not State.READY:
        raise ParityError(f"the environment of {engine} at {folder} {found.value}: run `parity env {engine}` again")
    return str(interpreter(folder))


class NoFittingPython(ParityError):
    """This machine has no Python of the version that an engine needs."""


def make_environment(
    engine: str, *, python: str | None, folder: Path | None, say: Callable[[str], None] = print
) -> Path:
    """Make an engine's environment, unless it is there, whole and unchanged; return its interpreter.

    One that is not whole, because its making was interrupted, is made again; what another process makes is waited for.

    Raises:
        NoFittingPython: there is none of the version needed, and none was given.
        ParityError: the Python given does not fit, or a step failed; the end of its output is the detail.
    """
    if engine not in RECIPES:
        raise ParityError(f"unknown engine {engine!r}; there are {', '.join(sorted(RECIPES))}")
    recipe, folder = RECIPES[engine], folder or default_folder(engine)
    wanted = _fingerprint(engine)
    if state(folder, wanted) is not State.READY:
        base = _fitting_python(recipe.python, python)
        waiting = partial(say, f"another process is making {folder}: waiting for it")
        with locked_folder(folder, waiting=waiting) as lock:
            if state(folder, wanted) is not State.READY:  # nobody else has made it in the meantime
                _make(engine, base, folder, lock, say)
                finish(folder, engine, wanted)
    say(f"{engine}: ready at {folder}")
    return interpreter(folder)


def _make(engine: str, base: str, folder: Path, lock: int, say: Callable[[str], None]) -> None:
    """Make the environment in its folder (it holds its own path, so it cannot be made elsewhere and renamed)."""
    recipe = RECIPES[engine]
    (folder / MARKER).unlink(missing_ok=True)  # before anything else of it is touched
    say(f"[1/4] virtual environment with Python {recipe.python} at {folder}")
    _run([base, "-m", "venv", "--clear", str(folder)], engine, lock)
    install(engine, str(interpreter(folder)), say, lock)
    say("[4/4] check: torch, a compiled operator, the whole framework")
    check_environment(engine, str(interpreter(folder)))


def install(engine: str, python: str, say: Callable[[str], None], *keep: int) -> None:
    """Install what an engine needs into an interpreter: the files of packages that the requirements have hashes of.

    Args:
        keep: descriptors that stay open in what does it.

    Raises:
        ParityError: a step failed; the end of its output is the detail.
    """
    recipe = RECIPES[engine]
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    with _requirements(engine) as (build, rest, *torch):
        say("[2/4] torch and what compiling needs")
        _run([*pip, "-r", str(build)], engine, *keep)
        for number, path in enumerate(torch, 1):
            try:
                _run([*pip, "-r", str(path)], engine, *keep)
                break
            except ParityError as error:
                if number == len(torch) or _NOT_OFFERED not in error.detail:
                    raise
        say(f"[3/4] mmcv, whose operators are compiled (about {recipe.minutes} minutes the first time), and mmdet")
        _run([*pip, "--no-build-isolation", "--no-deps", "-r", str(rest)], engine, *keep)


def check_environment(engine: str, python: str) -> str:
    """Call a compiled operator of mmcv in that interpreter and import the framework; return torch's version.

    Raises:
        ParityError: something is missing; says what and how to get it.
    """
    try:
        done = subprocess.run([python, "-c", CHECK], capture_output=True, text=True, check=False)
    except OSError as error:
        raise ParityError(f"environment of {engine} ({python}) cannot be started: {error.strerror}") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        hint = (
            "mmcv was built without operators: torch must be installed first, and a C++ compiler;"
            " then `pip install --no-cache-dir --force-reinstall --no-build-isolation --no-deps` the pinned mmcv"
            if "_ext" in last
            else "the pinned versions are in parity/engines/requirements"
        )
        raise ParityError(f"environment of {engine} ({python}) does not work: {last}; {hint}", detail=done.stderr)
    return done.stdout.strip()


@contextmanager
def _requirements(engine: str) -> Iterator[list[Path]]:
    """Yield the requirement files of an engine: what building needs, the rest, and those of torch by itself."""
    recipe, root = RECIPES[engine], resources.files("parity.engines") / "requirements"
    with ExitStack() as stack:
        names = (f"{recipe.requirements}-build", recipe.requirements, *recipe.torch)
        yield [stack.enter_context(resources.as_file(root / f"{name}.txt")) for name in names]


def _fingerprint(engine: str) -> str:
    with _requirements(engine) as files:
        return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _fitting_python(version: str, given: str | None) -> str:
    """Return a Python of that version: the one given, or one from PATH, pyenv or uv."""
    tried = [given] if given else list(_candidates(version))
    for candidate in tried:
        if _version_of(candidate) == version:
            return candidate
    if given:
        found = _version_of(given)
        raise ParityError(
            f"--python {given} is {f'Python {found}' if found else 'no Python'}; Python {version} is needed"
        )
    raise NoFittingPython(
        f"no Python {version} on PATH, in pyenv or in uv: install one (`pyenv install {version}`, `uv python install"
        f" {version}`) or name it with --python"
    )


def _candidates(version: str) -> Iterator[str]:
    yield f"python{version}"
    if sys.version.startswith(f"{version}."):
        yield sys.executable
    root = Path(os.environ.get("PYENV_ROOT", _output(["pyenv", "root"]) or "~/.pyenv")).expanduser()
    yield from (str(path) for path in sorted(root.glob(f"versions/{version}*/bin/python"), reverse=True))
    yield _output(["uv", "python", "find", version])


def _version_of(python: str) -> str:
    return _output([python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]) if python else ""


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _run(command: list[str], engine: str, *keep: int) -> None:
    """Run one step to its end; the descriptors to ``keep`` stay open in it."""
    environment = {**os.environ, "MMCV_WITH_OPS": "1", "MAX_JOBS": str(os.cpu_count() or 1)}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, pass_fds=keep)
    except OSError as error:
        raise ParityError(f"environment of {engine}: {command[0]}: {error}") from error
    if done.returncode:
        step = " ".join(command[1:5])
        raise ParityError(f"environment of {engine}: `{step} …` failed", detail=(done.stdout + done.stderr)[-4000:])


if __name__ == "__main__":  # of tox: the new engine goes into the environment that tox has made
    try:
        install(sys.argv[1], sys.executable, lambda line: None)
        print(f"{sys.argv[1]}: torch {check_environment(sys.argv[1], sys.executable)}, compiled operators work")
    except ParityError as wrong:
        sys.exit(f"{wrong.detail}\nparity: {wrong}".lstrip())
