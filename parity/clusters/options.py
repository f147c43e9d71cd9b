"""The words of ``parity submit`` and ``parity jobs``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from parity.errors import ParityError


def add_submit(commands: Any) -> None:
    """Add ``submit``."""
    submit = commands.add_parser("submit", help="run AP or training as a job of a cluster")
    submit.add_argument("case", metavar="CASE")
    submit.add_argument("--task", choices=("ap", "train"), default="ap")
    submit.add_argument("--scheduler", choices=("slurm", "donau"), required=True)
    submit.add_argument("--gpus", type=int, default=8, metavar="N", help="on each node (default: 8)")
    submit.add_argument("--nodes", type=int, default=1, metavar="N")
    submit.add_argument("--cpus", type=int, default=0, metavar="N", help="on each node (default: 6 for each GPU)")
    submit.add_argument("--memory", type=int, default=0, metavar="MB", help="on each node")
    submit.add_argument("--time", default="", metavar="[D-]H:M:S", help="the job's time limit")
    submit.add_argument("--account", default="", metavar="A")
    submit.add_argument("--partition", default="", metavar="P", help="Slurm's")
    submit.add_argument("--queue", default="", metavar="Q", help="Donau's")
    submit.add_argument("--label", default="", metavar="L", help="Donau's, of nodes")
    submit.add_argument("--resources", default="", metavar="R", help="Donau's -R, where the site wants another form")
    submit.add_argument("--directive", action="append", default=[], metavar="TEXT", help="one more, such as --qos=high")
    submit.add_argument("--setup", action="append", default=[], metavar="LINE", help="such as 'module load cuda/12.1'")
    submit.add_argument(
        "--options", default="", metavar="TEXT", help="for the task: --options='--coco-root /data/coco'"
    )
    submit.add_argument("--state", type=Path, metavar="DIR", help="where the book of jobs is")
    submit.add_argument("--dry-run", action="store_true", help="show the scripts, write and submit nothing")
    submit.set_defaults(run=_submit)


def add_jobs(commands: Any) -> None:
    """Add ``jobs``."""
    jobs = commands.add_parser("jobs", help="list, follow or cancel what was submitted")
    jobs.add_argument("action", nargs="?", choices=("list", "follow", "cancel"), default="list")
    jobs.add_argument("number", nargs="?", type=int, metavar="NUMBER")
    jobs.add_argument("--state", type=Path, metavar="DIR", help="where the book of jobs is")
    jobs.set_defaults(run=_jobs)


def _submit(options: argparse.Namespace) -> int:
    from parity.clusters.commands import submit

    print("\n".join(submit(options)))
    return 0


def _jobs(options: argparse.Namespace) -> int:
    from parity.clusters.book import Book
    from parity.clusters.commands import follow, listing

    book = Book(options.state)
    if options.action == "list":
        shown = False
        for line in listing(book):
            print(line)
            shown = True
        if not shown:
            print(f"{book.folder}: no job")
        return 0
    if options.number is None:
        raise ParityError(f"parity jobs {options.action} needs the job's number; `parity jobs` lists them")
    if options.action == "follow":
        return 0 if follow(book, options.number) else 1
    job = book.cancel(book.find_submitted(options.number))
    print(f"job {job.number}: asked {job.scheduler} to end {job.scheduler_id}")
    return 0
