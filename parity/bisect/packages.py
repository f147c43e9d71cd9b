"""Bisecting environments: of the packages that differ between two requirement files, the one that broke it."""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from parity.bisect.commits import Found, Progress, require
from parity.bisect.probe import Check, Outcome, Told, run
from parity.errors import ParityError

BUILD = "python3 -m venv {folder} && {folder}/bin/python -m pip install --quiet -r {requirements}"
_NAME = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)")


@dataclass(frozen=True)
class Difference:
    """A package that differs; a line is nothing where the package is not there."""

    name: str
    good: str | None
    bad: str | None

    def __str__(self) -> str:
        """Return it for people."""
        return f"{self.name}: {self.good or 'not there'} -> {self.bad or 'not there'}"


def read_requirements(path: Path) -> dict[str, str]:
    """Return package name -> its line, of a file as ``pip freeze`` writes it.

    Raises:
        ParityError: it is missing, or a line names no package (an option such as ``-r``, an editable one).
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ParityError(f"{path} cannot be read ({error}): `pip freeze > {path.name}` writes one") from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        text = re.sub(r"(^|\s)#.*", "", line).strip()
        name = _NAME.match(text)
        if text and not name:
            raise ParityError(f"{path}, line {number}: {text!r} names no package; `pip freeze` writes one a line")
        if name:
            found[re.sub("[-_.]+", "-", name[1]).lower()] = text
    return found


def differences(good: Mapping[str, str], bad: Mapping[str, str]) -> list[Difference]:
    """Return the packages that differ, by name."""
    names = sorted(good.keys() | bad.keys())
    return [Difference(name, good.get(name), bad.get(name)) for name in names if good.get(name) != bad.get(name)]


def bisect_packages(good: Path, bad: Path, check: Check, *, build: str = BUILD, progress: Progress = print) -> Found:
    """Return the package with whose change the check begins to fail, or those among which it is.

    The packages are changed one after the other, by name, from the good file's to the bad one's; ``build`` is a shell
    command that makes the environment of ``{requirements}`` in ``{folder}``. Where it fails (versions that do not go
    together), nothing can be told of that mixture.

    Raises:
        ParityError: a file is bad or both are the same; the good environment is not good, or the bad one not bad.
    """
    before, after = read_requirements(good), read_requirements(bad)
    changes = differences(before, after)
    if not changes:
        raise ParityError(f"bisect: {good} and {bad} ask for the same packages: there is nothing between them")
    told: dict[frozenset[str], Told] = {}

    def tell(changed: Sequence[Difference]) -> Told:
        key = frozenset(change.name for change in changed)
        if key not in told:
            told[key] = tell_environment({**before, **_lines(changed)}, check, build)
            progress(f"{len(key)} of {len(changes)} changed{f', up to {changed[-1]}' if changed else ''}: {told[key]}")
        return told[key]

    require(str(good), tell([]), Outcome.GOOD, check)
    require(str(bad), tell(changes), Outcome.BAD, check)
    last_good, first_bad = narrow(len(changes), lambda count: tell(changes[:count]).outcome)
    suspects = changes[last_good:first_bad]
    return Found(tuple(map(str, suspects)), _notes(suspects, changes[:last_good], tell, len(changes)))


def narrow(count: int, tell: Callable[[int], Outcome]) -> tuple[int, int]:
    """Return the last good and the first bad of 0 (good) to ``count`` (bad); what tells nothing is passed over.

    >>> narrow(8, lambda at: Outcome.BAD if at >= 5 else Outcome.GOOD)
    (4, 5)
    >>> narrow(8, lambda at: Outcome.UNKNOWN if at in (4, 5) else Outcome.BAD if at > 5 else Outcome.GOOD)
    (3, 6)
    """
    low, high, silent = 0, count, set[int]()
    while left := [at for at in range(low + 1, high) if at not in silent]:
        at = min(left, key=lambda candidate: abs(candidate - (low + high) / 2))
        outcome = tell(at)
        if outcome is Outcome.GOOD:
            low = at
        elif outcome is Outcome.BAD:
            high = at
        else:
            silent.add(at)
    return low, high


def _notes(
    suspects: Sequence[Difference], before: Sequence[Difference], tell: Callable[[Sequence[Difference]], Told], of: int
) -> tuple[str, ...]:
    if len(suspects) > 1:
        return (f"it is one of these {len(suspects)}: the mixtures between told nothing (see above)",)
    if not before:
        return ("no other package was changed",)
    alone = tell(suspects).outcome
    if alone is Outcome.BAD:
        return (f"it alone does it: the other {of - 1} that differ do not matter",)
    return (f"with it alone the check is {alone.value}: it takes one of {', '.join(c.name for c in before)} as well",)


def _lines(changed: Sequence[Difference]) -> dict[str, str]:
    return {change.name: change.bad or "" for change in changed}


def tell_environment(lines: Mapping[str, str], check: Check, build: str = BUILD) -> Told:
    """Make the environment of some requirement lines, and return what the check says in it."""
    with tempfile.TemporaryDirectory(prefix="parity-bisect-") as temporary:
        folder, requirements = Path(temporary) / "environment", Path(temporary) / "requirements.txt"
        requirements.write_text("".join(f"{line}\n" for line in lines.values() if line), encoding="utf-8")
        places = {"{folder}": shlex.quote(str(folder)), "{requirements}": shlex.quote(str(requirements))}
        status = run(_filled(build, places), Path.cwd(), os.environ)
        if status != 0:
            return Told(Outcome.UNKNOWN, (status,))
        path = os.pathsep.join(filter(None, (str(folder / "bin"), os.environ.get("PATH", ""))))
        return check.tell(Path.cwd(), {**os.environ, "PATH": path, "VIRTUAL_ENV": str(folder)})


def _filled(template: str, places: Mapping[str, str]) -> str:
    for mark, text in places.items():
        template = template.replace(mark, text)
    return template
