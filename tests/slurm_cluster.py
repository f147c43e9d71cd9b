"""A real Slurm of one machine: a controller and two nodes, with folders, ports and configuration of their own.

Debian has it: ``apt-get install slurm-wlm``. No service of the machine is touched; everything ends with the test.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "scancel", "srun", "scontrol", "sinfo")
CONFIG = """
ClusterName=parity
SlurmctldHost={host}
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,batch_sched_delay=0,defer_batch
KillWait=30
MinJobAge=2
FirstJobId={first}
GresTypes=gpu
SlurmdParameters=config_overrides
NodeName=one NodeHostname={host} CPUs=2 RealMemory=500 Port={one} Gres=gpu:2 State=UNKNOWN
NodeName=two NodeHostname={host} CPUs=2 RealMemory=500 Port={two} Gres=gpu:2 State=UNKNOWN
PartitionName=parity Nodes=ALL Default=YES MaxTime=10 State=UP
"""


def missing() -> str:
    """Return what keeps Slurm from being started here, empty if nothing does."""
    places = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    absent = [name for name in PROGRAMS if not shutil.which(name, path=places)]
    return f"no {', '.join(absent)}: apt-get install slurm-wlm" if absent else ""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def running_slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Start Slurm below ``folder``; yield the environment in which its commands reach it, and end it."""
    host = socket.gethostname().split(".")[0]
    settings = {
        "host": host,
        "user": getpass.getuser(),
        "folder": folder,
        "first": os.getpid(),
    }  # ports are made of ids
    text = CONFIG.format(**settings, controller=free_port(), one=free_port(), two=free_port())
    (folder / "state").mkdir(parents=True)
    (folder / "slurm.conf").write_text(text)
    (folder / "gres.conf").write_text(
        "Name=gpu File=/dev/zero\nName=gpu File=/dev/full\n"
    )  # two files are two GPUs to it
    environment = {
        **os.environ,
        "SLURM_CONF": str(folder / "slurm.conf"),
        "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin",
    }
    with contextlib.ExitStack() as ending:
        for words in (("slurmctld",), ("slurmd", "-N", "one"), ("slurmd", "-N", "two")):
            with (folder / f"{'-'.join(words)}.out").open("wb") as output:
                process = subprocess.Popen([*words, "-D"], env=environment, stdout=output, stderr=output)
            ending.callback(stop, process)
        wait_until_idle(folder, environment)
        yield environment


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_until_idle(folder: Path, environment: dict[str, str], seconds: float = 120) -> None:
    said = ""
    for _ in range(int(seconds / 0.2)):
        done = subprocess.run(
            ["sinfo", "--noheader", "--format=%T"], env=environment, capture_output=True, text=True, check=False
        )
        said = (done.stdout + done.stderr).strip()
        if said.splitlines() == ["idle"]:
            return
        time.sleep(0.2)
    logs = "\n".join(f"{path.name}: {path.read_text()[-800:]}" for path in sorted(folder.glob("*.log")))
    outputs = "\n".join(f"{path.name}: {path.read_text()[-800:]}" for path in sorted(folder.glob("*.out")))
    pytest.fail(f"Slurm's node is not ready but {said!r}\n{logs}\n{outputs}")
