"""A worker that misbehaves: every way of failing is one line, and no process is left behind."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from parity.engines import host, interpreter
from parity.engines.host import RemoteSession
from parity.errors import ParityError

# Stands in for parity/engines/session.py in the worker: what it is asked to load says how to behave.
STUB = """
import ctypes, os, sys, time
from parity.engines.base import Run
from parity.errors import ParityError

class Session:
    def __init__(self, engine, root="", device="cpu"):
        if root == "wrong":
            raise ParityError("--legacy-root wrong: no DDQ checkout")
        self.engine = engine

    def fingerprint(self):
        return {"engine": self.engine, "pid": str(os.getpid()), "folder": os.path.dirname(sys.path[0])}

    def load(self, case_id, dtype):
        return getattr(self, case_id)() or {case_id: [1, 2]}

    def well(self):
        pass

    def exits(self):
        os.write(2, b"last words\\n")
        os._exit(3)

    def segfaults(self):
        ctypes.string_at(0)

    def hangs(self):
        time.sleep(1000)

    def chatters(self):
        print("garbage \\x00\\xff" * 1000, flush=True)
        os.write(1, b"\\x00\\x01\\x02garbage" * 1000)
        os.write(2, b"\\xff\\xfegarbage" * 1000)

    def forks_and_dies(self):
        if os.fork():
            os._exit(7)
        time.sleep(1000)

    def is_killed(self):
        os.kill(os.getpid(), 9)

    def has_children(self):
        import subprocess
        return {"child": [subprocess.Popen(["sleep", "1000"]).pid, os.fork() or time.sleep(1000)]}

    def raises(self):
        innermost = {}
        return innermost["no such layer"]

    def refuses(self):
        raise ParityError("config has no such file")

    def replay(self, stage_name, inputs, forced, promote):
        return Run({"sum": sum(inputs.values())}, produced={stage_name: ("sum",)})
"""


@pytest.fixture(autouse=True)
def stub_worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    content = io.BytesIO(host.worker_source())
    replaced = io.BytesIO()
    with zipfile.ZipFile(content) as source, zipfile.ZipFile(replaced, "w") as target:
        for name in source.namelist():
            target.writestr(name, STUB if name == "parity/engines/session.py" else source.read(name))
    monkeypatch.setattr(host, "worker_source", replaced.getvalue)
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))  # the worker's, too
    monkeypatch.setattr(tempfile, "tempdir", None)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "scratch"


def start(*, python: str = sys.executable, root: str = "") -> RemoteSession:
    return RemoteSession("stub_engine", python=python, root=root, time_limit=300.0)


@pytest.fixture
def worker() -> Iterator[RemoteSession]:
    with closing(start()) as session:
        yield session


def is_gone(pid: int, *, within: float = 60.0) -> bool:
    """Whether a process ends; one that only waits to be collected has ended."""
    stat = Path(f"/proc/{pid}/stat")
    end = time.monotonic() + within
    while time.monotonic() < end:
        try:
            if stat.read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


def pid_of(session: RemoteSession) -> int:
    return int(session.fingerprint()["pid"])


def test_a_worker_is_another_process_and_answers(worker: RemoteSession) -> None:
    assert pid_of(worker) != os.getpid()
    assert worker.load("well", "fp64") == {"well": [1, 2]}


def test_tensors_go_there_and_back(worker: RemoteSession) -> None:
    import torch

    run = worker.replay("neck", {"a": torch.ones(2, 3), "b": torch.full((2, 3), 0.5)})
    assert run.tensors["sum"].tolist() == [[1.5] * 3] * 2
    assert run.produced == {"neck": ("sum",)}


def test_garbage_on_stdout_and_stderr_disturbs_nothing(worker: RemoteSession) -> None:
    assert worker.load("chatters", "fp64") == {"chatters": [1, 2]}
    assert worker.load("well", "fp64") == {"well": [1, 2]}


def test_an_exception_is_one_line_and_the_whole_traceback(worker: RemoteSession) -> None:
    with pytest.raises(ParityError, match=r"^engine stub_engine, load raises: KeyError: 'no such layer'$") as caught:
        worker.load("raises", "fp64")
    assert "Traceback (most recent call last)" in caught.value.detail
    assert 'return innermost["no such layer"]' in caught.value.detail
    assert "in raises" in caught.value.detail


def test_a_worker_survives_its_own_exception(worker: RemoteSession) -> None:
    with pytest.raises(ParityError, match="load raises"):
        worker.load("raises", "fp64")
    assert worker.load("well", "fp64") == {"well": [1, 2]}


def test_a_mistake_of_the_users_has_no_traceback(worker: RemoteSession) -> None:
    with pytest.raises(ParityError, match=r"^engine stub_engine, load refuses: config has no such file$") as caught:
        worker.load("refuses", "fp64")
    assert caught.value.detail == ""


def test_a_worker_that_exits_is_told_with_its_last_words(worker: RemoteSession) -> None:
    with pytest.raises(ParityError, match=r"^engine stub_engine, load exits: the worker died; .*$") as caught:
        worker.load("exits", "fp64")
    assert "last words" in caught.value.detail
    assert is_gone(pid_of(worker))


def test_a_real_segmentation_fault_shows_where_it_was(worker: RemoteSession) -> None:
    with pytest.raises(ParityError, match=r"^engine stub_engine, load segfaults: the worker died") as caught:
        worker.load("segfaults", "fp64")
    assert "Segmentation fault" in caught.value.detail
    assert "in segfaults" in caught.value.detail


def test_a_dead_worker_is_told_again_when_it_is_asked_again(worker: RemoteSession) -> None:
    with pytest.raises(ParityError, match="the worker died"):
        worker.load("exits", "fp64")
    with pytest.raises(ParityError, match=r"^engine stub_engine, load well: the worker died"):
        worker.load("well", "fp64")


def test_a_worker_that_hangs_is_ended_at_its_time_limit(worker: RemoteSession) -> None:
    worker.time_limit = 1.0
    begin = time.monotonic()
    with pytest.raises(ParityError, match=r"^engine stub_engine, load hangs: no answer within 1 s; it was ended"):
        worker.load("hangs", "fp64")
    assert time.monotonic() - begin < 300.0  # it would sleep for 1000
    assert is_gone(pid_of(worker))


@pytest.mark.parametrize("behaviour", ["well", "raises", "exits", "hangs"])
def test_nothing_is_left_of_a_closed_worker(behaviour: str, scratch: Path) -> None:
    session = start()
    if behaviour == "hangs":
        session.time_limit = 1.0
    try:
        session.load(behaviour, "fp64")
    except ParityError:
        assert behaviour != "well"
    session.close()
    assert is_gone(pid_of(session))
    assert sorted(path.name for path in scratch.iterdir() if path.name.startswith("parity-worker-")) == []


def test_a_wrong_root_is_told_and_the_worker_ended(scratch: Path) -> None:
    with pytest.raises(ParityError, match=r"^engine stub_engine, open: --legacy-root wrong: no DDQ checkout$"):
        start(root="wrong")
    assert not list(scratch.glob("parity-worker-*.log"))


def test_an_interpreter_that_does_not_exist_is_one_line(tmp_path: Path) -> None:
    python = str(tmp_path / "no-python")
    with pytest.raises(ParityError, match=r"^--legacy-python .*no-python: no worker starts there \([^\n]+\)$"):
        start(python=python)


def test_a_program_that_is_no_python_is_one_line() -> None:
    program = shutil.which("true")
    assert program is not None
    with pytest.raises(ParityError, match=r"^--legacy-python .*true: no worker starts there \([^\n]+\)$"):
        start(python=program)


def leftovers(scratch: Path) -> list[str]:
    return [path.name for path in scratch.iterdir() if path.name.startswith("parity-worker-")]


def test_a_worker_that_forks_and_dies_is_noticed_and_its_child_ended(worker: RemoteSession, scratch: Path) -> None:
    message = r"^engine stub_engine, load forks_and_dies: the worker died; it ended with exit status 7; the end of"
    begin = time.monotonic()
    with pytest.raises(ParityError, match=message):
        worker.load("forks_and_dies", "fp64")
    assert time.monotonic() - begin < worker.time_limit
    assert leftovers(scratch) == []


def test_a_worker_that_is_killed_is_told_as_such(worker: RemoteSession) -> None:
    message = (
        r"load is_killed: the worker died; it was killed \(SIGKILL\): memory ran out, or somebody ended it; the end"
    )
    with pytest.raises(ParityError, match=message):
        worker.load("is_killed", "fp64")


def test_what_a_worker_started_ends_with_it(worker: RemoteSession) -> None:
    children = worker.load("has_children", "fp64")["child"]
    assert len(children) == 2
    worker.close()
    assert all(is_gone(child) for child in children)


def customised(folder: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    """Have every interpreter that is started from here run this before anything else."""
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(folder / "site"))


BANNERS = {
    "printed": "print('Welcome!' * 1000)",
    "written": "import os; os.write(1, bytes(range(256)) * 100)",
    "left in a buffer": "import sys; sys.stdout = open(1, 'w', closefd=False); sys.stdout.write('Welcome!')",
    "by another process": (
        "import subprocess, sys; subprocess.Popen(['sh', '-c', 'while echo garbage; do sleep 0.01; done'])"
    ),
    "by a thread": (
        "import os, threading, time\n"
        "def chatter():\n"
        "    while True:\n"
        "        os.write(1, b'garbage'); time.sleep(0.001)\n"
        "threading.Thread(target=chatter, daemon=True).start()"
    ),
    "and stdin read": "import sys; sys.stdin.read(); print('read')",
}


@pytest.mark.parametrize("banner", BANNERS)
def test_what_an_interpreter_prints_at_start_disturbs_nothing(
    banner: str, tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    customised(tmp_path, monkeypatch, BANNERS[banner])
    with closing(start()) as session:
        assert session.load("well", "fp64") == {"well": [1, 2]}
        assert session.load("chatters", "fp64") == {"chatters": [1, 2]}
    assert is_gone(pid_of(session))
    assert leftovers(scratch) == []


def test_an_interpreter_that_hangs_at_start_is_ended_at_its_limit(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = tmp_path / "pid"
    source = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(1000)"
    customised(tmp_path, monkeypatch, source)
    monkeypatch.setenv("PARITY_NO_SANDBOX", "1")  # it writes outside of its folder
    monkeypatch.setattr(interpreter, "START_LIMIT", 5.0)
    message = rf"^--legacy-python {sys.executable}: no worker starts there \(it ran nothing within 5 s\)$"
    with pytest.raises(ParityError, match=message):
        start()
    assert not pid.exists() or is_gone(int(pid.read_text()))
    assert leftovers(scratch) == []


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import os; os._exit(3)", "it ended with exit status 3"),
        ("import os; os.kill(os.getpid(), 9)", r"it was killed \(SIGKILL\): memory ran out, or somebody ended it"),
        ("import os; os.write(2, b'no licence\\n'); os._exit(1)", "no licence"),
        ("import os\nif os.fork(): os._exit(4)\nimport time; time.sleep(1000)", "it ended with exit status 4"),
    ],
)
def test_an_interpreter_that_ends_at_start_is_one_line(
    source: str, why: str, tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    customised(tmp_path, monkeypatch, source)
    with pytest.raises(ParityError, match=rf"^--legacy-python {sys.executable}: no worker starts there \({why}\)$"):
        start()
    assert leftovers(scratch) == []


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that puts a stand-in of ssh in its place: it says something first, and runs all here."""

    def put(first: str) -> None:
        (tmp_path / "bin").mkdir()
        script = tmp_path / "bin" / "ssh"
        script.write_text(f'#!/bin/sh\n{first}\nfor last; do :; done\nexec sh -c "$last"\n')
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")

    return put


@pytest.mark.parametrize("first", ["true", "echo Welcome to this machine", "head -c 100000 /dev/zero"])
def test_a_worker_over_ssh_may_be_greeted(first: str, ssh: Callable[[str], None], scratch: Path) -> None:
    ssh(first)
    with closing(start(python=f"ssh=somewhere//python={sys.executable}")) as session:
        assert session.load("chatters", "fp64") == {"chatters": [1, 2]}
        assert session.load("well", "fp64") == {"well": [1, 2]}
    assert is_gone(pid_of(session))
    assert leftovers(scratch) == []


@pytest.mark.parametrize(
    ("first", "why"),
    [
        ("echo no route to host >&2; exit 255", "no route to host"),
        ("exec yes", "it prints without an end"),
        ("exec sleep 1000", "it ran nothing within 5 s"),
    ],
)
def test_ssh_that_does_not_reach_a_worker_is_one_line(
    first: str, why: str, ssh: Callable[[str], None], scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh(first)
    if "sleep" in first:
        monkeypatch.setattr(interpreter, "START_LIMIT", 5.0)
    with pytest.raises(ParityError, match=rf"^--legacy-python ssh=somewhere//python=py: no worker .* \({why}\)$"):
        start(python="ssh=somewhere//python=py")
    assert leftovers(scratch) == []


def test_what_a_killed_host_left_is_swept_and_what_lives_is_not(scratch: Path, worker: RemoteSession) -> None:
    lives = leftovers(scratch)
    left = scratch / "parity-worker-left"
    left.mkdir()
    (left / "locked").touch()
    (scratch / "parity-worker-of-an-earlier-version").mkdir()
    start().close()
    assert sorted(leftovers(scratch)) == sorted([*lives, "parity-worker-of-an-earlier-version"])
    assert worker.load("well", "fp64") == {"well": [1, 2]}


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the interpreter of a virtual environment that holds no package at all."""
    folder = tmp_path_factory.mktemp("bare") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return str(folder / "bin" / "python")


def test_an_interpreter_without_torch_is_one_line(bare_python: str) -> None:
    message = r"^engine stub_engine, start: ModuleNotFoundError: No module named '(torch|safetensors)'[^\n]*$"
    with pytest.raises(ParityError, match=message):
        start(python=bare_python)


HOST = """
import sys, time
from pathlib import Path
from parity.engines import host
host.worker_source = lambda: Path(sys.argv[1]).read_bytes()
session = host.RemoteSession("stub_engine", python=sys.executable, root="")
print(session.fingerprint()["pid"], flush=True)
{then}
"""


@pytest.mark.parametrize("then", ["time.sleep(600)", "session.load('hangs', 'fp64')"])
def test_a_worker_dies_with_a_host_that_is_killed(then: str, tmp_path: Path, run_host: Callable[..., int]) -> None:
    worker_pid = run_host(HOST.format(then=then))
    assert is_gone(worker_pid)


@pytest.fixture
def run_host(tmp_path: Path) -> Callable[..., int]:
    """Return a function that starts a host, waits for its worker, kills the host and returns the worker's pid."""

    def run(script: str) -> int:
        source = tmp_path / "source.zip"
        source.write_bytes(host.worker_source())
        command = [sys.executable, "-c", script, str(source)]
        root = str(Path(host.__file__).resolve().parents[2])
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
            try:
                assert process.stdout is not None
                pid = int(process.stdout.readline())
                assert not is_gone(pid, within=0.3)
            finally:
                process.send_signal(signal.SIGKILL)
        return pid

    return run


def test_the_worker_is_sent_this_package_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with zipfile.ZipFile(io.BytesIO(host.worker_source())) as archive:
        assert all(name.startswith("parity/") and name.endswith(".py") for name in archive.namelist())
        assert "parity/engines/session.py" in archive.namelist()
