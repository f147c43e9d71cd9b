"""Jobs on clusters that run: a real Slurm of two nodes, Donau's scripts against stand-ins of its commands."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import donau_stand_in
import pytest
import slurm_cluster

from parity.cli import build_parser
from parity.clusters.book import Book, Job
from parity.clusters.commands import follow, request_of, submit_call
from parity.clusters.schedulers import SCHEDULERS
from parity.errors import ParityError

Command = Callable[..., tuple[int, str, str]]
Submit = Callable[..., Job]
CASE = "ddq_fcn_r50_12e"
MEET = """
import sys, torch, torch.distributed as group
group.init_process_group("gloo")
total = torch.ones(1)
group.all_reduce(total)
met = f"rank {group.get_rank()} of {group.get_world_size()}: {int(total)}, arguments {sys.argv[1:]}"
sys.stdout.write(met + "\\n")  # one write: unbuffered, print's own line end could follow another rank's line
group.destroy_process_group()
"""
WORK = """
import os, sys, time
print("worked with", sys.argv[1:], os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("MODULE"), flush=True)
if "kill" in sys.argv:
    os.kill(os.getppid(), 9)
if "wait" in sys.argv:
    time.sleep(600)
sys.exit(3 if "fail" in sys.argv else 0)
"""


@pytest.fixture
def submit(tmp_path: Path, book: Book, monkeypatch: pytest.MonkeyPatch) -> Submit:
    """Return a function that submits ``work.py`` or ``meet.py`` of a folder with these arguments."""
    (tmp_path / "work.py").write_text(WORK)
    (tmp_path / "meet.py").write_text(MEET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def run(scheduler: str, *call: str, words: tuple[str, ...] = ()) -> Job:
        options = parsed("--scheduler", scheduler, *words)
        chosen = SCHEDULERS[scheduler]
        return submit_call(book, options, chosen, request_of(options, chosen), call, case=CASE)

    return run


def parsed(*words: str) -> argparse.Namespace:
    return build_parser().parse_args(["submit", CASE, *words])


def until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


# Slurm


@pytest.fixture(scope="module")
def slurm_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    missing = slurm_cluster.missing()
    if missing:
        pytest.skip(missing)
    with slurm_cluster.running_slurm(tmp_path_factory.mktemp("slurm") / "slurm") as environment:
        yield environment


@pytest.fixture
def slurm(slurm_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, slurm_environment[name])


def test_a_machine_without_slurm_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path: None if name == "slurmctld" else name)
    assert slurm_cluster.missing() == "no slurmctld: apt-get install slurm-wlm"


@pytest.mark.usefixtures("slurm")
def test_slurm_runs_a_job(book: Book, submit: Submit, parity_command: Command) -> None:
    job = submit("slurm", "work", "a b", words=("--gpus", "2", "--cpus", "1", "--setup", "export MODULE='cuda 12'"))
    assert job.scheduler_id.isdigit()
    assert parity_command("jobs", "follow", 1, "--state", book.folder) == (
        0,
        "worked with ['a b'] 0,1 cuda 12\njob 1: succeeded\n",
        "",
    )
    (line,) = parity_command("jobs", "--state", book.folder)[1].splitlines()
    assert line.split()[:6] == ["1", "succeeded", "ap", CASE, "slurm", job.scheduler_id]


@pytest.mark.usefixtures("slurm")
def test_slurm_tells_a_failure(book: Book, submit: Submit, parity_command: Command) -> None:
    submit("slurm", "work", "fail", words=("--gpus", "0"))
    status, out, _ = parity_command("jobs", "follow", 1, "--state", book.folder)
    assert (status, out.splitlines()[-1]) == (1, "job 1: failed, exit status 3")
    assert "failed (3)" in parity_command("jobs", "--state", book.folder)[1]


@pytest.mark.usefixtures("slurm")
def test_slurm_ends_a_job_on_demand(book: Book, submit: Submit, parity_command: Command) -> None:
    job = submit("slurm", "work", "wait", words=("--gpus", "0"))
    until(lambda: job.log.exists() and "worked" in job.log.read_text())
    assert job.state() == "running"
    status, out, _ = parity_command("jobs", "cancel", 1, "--state", book.folder)
    assert (status, out) == (0, f"job 1: asked slurm to end {job.scheduler_id}\n")
    until(lambda: book.find(1).state() == "cancelled")
    until(lambda: job.exit_code() == 143)
    status, _, err = parity_command("jobs", "cancel", 1, "--state", book.folder)
    assert (status, err) == (2, "parity: job 1 has ended: cancelled\n")


@pytest.mark.usefixtures("slurm")
def test_a_job_that_is_killed_is_lost(book: Book, submit: Submit, capsys: pytest.CaptureFixture[str]) -> None:
    job = submit("slurm", "work", "kill", words=("--gpus", "0"))
    until(lambda: job.state() == "lost")
    assert job.exit_code() is None
    assert not follow(book, 1, every=0.05)
    assert capsys.readouterr().out.endswith("job 1: lost\n")


@pytest.mark.usefixtures("slurm")
def test_two_nodes_of_slurm_meet(book: Book, submit: Submit) -> None:
    job = submit("slurm", "meet", "a b", words=("--gpus", "0", "--cpus", "1", "--nodes", "2"))
    assert follow(book, 1, every=0.2), job.log.read_text()
    met = [line for line in job.log.read_text().splitlines() if line.startswith("rank")]
    assert sorted(met) == ["rank 0 of 2: 2, arguments ['a b']", "rank 1 of 2: 2, arguments ['a b']"]


@pytest.mark.usefixtures("slurm")
def test_what_slurm_refuses_is_one_line_and_leaves_no_job(book: Book, parity_command: Command) -> None:
    words = ("--scheduler", "slurm", "--partition", "none", "--state", book.folder)
    status, _, err = parity_command("submit", CASE, *words)
    assert status == 2
    assert err.startswith("parity: sbatch failed: sbatch: error: invalid partition specified: none\n")
    assert list(book.jobs()) == list(book.folder.iterdir()) == []


# Donau


@pytest.fixture
def donau(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = donau_stand_in.install(tmp_path / "donau")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("PARITY_REMOTE_SHELL", str(programs / "dstart"))


DONAU_JOB = """#!/usr/bin/env bash
#DSUB -n parity-NUMBER-train-ddq_fcn_r50_12e
#DSUB -A root.me
#DSUB -q root.default
#DSUB -l a100
#DSUB --job_type cosched
#DSUB -R 'cpu=48;gpu=8;mem=300000'
#DSUB -N 2
#DSUB -T 43200
#DSUB -o FOLDER/log.txt
#DSUB -e FOLDER/log.txt
#DSUB --exclusive
# Written by `parity submit`. How the job ended is in exit-code beside this file, whatever the queue says.
folder=FOLDER
children=()
trap 'code=$?; echo "$code" > "$folder/exit-code.part" && mv "$folder/exit-code.part" "$folder/exit-code"' EXIT
stop() {
  trap '' TERM INT
  [ "${#children[@]}" -eq 0 ] || kill -TERM "${children[@]}" 2>/dev/null
  wait
  exit 143
}
trap stop TERM INT
rm -f "$folder/exit-code"
date +%s > "$folder/started"
alloc="${CCS_ALLOC_FILE:-${CCSCHEDULER_ALLOC_FILE:?Donau names no file of allocated hosts}}"
mapfile -t hosts < <(awk 'NF && !seen[$1]++ {print $1}' "$alloc")
if [ "${#hosts[@]}" -ne 2 ]; then
  echo "parity: asked for 2 nodes, $alloc has ${#hosts[@]}: ${hosts[*]}" >&2
  exit 2
fi
head="${hosts[0]}"
port=$((20000 + ${BATCH_JOB_ID:-$$} % 20000))
reach="${PARITY_REMOTE_SHELL:-/opt/batch/agent/tools/dstart}"
for host in "${hosts[@]}"; do
  "$reach" "$host" bash "$folder/node.sh" "$head" "$port" &
  children+=($!)
done
code=0
for child in "${children[@]}"; do
  wait "$child" || code=$?
done
exit "$code"
"""
DONAU_NODE = """#!/usr/bin/env bash
# What runs on every node of the job; $1 is the host and $2 the port to meet at.
set -e
cd WORKING
module load cuda/12.1
exec PYTHON -m torch.distributed.run --nnodes=2 --nproc-per-node=8 --rdzv-backend=c10d \
--rdzv-id=parity-NUMBER-train-ddq_fcn_r50_12e --rdzv-endpoint="$1:$2" \
--module parity train ddq_fcn_r50_12e --engine new --work-dir 'a b'
"""


def test_donaus_scripts_are_these(
    book: Book, parity_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    words = (
        "--task train --scheduler donau --nodes 2 --account root.me --queue root.default --label a100 --memory 300000"
    )
    more = ("--time", "12:00:00", "--directive=--exclusive", "--setup", "module load cuda/12.1", "--dry-run")
    options = "--options=--work-dir 'a b'"
    status, out, _ = parity_command("submit", CASE, *words.split(), *more, options, "--state", book.folder)
    assert status == 0
    places = {"FOLDER": f"{book.folder}/NUMBER", "WORKING": str(tmp_path), "PYTHON": sys.executable}
    expected = f"# job.sh\n{DONAU_JOB}\n# node.sh\n{DONAU_NODE}\n"
    for name, place in places.items():
        expected = expected.replace(name, place)
    assert out == expected
    assert not book.folder.exists()


@pytest.mark.usefixtures("donau")
def test_donau_runs_a_job_and_its_queue_is_not_trusted(book: Book, submit: Submit, parity_command: Command) -> None:
    job = submit("donau", "work", "x", words=("--gpus", "1"))
    assert job.scheduler_id == "4710"
    status, out, _ = parity_command("jobs", "follow", 1, "--state", book.folder)
    assert (status, out.splitlines()[-1]) == (0, "job 1: succeeded")
    assert SCHEDULERS["donau"].state(job.scheduler_id) == "pending"  # so it says, after the end


@pytest.mark.usefixtures("donau")
def test_donau_tells_a_failure_and_ends_a_job(book: Book, submit: Submit, parity_command: Command) -> None:
    submit("donau", "work", "fail", words=("--gpus", "1"))
    assert not follow(book, 1, every=0.05)
    assert book.find(1).exit_code() == 3
    job = submit("donau", "work", "wait", words=("--gpus", "1"))
    until(lambda: job.log.exists() and "worked" in job.log.read_text())
    assert job.state() == "running"  # though the queue says pending
    assert parity_command("jobs", "cancel", 2, "--state", book.folder)[0] == 0
    assert not follow(book, 2, every=0.05)
    assert book.find(2).state() == "cancelled"


@pytest.mark.usefixtures("donau")
def test_two_nodes_of_donau_meet(book: Book, submit: Submit) -> None:
    job = submit("donau", "meet", words=("--gpus", "0", "--nodes", "2"))
    assert follow(book, 1, every=0.2), job.log.read_text()
    lines = job.log.read_text().splitlines()
    assert {"started on localhost", "started on 127.0.0.1", "rank 0 of 2: 2, arguments []"} <= set(lines)


@pytest.mark.usefixtures("donau")
def test_fewer_nodes_than_asked_for_are_told(book: Book, submit: Submit) -> None:
    job = submit("donau", "meet", words=("--gpus", "0", "--nodes", "4"))
    assert not follow(book, 1, every=0.05)
    assert job.exit_code() == 2
    assert "parity: asked for 4 nodes," in job.log.read_text()
    assert "has 3: localhost 127.0.0.1 127.0.0.2" in job.log.read_text()


@pytest.mark.usefixtures("donau")
def test_what_donau_refuses_is_one_line_and_leaves_no_job(book: Book, submit: Submit) -> None:
    with pytest.raises(ParityError, match="dsub failed: dsub: account nobody is not allowed"):
        submit("donau", "work", words=("--account", "nobody"))
    assert list(book.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("output", "number"),
    [
        ("JOBID        MESSAGE\n8678302      Submit job successfully...\n", "8678302"),
        ("Submit job <4711> successfully.", "4711"),
        ("job id: 4711", "4711"),
    ],
)
def test_donaus_answers_are_read(output: str, number: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parity.clusters.schedulers._run", lambda words: output)
    assert SCHEDULERS["donau"].submit(Path("job.sh")) == number


def test_an_answer_without_a_number_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parity.clusters.schedulers._run", lambda words: "please\ndlogin")
    with pytest.raises(ParityError, match="dsub told no job id but 'please dlogin'; look with djob"):
        SCHEDULERS["donau"].submit(Path("job.sh"))


def test_a_book_that_is_a_file_is_one_line(parity_command: Command, donau: None, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    status, _, err = parity_command("submit", CASE, "--scheduler", "donau", "--state", tmp_path / "file")
    assert (status, err) == (2, f"parity: --state {tmp_path / 'file'}: it is no folder\n")
