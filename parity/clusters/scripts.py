"""The two scripts of a job: one that the scheduler runs, and one that runs on every node.

The queue is not trusted to say how a job ended: the script writes ``exit-code`` beside itself.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from parity.clusters.schedulers import Donau, Request, Slurm

_JOB = """#!/usr/bin/env bash
{directives}
# Written by `parity submit`. How the job ended is in exit-code beside this file, whatever the queue says.
folder={folder}
children=()
trap 'code=$?; echo "$code" > "$folder/exit-code.part" && mv "$folder/exit-code.part" "$folder/exit-code"' EXIT
stop() {{
  trap '' TERM INT
  [ "${{#children[@]}}" -eq 0 ] || kill -TERM "${{children[@]}}" 2>/dev/null
  wait
  exit 143
}}
trap stop TERM INT
rm -f "$folder/exit-code"
date +%s > "$folder/started"
{launch}
code=0
for child in "${{children[@]}}"; do
  wait "$child" || code=$?
done
exit "$code"
"""
_NODE = """#!/usr/bin/env bash
# What runs on every node of the job; $1 is the host and $2 the port to meet at.
set -e
{environment}cd {working}
{setup}exec {command}
"""


def job_script(scheduler: Slurm | Donau, request: Request, *, name: str, folder: Path) -> str:
    """Return the script that the scheduler runs, on the first node."""
    alone = 'bash "$folder/node.sh" &\nchildren+=($!)'
    return _JOB.format(
        directives="\n".join(scheduler.directives(request, name=name, log=folder / "log.txt")),
        folder=quote(str(folder)),
        launch=alone if request.nodes == 1 else scheduler.launch(request.nodes),
    )


def node_script(command: str, *, working: Path, setup: Sequence[str] = ()) -> str:
    """Return the script of a node.

    Args:
        command: words for the shell, quoted where they have to be.
        working: the folder to run in.
        setup: lines that come first, such as ``module load cuda/12.1``.
    """
    path = os.environ.get("PYTHONPATH")
    return _NODE.format(
        environment=f"export PYTHONPATH={quote(path)}\n" if path else "",
        working=quote(str(working)),
        setup="".join(f"{line}\n" for line in setup),
        command=command,
    )
