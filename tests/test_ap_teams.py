"""Sharding, failing and resuming, with a detector that is none: each image is predicted once, and none is lost."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ap_stand_in import found_on, make_run
from test_ap_frames import same

from parity.ap.frames import PartWriter, part_path, read_part
from parity.ap.progress import Progress
from parity.ap.run import Run
from parity.ap.shard import share, write_plan
from parity.ap.teams import Spawned, complete
from parity.errors import ParityError

HERE = Path(__file__).resolve().parent
PATHS = os.pathsep.join([str(HERE), str(HERE.parent)])


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", PATHS)


def finish(run: Run, devices: list[str]) -> list[str]:
    with run.locked() as lock:
        run.open()
        progress = Progress(run.folder, total=len(run.images), title="test", say=lambda line: None)
        return complete(run, Spawned(devices, held=lock), progress)


def assert_complete(run: Run) -> None:
    """Every image is there, once, with what the stand-in finds on it."""
    listed = [image for part in run.folder.glob("*.frames") for image, _ in read_part(part, run.digest)]
    assert sorted(listed) == [image.id for image in run.images]
    found = run.predictions()
    assert all(same(found[image.id], found_on(Path(image.path).name)) for image in run.images)


@pytest.mark.parametrize(("images", "world"), [(10, 3), (2, 4), (0, 2), (7, 1)])
def test_shares_hold_each_image_once(tmp_path: Path, images: int, world: int) -> None:
    run = make_run(tmp_path / "run", images)
    shares = [share(run.images, rank=rank, world=world) for rank in range(world)]
    assert sorted(image.id for one in shares for image in one) == list(range(images))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_two_processes_share_the_images(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 11)
    assert finish(run, ["", ""]) == []
    assert_complete(run)
    assert len(list(run.folder.glob("*.frames"))) == 2


def test_a_gpu_that_fails_leaves_its_images_to_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AP_STAND_IN_FAILS", "1:0")
    run = make_run(tmp_path / "run", 12)
    (failure,) = finish(run, ["0", "1"])
    assert failure.startswith("GPU 1: an illegal memory access was encountered (see ")
    assert_complete(run)


def test_an_image_that_nobody_can_predict_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AP_STAND_IN_FAILS", "image:005.png")
    run = make_run(tmp_path / "run", 9)
    with pytest.raises(
        ParityError, match=r"1 of 9 images cannot be predicted \(5\): process 0: image 5: 005\.png is no image"
    ):
        finish(run, ["", ""])
    assert len(run.predictions()) == 8


def test_progress_tells_images_per_second_and_time_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parity.ap.progress.EVERY", 0.0)
    lines: list[str] = []
    writer = PartWriter(part_path(tmp_path, 0, 0), "00" * 32)
    writer.append(0, found_on("0"))
    progress = Progress(tmp_path, total=4, title="case, engine", say=lines.append)
    writer.append(1, found_on("1"))
    time.sleep(0.05)
    progress.refresh()
    writer.append(2, found_on("2"))
    writer.close()
    progress.close()
    assert re.match(r"case, engine:  50% 2/4 \[\d\d:\d\d<\d\d:\d\d, +\d+\.\d+image/s\]", lines[0])
    assert lines[-1].startswith("case, engine:  75% 3/4 [")


def test_a_run_that_is_complete_is_not_run_again(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 3)
    finish(run, [""])
    before = sorted(run.folder.iterdir())
    assert finish(run, [""]) == []
    assert sorted(run.folder.iterdir()) == before


def test_predictions_of_something_else_are_never_gone_on_with(tmp_path: Path) -> None:
    finish(make_run(tmp_path / "run", 3, weights="a"), [""])
    other = make_run(tmp_path / "run", 3, weights="b")
    assert other.predictions() == {}
    assert other.open()
    assert other.predictions() == {}
    assert not other.open()


def left_over(folder: Path) -> list[Path]:
    """Return what lies beside a run's folder, the lock apart."""
    return [path for path in folder.parent.iterdir() if path not in (folder, folder.with_name(f"{folder.name}.lock"))]


def test_a_run_of_the_same_identity_is_kept_without_run_json(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 3, weights="a")
    finish(run, [""])
    (run.folder / "run.json").unlink()
    assert not run.open()
    assert len(run.complete_predictions()) == 3


def test_parts_of_another_identity_are_thrown_away_without_run_json_and_beside_a_new_one(tmp_path: Path) -> None:
    old, new = make_run(tmp_path / "run", 3, weights="a"), make_run(tmp_path / "run", 3, weights="b")
    finish(old, [""])
    (old.folder / "run.json").unlink()
    assert new.predictions() == {}
    assert new.open()
    assert not list(new.folder.glob("*.frames"))
    writer = PartWriter(part_path(new.folder, 0, 0), old.digest)
    writer.append(0, found_on("other weights"))
    writer.close()
    assert new.predictions() == {}
    finish(new, [""])
    assert_complete(new)
    assert left_over(new.folder) == []


def test_what_a_killed_removal_left_is_swept(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 3, weights="a")
    finish(run, [""])
    run.folder.rename(tmp_path / ".run.stale-0")
    assert not make_run(tmp_path / "run", 3, weights="b").open()
    assert left_over(run.folder) == []


def test_a_run_that_lacks_images_is_not_judged(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 3)
    finish(run, [""])
    with pytest.raises(ParityError, match=r"run lacks 1 of 4 images, such as 3: did another run take the folder"):
        make_run(tmp_path / "run", 4).complete_predictions()


REPLACE = """
import os, signal, sys
from pathlib import Path
from ap_stand_in import make_run

left = int(sys.argv[2])

def count(event, arguments):  # the process is killed before the n-th rename, removal or opening for writing
    global left
    if event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree") or (
        event == "open" and arguments[1] not in (None, "r", "rb")
    ):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

run = make_run(Path(sys.argv[1]), 6, weights="b")
with run.locked():
    sys.addaudithook(count)
    run.open()
"""


def test_a_run_killed_at_any_step_of_throwing_another_away_adopts_nothing(tmp_path: Path) -> None:
    template = make_run(tmp_path / "template", 6, weights="a")
    finish(template, ["", ""])
    killed = 0
    for steps in range(100):
        new = make_run(tmp_path / str(steps) / "run", 6, weights="b")
        shutil.copytree(template.folder, new.folder)
        done = subprocess.run([sys.executable, "-c", REPLACE, str(new.folder), str(steps)], check=False)
        assert new.predictions() == {}
        with new.locked():
            new.open()
        assert new.predictions() == {}
        assert not list(new.folder.glob("*.frames"))
        assert left_over(new.folder) == []
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        killed += 1
    assert killed >= 8  # the folder, and all that lay in it


def test_two_runs_do_not_write_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parity.ap.run._LOCK_PATIENCE", 0.1)
    run = make_run(tmp_path / "run", 3)
    with (
        run.locked(),
        pytest.raises(ParityError, match=r"another run is predicting in .*run: wait for it"),
        run.locked(),
    ):
        pass


RUN = """
import sys
from pathlib import Path
from ap_stand_in import make_run
from test_ap_teams import finish
finish(make_run(Path(sys.argv[1]), int(sys.argv[2])), ["", ""])
"""


def start(folder: Path, images: int, seconds: float) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "AP_STAND_IN_SECONDS": str(seconds)}
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder), str(images)], env=environment, start_new_session=True
    )


def test_a_run_that_is_killed_is_gone_on_with(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 60)
    process = start(run.folder, 60, 0.02)
    until = time.monotonic() + 120
    while not list(run.folder.glob("*.frames")) and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(random.Random(3).uniform(0.05, 0.2))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    finish(run, [""])
    assert_complete(run)


def test_a_process_whose_starter_is_gone_before_it_looks_ends(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 3)
    run.open()
    write_plan(tmp_path / "plan-0.json", run.job, run.images, 0, identity=run.digest)
    gone = subprocess.Popen(["true"])
    gone.wait()
    words = ["--rank", "0", "--world", "1", "--device", "cpu", "--parent", str(gone.pid)]
    command = [sys.executable, "-m", "parity.ap.shard", str(tmp_path / "plan-0.json"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"failed: process {gone.pid}, which started this one, is gone\n"
    assert run.predictions() == {}


GLOO = """
import json, sys
from pathlib import Path
from ap_stand_in import make_run
from parity.ap.progress import Progress
from parity.ap.teams import Torchrun, complete
from parity.errors import ParityError

run = make_run(Path(sys.argv[1]), 13)
team = Torchrun("cpu")
team.agree(run.open)
failures = complete(run, team, Progress(run.folder, total=13, title="test", say=lambda line: None))
agreed = team.agree(lambda: len(run.predictions()))

def refuse():
    raise ParityError("no")

try:
    team.agree(refuse)
except ParityError as error:
    agreed = f"{agreed} {error}"
Path(sys.argv[1], f"rank-{team._rank}.json").write_text(json.dumps([failures, agreed]))
"""


def torchrun(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``GLOO`` in two processes on this folder."""
    script = folder.with_suffix(".py")
    script.write_text(GLOO)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script), str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)


def test_two_processes_of_torchrun_meet_over_gloo(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = torchrun(folder)
    assert done.returncode == 0, done.stderr[-3000:]
    said = [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)]
    assert said == [[[], "13 no"]] * 2
    assert_complete(make_run(folder, 13))
    assert len(list(folder.glob("part-0-*.frames"))) == 2


def test_a_process_of_torchrun_with_other_weights_does_not_predict(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = torchrun(folder, AP_STAND_IN_OTHER_WEIGHTS="1")
    assert done.returncode == 0, done.stderr[-3000:]
    failures, agreed = json.loads((folder / "rank-0.json").read_text())
    assert set(failures) == {"rank 1: its weights differ from those of rank 0: its predictions do not count"}
    assert agreed == "13 no"
    assert_complete(make_run(folder, 13))


def test_a_job_of_torchrun_whose_process_was_killed_is_gone_on_with(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert torchrun(folder, AP_STAND_IN_FAILS="killed:5").returncode != 0
    assert 0 < len(make_run(folder, 13).predictions()) < 13
    done = torchrun(folder)
    assert done.returncode == 0, done.stderr[-3000:]
    assert_complete(make_run(folder, 13))
