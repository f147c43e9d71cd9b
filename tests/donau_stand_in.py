"""Stand-ins for Donau's commands, as far as public job scripts and notes tell how those behave.

``dsub -s`` takes executable scripts with ``#DSUB`` lines only, runs them with an allocation file and prints a table;
``djob -ll`` goes on to say PENDING; ``djob -T`` ends a job; ``dstart`` runs a command on a host, here this one.
"""

from __future__ import annotations

import sys
from pathlib import Path

DSUB = """#!{python}
import os, re, subprocess, sys
folder = {folder!r}
if sys.argv[1:2] != ["-s"] or not os.access(sys.argv[2], os.X_OK):
    sys.exit("dsub: the script cannot be executed")
asked = dict(re.findall(r"^#DSUB (-+\\w+) (.*)$", open(sys.argv[2]).read(), re.M))
if asked["--job_type"] != "cosched" or asked.get("-A") == "nobody":
    sys.exit("dsub: account nobody is not allowed")
number = str(4710 + len(os.listdir(folder)))
hosts = ["localhost", "127.0.0.1", "127.0.0.2"][: int(asked["-N"])]
with open(f"{{folder}}/{{number}}.hosts", "w") as file:
    file.write("".join(f"{{host}} 48 1\\n" for host in hosts) + "\\n")
# A port is made of this id: two runs of these tests on one machine must not meet.
environment = dict(os.environ, CCSCHEDULER_ALLOC_FILE=file.name, BATCH_JOB_ID=str(os.getpid()))
output = open(asked["-o"], "a")
child = subprocess.Popen([sys.argv[2]], env=environment, stdout=output, stderr=output, start_new_session=True)
open(f"{{folder}}/{{number}}.pid", "w").write(str(child.pid))
print("JOBID        MESSAGE\\n" + number + "      Submit job successfully")
"""
DJOB = """#!{python}
import os, signal, sys
folder = {folder!r}
flag, number = sys.argv[1:]
try:
    child = int(open(f"{{folder}}/{{number}}.pid").read())
except OSError:
    sys.exit(f"djob: no job {{number}}")
if flag == "-T":
    os.kill(child, signal.SIGTERM)
else:
    print(f"jobId      {{number}}\\nname       x\\nstate      PENDING\\njobExitCode  0")
"""
DSTART = """#!/bin/sh
echo "started on $1"
shift
exec "$@"
"""


def install(folder: Path) -> Path:
    """Write the commands below ``folder``; return the folder that has to be on the path."""
    programs, jobs = folder / "bin", folder / "jobs"
    programs.mkdir(parents=True)
    jobs.mkdir()
    for name, text in (("dsub", DSUB), ("djob", DJOB)):
        (programs / name).write_text(text.format(python=sys.executable, folder=str(jobs)))
    (programs / "dstart").write_text(DSTART)
    for path in programs.iterdir():
        path.chmod(0o755)
    return programs
