"""What a job runs: one function that returns the command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence

TASKS = ("ap", "train")
Words = tuple[str, ...]


def module_call(task: str, case: str, *, gpus: int, extra: Sequence[str] = ()) -> Words:
    """Return a Python module and its arguments.

    Args:
        gpus: on each node.
        extra: the user's own arguments, which come last.
    """
    if task == "ap":
        return ("pytest", "parity", "-m", "full_ap", "--case", case, "--gpus", str(gpus), *extra)
    return ("parity", "train", case, "--engine", "new", *extra)


def node_command(task: str, call: Words, *, gpus: int, nodes: int, name: str) -> str:
    """Return the shell's words that start a task on one node; ``$1`` is the host and ``$2`` the port to meet at.

    AP on one node starts its own processes, one for each GPU. All else on more than one GPU runs under torchrun:
    each process finds RANK, WORLD_SIZE and LOCAL_RANK in its environment.
    """
    python = [sys.executable, "-m"]
    if nodes == 1 and (task == "ap" or gpus <= 1):
        return quote([*python, *call])
    run = [*python, "torch.distributed.run", f"--nnodes={nodes}", f"--nproc-per-node={max(gpus, 1)}"]
    if nodes == 1:
        return quote([*run, "--standalone", "--module", *call])
    meeting = quote(["--rdzv-backend=c10d", f"--rdzv-id={name}"]) + ' --rdzv-endpoint="$1:$2"'
    return f"{quote(run)} {meeting} {quote(['--module', *call])}"


def quote(words: Sequence[str]) -> str:
    """Return words as a shell reads them.

    >>> quote(["a b", "--c=d"])
    "'a b' --c=d"
    """
    from shlex import join

    return join(words)
