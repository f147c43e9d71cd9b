"""What ``parity submit`` and ``parity jobs`` do, behind their options."""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from parity.cases.registry import find_case
from parity.clusters.book import ENDED, Book, Job
from parity.clusters.schedulers import SCHEDULERS, Donau, Request, Slurm
from parity.clusters.scripts import job_script, node_script
from parity.clusters.tasks import module_call, node_command
from parity.errors import ParityError
from parity.report.files import write_text

_CPUS_PER_GPU = 6
_LOST_AFTER = 3  # looks: on a shared file system the exit code may arrive after the queue has forgotten the job


def submit(options: argparse.Namespace) -> list[str]:
    """Write a job's scripts and submit it; with ``dry_run`` only show them. Return what to tell, a line each.

    Raises:
        ParityError: an option is wrong, or the scheduler refuses.
    """
    case = find_case(options.case).id
    scheduler = SCHEDULERS[options.scheduler]
    request = request_of(options, scheduler)
    call = module_call(options.task, case, gpus=request.gpus, extra=_words(options.options))
    if options.dry_run:
        name = f"parity-NUMBER-{options.task}-{case}"
        scripts = _scripts(options, scheduler, request, call, name=name, folder=Book(options.state).folder / "NUMBER")
        return [f"# {file}\n{text}" for file, text in scripts.items()]
    book = Book(options.state)
    job = submit_call(book, options, scheduler, request, call, case=case)
    return [
        f"job {job.number} is {job.scheduler}'s {job.scheduler_id}; `parity jobs follow {job.number}` shows its output",
        f"  {job.folder}",
    ]


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ParityError(f"--options {text}: {error}") from None


def submit_call(
    book: Book,
    options: argparse.Namespace,
    scheduler: Slurm | Donau,
    request: Request,
    call: tuple[str, ...],
    *,
    case: str,
) -> Job:
    """Submit any Python module with its arguments as a job; return it as the book has it."""
    job = replace(book.open(task=options.task, case=case, scheduler=scheduler.name), submitted=int(time.time()))
    try:
        name = f"parity-{job.number}-{job.task}-{case}"
        for file, text in _scripts(options, scheduler, request, call, name=name, folder=job.folder).items():
            write_text(job.folder / file, text).chmod(0o755)  # Donau takes no other
        book.save(job)  # if this process ends before the scheduler answers, the job is in the book
        job = replace(job, scheduler_id=scheduler.submit(job.folder / "job.sh"))
    except ParityError:
        book.forget(job)
        raise
    try:
        book.save(job)
    except ParityError as error:
        raise ParityError(f"job {job.number} was taken as {job.scheduler}'s {job.scheduler_id}, but {error}") from None
    return job


def _scripts(
    options: argparse.Namespace,
    scheduler: Slurm | Donau,
    request: Request,
    call: tuple[str, ...],
    *,
    name: str,
    folder: Path,
) -> dict[str, str]:
    command = node_command(options.task, call, gpus=request.gpus, nodes=request.nodes, name=name)
    return {
        "job.sh": job_script(scheduler, request, name=name, folder=folder),
        "node.sh": node_script(command, working=Path.cwd(), setup=options.setup),
    }


def request_of(options: argparse.Namespace, scheduler: Slurm | Donau) -> Request:
    """Return what is asked of the scheduler.

    Raises:
        ParityError: an option is out of range, or none of this scheduler's.
    """
    for name in scheduler.lacks:
        if getattr(options, name):
            raise ParityError(f"--{name}: {scheduler.name} has no such thing")
    least = {"nodes": 1, "gpus": 0, "cpus": 0, "memory": 0}
    for name, value in least.items():
        if getattr(options, name) < value:
            raise ParityError(f"--{name} {getattr(options, name)}: give at least {value}")
    for name in ("account", "partition", "queue", "label", "resources"):
        if set(getattr(options, name)) & set("\n'"):
            raise ParityError(f"--{name} {getattr(options, name)!r}: a line's end or a quote cannot be in a directive")
    for directive in options.directive:
        if "\n" in directive:
            raise ParityError(f"--directive {directive!r}: a line's end cannot be in a directive")
    return Request(
        nodes=options.nodes,
        gpus=options.gpus,
        cpus=options.cpus or max(1, _CPUS_PER_GPU * options.gpus),
        memory=options.memory,
        seconds=seconds_of(options.time) if options.time else 0,
        account=options.account,
        partition=options.partition,
        queue=options.queue,
        label=options.label,
        resources=options.resources,
        directives=tuple(options.directive),
    )


def seconds_of(text: str) -> int:
    """Return the seconds of ``[DAYS-]HOURS:MINUTES:SECONDS``.

    >>> seconds_of("1-00:00:30")
    86430
    """
    days, _, clock = text.rpartition("-")
    try:
        hours, minutes, seconds = (int(part) for part in clock.split(":"))
        total = int(days or 0) * 86400 + hours * 3600 + minutes * 60 + seconds
    except ValueError:
        total = 0
    if total <= 0:
        raise ParityError(f"--time {text}: give [days-]hours:minutes:seconds, such as 12:00:00")
    return total


def listing(book: Book) -> Iterator[str]:
    """Yield a line for each job."""
    for job in book.jobs():
        code = job.exit_code()
        state = job.state() + (f" ({code})" if code else "")
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(job.submitted))
        yield f"{job.number:>4}  {state:14} {job.task:5} {job.case:28} {job.scheduler} {job.scheduler_id}  {when}"


def follow(book: Book, number: int, *, every: float = 2.0) -> bool:
    """Print a job's output as it comes, until it has ended; return whether it succeeded."""
    job, shown, looks = book.find_submitted(number), 0, 0
    while True:
        state = job.state()
        shown = _show(job.log, shown)
        looks = looks + 1 if state == "lost" else 0
        if state in ENDED and (state != "lost" or looks == _LOST_AFTER):
            code = job.exit_code()
            print(f"job {number}: {state}" + (f", exit status {code}" if code else ""))
            return state == "succeeded"
        time.sleep(every)
        job = book.find(number)


def _show(log: Path, shown: int) -> int:
    """Print what a file has beyond ``shown`` bytes; return how many it has."""
    try:
        with log.open("rb") as file:
            file.seek(shown)
            new = file.read()
    except OSError:
        return shown
    print(new.decode(errors="replace"), end="", flush=True)
    return shown + len(new)
