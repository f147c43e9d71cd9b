"""Bisecting commits: git chooses them, in a worktree of its own, so that nothing of the user's is touched."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from parity.bisect.probe import Check, Outcome, Told, as_typed
from parity.errors import ParityError

Progress = Callable[[str], None]
_FIRST_BAD = re.compile(r"^([0-9a-f]{40,64}) is the first bad commit", re.MULTILINE)
_SUSPECT = re.compile(r"^[0-9a-f]{40,64}$", re.MULTILINE)
_SKIPPED_LEFT = "There are only 'skip'ped commits left"


@dataclass(frozen=True)
class Found:
    """What broke it: one change, or several that cannot be told apart; ``notes`` say why."""

    suspects: tuple[str, ...]
    notes: tuple[str, ...] = ()


def bisect_commits(good: str, bad: str, check: Check, *, repository: Path, progress: Progress = print) -> Found:
    """Return the first bad commit between two, or those among which it is.

    Raises:
        ParityError: there is no such commit; the good one is not good, or the bad one not bad; a result there is flaky.
    """
    good_commit, bad_commit = _commit(repository, good), _commit(repository, bad)
    if good_commit == bad_commit:
        raise ParityError(f"bisect: {good} and {bad} are the same commit: there is nothing between them")
    with _worktree(repository, bad_commit) as tree:
        told: dict[str, Told] = {}

        def tell() -> Outcome:
            commit = _git(tree, "rev-parse", "HEAD")
            if commit not in told:
                _git(tree, "clean", "-ffdxq")  # what the check of another commit left, compiled modules above all
                told[commit] = check.tell(tree, _environment(tree))
                progress(f"{_named(repository, commit)}: {told[commit]}")
                _git(tree, "checkout", "--quiet", "--force", "HEAD")  # what it changed would be in git's way
            return told[commit].outcome

        for end, name, wanted in ((good_commit, good, Outcome.GOOD), (bad_commit, bad, Outcome.BAD)):
            _git(tree, "checkout", "--quiet", "--force", "--detach", end)
            tell()
            require(name, told[end], wanted, check)
        suspects = _search(tree, good_commit, bad_commit, tell)
        return Found(tuple(_named(repository, commit) for commit in suspects), _notes(repository, told, suspects))


def require(name: str, told: Told, wanted: Outcome, check: Check) -> None:
    """Raise ``ParityError`` where an end of the range is not what it was called."""
    if told.outcome is wanted:
        return
    command = as_typed(check.command)
    if told.outcome is Outcome.FLAKY:
        raise ParityError(f"bisect: `{command}` is flaky at {name}, {told}: make it repeatable first")
    if told.outcome is Outcome.UNKNOWN:
        raise ParityError(f"bisect: `{command}` cannot tell anything of {name}, {told}: it has to exit with 0 or 1")
    where = "an earlier one" if wanted is Outcome.GOOD else "one where it fails"
    raise ParityError(f"bisect: {name} is not {wanted.value}, `{command}` is {told} there: name {where}")


def _search(tree: Path, good: str, bad: str, tell: Callable[[], Outcome]) -> list[str]:
    words = {Outcome.GOOD: "good", Outcome.BAD: "bad"}
    status, said = _bisect(tree, "start", bad, good)
    while not (found := _FIRST_BAD.search(said)):
        if _SKIPPED_LEFT in said:
            return _SUSPECT.findall(said)
        if status != 0:
            raise ParityError(f"bisect: git cannot go on: {said.strip().splitlines()[0] if said.strip() else status}")
        status, said = _bisect(tree, words.get(tell(), "skip"))
    return [found[1]]


def _notes(repository: Path, told: dict[str, Told], suspects: list[str]) -> tuple[str, ...]:
    notes = [
        f"not believed: {_named(repository, commit)}: {found}"
        for commit, found in told.items()
        if not found.outcome.believed
    ]
    if len(suspects) > 1:
        notes.append(f"it is one of these {len(suspects)}: those between that told nothing were passed over")
    return tuple(notes)


@contextmanager
def _worktree(repository: Path, commit: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="parity-bisect-") as folder:
        tree = Path(folder) / "tree"
        _git(repository, "worktree", "add", "--quiet", "--detach", str(tree), commit)
        try:
            yield tree
        finally:
            _git(repository, "worktree", "remove", "--force", "--force", str(tree))


def _commit(repository: Path, name: str) -> str:
    status, said = _said(repository, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    if status == 128 or "not a git repository" in said:
        raise ParityError(f"bisect: {repository.resolve()} is no git repository: run it in one")
    if status != 0:
        raise ParityError(f"bisect: no such commit {name!r}; `git log --oneline` lists them")
    return said.strip()


def _named(repository: Path, commit: str) -> str:
    return _git(repository, "show", "--no-patch", "--date=short", "--format=%h %s (%an, %ad)", "--abbrev=12", commit)


def _environment(tree: Path) -> dict[str, str]:
    """Return the surroundings of a check: the worktree's own package is the one that is imported."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, (str(tree), os.environ.get("PYTHONPATH", ""))))}


def _bisect(tree: Path, *words: str) -> tuple[int, str]:
    return _said(tree, "bisect", *words)


def _git(folder: Path, *words: str) -> str:
    status, said = _said(folder, *words)
    if status != 0:
        raise ParityError(f"git {words[0]} failed in {folder}: {said.strip()}")
    return said.strip()


def _said(folder: Path, *words: str) -> tuple[int, str]:
    """Return git's exit status and all that it says, in English and without a pager."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    command = ["git", "--no-pager", "-C", str(folder), *words]
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**kept, "LC_ALL": "C"},
            check=False,
        )
    except OSError as error:
        raise ParityError(f"git cannot be started ({error.strerror}): bisect needs it") from None
    return done.returncode, done.stdout
