"""``parity bisect``: its options, and what it says."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from parity.errors import ParityError

FOUND, NARROWED = 0, 1


def add_bisect(commands: Any) -> None:
    """Add ``parity bisect``."""
    bisect = commands.add_parser(
        "bisect",
        help="name the change that broke it: a commit, or a package",
        description="Exit 0 of COMMAND is good, 1 is bad; whatever exits otherwise is passed over, as git bisect does.",
    )
    bisect.add_argument("good", metavar="GOOD", help="a commit where COMMAND passes, or a pip freeze file")
    bisect.add_argument("bad", metavar="BAD", help="a commit where COMMAND fails, or a pip freeze file")
    bisect.add_argument("check", nargs="+", metavar="COMMAND", help="after --; in quotes, it goes through the shell")
    bisect.add_argument("--environments", action="store_true", help="GOOD and BAD are files as pip freeze writes them")
    bisect.add_argument("--build", metavar="CMD", help="make the environment of {requirements} in {folder}, by a shell")
    bisect.add_argument("--setup", default="", metavar="CMD", help="run this before COMMAND, by a shell")
    bisect.add_argument("--repeat", type=int, default=2, metavar="N", help="runs that have to agree (default: 2)")
    bisect.add_argument("--time-limit", type=float, metavar="SECONDS", help="for one run of COMMAND")
    bisect.set_defaults(run=_bisect)


def _bisect(options: argparse.Namespace) -> int:
    from parity.bisect.commits import bisect_commits
    from parity.bisect.packages import BUILD, bisect_packages
    from parity.bisect.probe import Check

    if options.repeat < 1:
        raise ParityError(f"--repeat {options.repeat}: it takes one run at least")
    check = Check(options.check, options.repeat, options.time_limit, options.setup)
    if options.environments:
        build = options.build or BUILD
        found = bisect_packages(Path(options.good), Path(options.bad), check, build=build, progress=_say)
    elif options.build:
        raise ParityError("--build goes with --environments; --setup makes a commit ready")
    else:
        found = bisect_commits(options.good, options.bad, check, repository=Path(), progress=_say)
    print(f"\nbroken by {found.suspects[0]}" if len(found.suspects) == 1 else "\nbroken by one of:")
    for line in found.suspects if len(found.suspects) > 1 else ():
        print(f"  {line}")
    for note in found.notes:
        print(note)
    return FOUND if len(found.suspects) == 1 else NARROWED


def _say(line: str) -> None:
    print(line, flush=True)
