"""pytest's side of full-val AP: left out unless asked for, and a case that lacks something says what."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest
from test_plugin import Done, python

from parity.ap.frames import read_part
from parity.ap.run import Job, Run
from parity.cases.registry import all_cases
from parity.clusters.tasks import module_call, node_command

CASE = ("--case", "ddq_rcnn_r50_12e")


def run(*words: object) -> Done:
    return python("-m", "pytest", "-q", "-p", "no:cacheprovider", *words)


def test_it_is_left_out_unless_asked_for() -> None:
    done = run("parity/suites", "--collect-only", "--case", "ddq_rcnn_r50_36e", "--stage", "preprocess")
    assert "test_full_ap" not in done.stdout
    assert "test_stage[ddq_rcnn_r50_36e" in done.stdout


@pytest.mark.parametrize("where", [(), ("parity",), ("parity/suites/test_full_ap.py",)])
def test_asked_for_it_is_found_and_nothing_else_is(where: tuple[str, ...]) -> None:
    done = run(*where, "-m", "full_ap", "--collect-only")
    found = [line for line in done.stdout.splitlines() if "::" in line]
    assert len(found) == len(all_cases())
    assert all("test_full_ap[" in line for line in found)


def test_what_is_missing_is_said_in_a_line_and_fails_where_it_must_not(tmp_path: Path) -> None:
    words = ("-m", "full_ap", *CASE, f"--coco-root={tmp_path}", "-rs")
    line = "ddq_rcnn_r50_12e has no checkpoint: put it at"
    skipped, failed = run(*words), run(*words, "--require-data")
    assert skipped.returncode == 0
    assert line in skipped.stdout
    assert failed.returncode == 1
    assert line in failed.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--case", "ddq_fcn"), "unknown case 'ddq_fcn'"),
        (("--gpus", "-1"), "--gpus -1: at least 0"),
        (("-n", "2"), "-n: full-val AP shares its images out by itself"),
        (("--checkpoint", "x"), "--checkpoint x: it is CASE=FILE"),
    ],
)
def test_a_wrong_option_is_a_usage_error(words: tuple[str, ...], message: str) -> None:
    done = run("-m", "full_ap", *words)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr


def test_two_nodes_of_a_submitted_job_share_the_images_and_agree(tmp_path: Path) -> None:
    words = (f"--ap-dir={tmp_path / 'ap'}", f"--report-dir={tmp_path / 'page'}")
    call = module_call("ap", "ddq_fcn_small", gpus=0, extra=words)
    command = node_command("ap", call, gpus=0, nodes=2, name=tmp_path.name)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    nodes = [
        subprocess.Popen(
            ["bash", "-c", command, "node", "127.0.0.1", port],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    said = [node.communicate(timeout=600)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], "\n".join(said)
    assert sorted("full-val AP" in text for text in said) == [False, True]  # one speaks for both
    folder = tmp_path / "ap" / "ddq_fcn_small" / "mmdet3"
    run = Run(folder, Job("mmdet3", "ddq_fcn_small", ""), [], json.loads((folder / "run.json").read_text()))
    shares = [[image for image, _ in read_part(part, run.digest)] for part in sorted(run.folder.glob("*.frames"))]
    assert [len(one) for one in shares] == [16, 16]
    assert len({image for one in shares for image in one}) == 32
    (judged,) = json.loads((tmp_path / "page" / "ap.json").read_text())
    assert judged["legacy"]["figures"]["AP"] >= 30.0
    assert judged["new"]["figures"] == pytest.approx(judged["legacy"]["figures"], abs=1e-4, rel=0)
    assert judged["detections"]["share"] == 1.0
