"""Slurm and Donau: their directives, how a job's script reaches the other nodes, and their commands.

Donau has little public documentation. What is used here is what public job scripts agree on: ``#DSUB`` directives
and ``dsub -s`` of an executable script, ``--job_type cosched`` with ``-N`` nodes, the allocation file with a host in
the first column, ``dstart`` to reach a host, ``djob -ll`` and ``djob -T``.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from parity.errors import ParityError

PENDING, RUNNING, OVER, UNREACHABLE = "pending", "running", "over", "unreachable"
_WAITS = ["PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "WAITING", "QUEUED", "SUBMITTED"]
_ENDED = {  # as Slurm's manual has them, and as Donau's users do
    "slurm": "boot_fail cancelled completed deadline failed node_fail out_of_memory preempted revoked timeout",
    "donau": "succeeded finished done completed failed aborted cancelled canceled stopped killed terminated timeout",
}
_FORGOTTEN = re.compile(r"invalid job|not (?:exist|found)|no (?:such )?job", re.IGNORECASE)
_TIME_LIMIT = 60  # seconds, for a command of the scheduler


@dataclass(frozen=True)
class Request:
    """What is asked of a scheduler.

    Attributes:
        gpus, cpus, memory: on each node; memory in megabytes, 0 for the site's default.
        seconds: the time limit, 0 for the site's default.
        partition: of Slurm. ``queue``, ``label``, ``resources``: of Donau; ``resources`` replaces what ``-R`` asks for.
        directives: the user's own, without ``#SBATCH`` or ``#DSUB``.
    """

    nodes: int
    gpus: int
    cpus: int
    memory: int = 0
    seconds: int = 0
    account: str = ""
    partition: str = ""
    queue: str = ""
    label: str = ""
    resources: str = ""
    directives: tuple[str, ...] = ()


class Slurm:
    """``sbatch``, ``squeue`` and ``scancel``."""

    name = "slurm"
    lacks = ("queue", "label", "resources")

    def launch(self, nodes: int) -> str:
        """Return the lines that start ``node.sh`` on every node."""
        return (
            'head="$(hostname)"\n'  # this script runs on the first node
            "port=$((20000 + SLURM_JOB_ID % 20000))\n"
            f"srun --nodes={nodes} --ntasks-per-node=1 --kill-on-bad-exit=1"
            ' bash "$folder/node.sh" "$head" "$port" &\n'
            "children+=($!)"
        )

    def directives(self, request: Request, *, name: str, log: Path) -> list[str]:
        """Return the script's ``#SBATCH`` lines."""
        wanted = {
            "job-name": name,
            "nodes": request.nodes,
            "ntasks-per-node": 1,
            "cpus-per-task": request.cpus,
            "gres": f"gpu:{request.gpus}" if request.gpus else "",
            "mem": f"{request.memory}M" if request.memory else "",
            "time": _clock(request.seconds) if request.seconds else "",
            "account": request.account,
            "partition": request.partition,
            "output": log,
            "open-mode": "append",
            "signal": "B:TERM@60",  # so that the script can tell how it ended
        }
        lines = [f"#SBATCH --{key}={value}" for key, value in wanted.items() if value]
        lines.append("#SBATCH --no-requeue")  # or it would run again after it has told how it ended
        return lines + [f"#SBATCH {line}" for line in request.directives]

    def submit(self, script: Path) -> str:
        """Submit a script; return the job's id."""
        return _run(["sbatch", "--parsable", str(script)]).strip().split(";")[0]

    def state(self, job: str) -> str:
        """Return what the queue says: ``PENDING``, ``RUNNING``, ``OVER`` or ``UNREACHABLE``."""
        return _state(self.name, ["squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={job}"], r"^(\w+)")

    def cancel(self, job: str) -> None:
        """Cancel a job."""
        _run(["scancel", "--full", job])


class Donau:
    """``dsub`` and ``djob``."""

    name = "donau"
    lacks = ("partition",)

    def launch(self, nodes: int) -> str:
        """Return the lines that start ``node.sh`` on every node; one it does not get is an error, not a wait."""
        return f"""\
alloc="${{CCS_ALLOC_FILE:-${{CCSCHEDULER_ALLOC_FILE:?Donau names no file of allocated hosts}}}}"
mapfile -t hosts < <(awk 'NF && !seen[$1]++ {{print $1}}' "$alloc")
if [ "${{#hosts[@]}}" -ne {nodes} ]; then
  echo "parity: asked for {nodes} nodes, $alloc has ${{#hosts[@]}}: ${{hosts[*]}}" >&2
  exit 2
fi
head="${{hosts[0]}}"
port=$((20000 + ${{BATCH_JOB_ID:-$$}} % 20000))
reach="${{PARITY_REMOTE_SHELL:-/opt/batch/agent/tools/dstart}}"
for host in "${{hosts[@]}}"; do
  "$reach" "$host" bash "$folder/node.sh" "$head" "$port" &
  children+=($!)
done"""

    def directives(self, request: Request, *, name: str, log: Path) -> list[str]:
        """Return the script's ``#DSUB`` lines."""
        asked = {"cpu": request.cpus, "gpu": request.gpus, "mem": request.memory}
        resources = request.resources or ";".join(f"{key}={value}" for key, value in asked.items() if value)
        wanted = {
            "-n": name,
            "-A": request.account,
            "-q": request.queue,
            "-l": request.label,
            "--job_type": "cosched",
            "-R": f"'{resources}'",
            "-N": request.nodes,
            "-T": request.seconds,
            "-o": log,
            "-e": log,
        }
        lines = [f"#DSUB {key} {value}" for key, value in wanted.items() if value]
        return lines + [f"#DSUB {line}" for line in request.directives]

    def submit(self, script: Path) -> str:
        """Submit a script, which has to be executable; return the job's id."""
        output = _run(["dsub", "-s", str(script)])
        found = re.search(r"^\s*(\d+)\b", output, re.MULTILINE) or re.search(r"[Jj]ob\D{0,8}(\d+)", output)
        if not found:
            told = " ".join(output.split()) or "nothing"
            raise ParityError(f"dsub told no job id but {told[:200]!r}; look with djob before submitting again")
        return found[1]

    def state(self, job: str) -> str:
        """Return what the queue says; after the end it may say ``PENDING`` for a while."""
        return _state(self.name, ["djob", "-ll", job], r"^\s*state\s*[:=]?\s*(\w+)")

    def cancel(self, job: str) -> None:
        """Cancel a job."""
        _run(["djob", "-T", job])


SCHEDULERS: dict[str, Slurm | Donau] = {"slurm": Slurm(), "donau": Donau()}


def _state(scheduler: str, words: Sequence[str], pattern: str) -> str:
    """Return what a queue says of a job: no word is an end, a word that is not known is none."""
    try:
        output = _run(words)
    except ParityError as error:
        return OVER if _FORGOTTEN.search(f"{error} {error.detail}") else UNREACHABLE
    found = re.search(pattern, output, re.MULTILINE | re.IGNORECASE)
    word = found[1].upper() if found else ""
    return PENDING if word in _WAITS else OVER if not word or word.lower() in _ENDED[scheduler].split() else RUNNING


def _clock(seconds: int) -> str:
    """Return days-hours:minutes:seconds.

    >>> _clock(90061)
    '1-01:01:01'
    """
    hours, rest = divmod(seconds, 3600)
    return f"{hours // 24}-{hours % 24:02}:{rest // 60:02}:{rest % 60:02}"


def _run(words: Sequence[str]) -> str:
    """Run a command of a scheduler; return what it printed.

    Raises:
        ParityError: there is no such command, it failed or hangs; its own words are in the message.
    """
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=_TIME_LIMIT)
    except FileNotFoundError:
        raise ParityError(f"{words[0]}: no such command; submit from a login node of the cluster") from None
    except subprocess.TimeoutExpired:
        raise ParityError(f"{words[0]} does not answer within {_TIME_LIMIT} seconds") from None
    if done.returncode:
        told = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        reason = told[0].strip() if told else f"exit status {done.returncode}"
        raise ParityError(f"{words[0]} failed: {reason}", detail="\n".join(told[1:]))
    return done.stdout
