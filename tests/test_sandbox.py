"""What a worker on this machine cannot do, tried from inside; it runs where the kernel allows nothing of it, too."""

from __future__ import annotations

import io
import os
import re
import socket
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from parity.engines import host, sandbox
from parity.engines.host import RemoteSession
from parity.engines.interpreter import Interpreter
from parity.engines.sandbox import MEMORY, MORE, OFF, Sandbox
from parity.errors import ParityError

TREE = Path(sandbox.__file__).resolve().parent
Ask = Callable[..., Any]

# In the worker: what it is sent is run, and the variable ``answer`` is sent back.
SERVE = """
for source in channel:
    names = {}
    exec(source, names)
    channel.send(names["answer"])
"""
CONNECT = """
import socket
try:
    socket.create_connection(("127.0.0.1", {port}), timeout=5).close()
    answer = "connected"
except OSError as error:
    answer = type(error).__name__
"""
WRITE = """
import os
answer = {{}}
for place in {places!r}:
    path = os.path.join(place, "parity-test-%d" % os.getpid())
    try:
        open(path, "w").close()
        answer[place] = "written"
        os.path.exists(path) and {remove} and os.remove(path)
    except OSError as error:
        answer[place] = error.strerror
"""


class Inside:
    """An interpreter in a sandbox, without anything of parity in it."""

    def __init__(self, folder: Path, log: Path) -> None:
        (folder / "own").mkdir(parents=True)
        (folder / "shared").mkdir()
        self.own, self.shared = folder / "own", folder / "shared"
        self.box = sandbox.sandbox(self.own, self.shared, device="cpu")
        self.interpreter = Interpreter(sys.executable, log=log, limit=60.0, sandbox=self.box)
        self._channel = self.interpreter.gateway.remote_exec(SERVE)

    def ask(self, source: str, **values: object) -> Any:
        self._channel.send(source.format(**values) if values else source)
        return self._channel.receive(60.0)

    def close(self) -> None:
        self.interpreter.end()


@pytest.fixture(autouse=True)
def wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a sandbox wanted, whatever the other tests run with."""
    monkeypatch.delenv(OFF, raising=False)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Inside]]:
    started: list[Inside] = []

    def begin(folder: Path | None = None) -> Inside:
        number = len(started)
        started.append(Inside(folder or tmp_path / f"worker-{number}", tmp_path / f"log-{number}"))
        return started[-1]

    yield begin
    for each in started:
        each.close()


@pytest.fixture
def allowed() -> None:
    if refused := sandbox.allowed().refused:
        pytest.skip(f"needs user, network and mount namespaces without privileges: {refused}")


@pytest.fixture
def inside(allowed: None, start: Callable[..., Inside]) -> Inside:
    return start()


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_worker_reaches_no_service_of_this_machine(inside: Inside, port: int) -> None:
    assert inside.ask(CONNECT, port=port) == "ConnectionRefusedError"
    assert inside.ask("import socket; answer = [name for _, name in socket.if_nameindex()]")[0] == "lo"


def test_without_a_sandbox_it_would(start: Callable[..., Inside], port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OFF, "1")
    other = start()
    assert other.ask(CONNECT, port=port) == "connected"
    assert other.ask(WRITE, places=[str(other.own.parent)], remove=True) == {str(other.own.parent): "written"}


def test_a_worker_writes_nowhere_but_to_its_own_folders(inside: Inside, tmp_path: Path) -> None:
    elsewhere = [str(Path.home()), str(TREE), str(tmp_path), str(Path.cwd()), "/", "/tmp"]
    said = inside.ask(WRITE, places=elsewhere, remove=True)
    assert set(said.values()) <= {"Read-only file system", "Permission denied"}
    own = [str(inside.own), str(inside.shared)]
    assert inside.ask(WRITE, places=own, remove=False) == dict.fromkeys(own, "written")
    assert all(list(Path(folder).glob("parity-test-*")) for folder in own)


def test_temporary_files_go_to_its_own_folder(inside: Inside) -> None:
    made = Path(inside.ask("import tempfile; answer = tempfile.mkdtemp()"))
    assert made.is_relative_to(inside.own)
    assert made.is_dir()


def test_shared_memory_is_its_own(inside: Inside) -> None:
    if not Path("/dev/shm").is_dir():
        pytest.skip("needs shared memory at /dev/shm")
    assert inside.ask(WRITE, places=["/dev/shm"], remove=False) == {"/dev/shm": "written"}
    assert list(Path("/dev/shm").glob("parity-test-*")) == []


def test_a_folder_in_shared_memory_is_still_there(allowed: None, start: Callable[..., Inside]) -> None:
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("needs shared memory at /dev/shm that can be written")
    import tempfile

    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        (Path(folder) / "data").write_text("an image")
        with closing(start(Path(folder) / "worker")) as inside:
            assert inside.ask("answer = open({path!r}).read()", path=f"{folder}/data") == "an image"
            said = inside.ask(WRITE, places=[folder, str(inside.own)], remove=False)
            assert said == {folder: "Read-only file system", str(inside.own): "written"}
            assert list(inside.own.glob("parity-test-*"))


REMOUNT = """
import ctypes, os, sys
sys.path.append({tree!r})
import confine
libc = ctypes.CDLL(None, use_errno=True)
def remounted(place):
    flags = ctypes.c_ulong(confine._REMOUNT | confine._BIND)
    return libc.mount(None, os.fsencode(place), None, flags, None) == 0
answer = [remounted("/")]
child = os.fork()
if not child:
    try:
        confine._new_users(confine._NEW_MOUNTS)
    except confine.Refused:
        os._exit(0)
    os._exit(int(remounted("/")))
answer.append(bool(os.waitpid(child, 0)[1]))
"""


def test_a_worker_cannot_undo_it(inside: Inside) -> None:
    assert inside.ask(REMOUNT, tree=str(TREE)) == [False, False]
    through = f"/proc/{os.getpid()}/root{tempfile.gettempdir()}"
    assert inside.ask(WRITE, places=[through], remove=True) == {through: "Permission denied"}


def test_the_process_is_the_one_that_was_started(inside: Inside) -> None:
    assert inside.interpreter.process is not None
    pid, group, session = inside.ask("import os; answer = [os.getpid(), os.getpgrp(), os.getsid(0)]")
    assert pid == group == session == inside.interpreter.process._started.pid


def test_no_descriptor_of_the_sandbox_is_left_in_the_worker(inside: Inside) -> None:
    left = inside.ask(
        "import os\nanswer = [os.readlink(e) for e in map('/proc/self/fd/{}'.format, range(64)) if os.path.lexists(e)]"
    )
    assert [name for name in left if name.startswith(("net:", "user:", "mnt:"))] == []


def test_two_workers_have_one_loopback(inside: Inside, start: Callable[..., Inside]) -> None:
    number = inside.ask(
        "import socket, sys\nsys.modules['kept'] = kept = socket.create_server(('127.0.0.1', 0))\n"
        "answer = kept.getsockname()[1]"
    )
    assert start().ask(CONNECT, port=number) == "connected"


SECRETS = ("AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "CUDA_ACCESS_TOKEN", "DATABASE_URL", "SSH_AUTH_SOCK")


def test_a_secret_does_not_arrive(start: Callable[..., Inside], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*SECRETS, "OMP_WAIT_POLICY", "LC_TIME", "OF_MY_DETECTOR"):
        monkeypatch.setenv(name, "a")
    monkeypatch.setenv(MORE, "OF_MY_DETECTOR, DATABASE_URL")
    there = set(start().ask("import os; answer = list(os.environ)"))
    assert there & set(SECRETS) == {"DATABASE_URL"}
    assert {"PATH", "OMP_WAIT_POLICY", "LC_TIME", "OF_MY_DETECTOR"} <= there


# Stands in for parity/engines/session.py in the worker.
STUB = """
class Session:
    def __init__(self, engine, root="", device="cpu"):
        pass

    def fingerprint(self):
        return {}

    def load(self, case_id, dtype):
        return {"well": [getattr(self, case_id)() or 1]}

    def takes(self):
        bytearray(3 << 30)

    def takes_tensors(self):
        import torch
        torch.ones(3 << 30, dtype=torch.uint8)

    def downloads(self):
        import urllib.request
        urllib.request.urlopen("http://127.0.0.1:9/weights.pth")

    def caches(self):
        open("/parity-test", "w")

    def well(self):
        pass
"""


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[RemoteSession]:
    content, replaced = io.BytesIO(host.worker_source()), io.BytesIO()
    with zipfile.ZipFile(content) as source, zipfile.ZipFile(replaced, "w") as target:
        for name in source.namelist():
            target.writestr(name, STUB if name == "parity/engines/session.py" else source.read(name))
    monkeypatch.setattr(host, "worker_source", replaced.getvalue)
    monkeypatch.setenv(MEMORY, "2G")
    with closing(RemoteSession("stub_engine", python=sys.executable, root="", time_limit=300.0)) as session:
        yield session


def test_what_a_sandbox_refuses_is_one_line_that_says_so(allowed: None, worker: RemoteSession) -> None:
    begin = r"^engine stub_engine, load {}: {}[^\n]* \({}; "
    for behaviour, error, said in (
        (
            "downloads",
            "URLError",
            "the worker has no network; --no-sandbox or PARITY_NO_SANDBOX=1 gives it what you have",
        ),
        ("caches", "OSError", "the worker may write to its own folder only; --no-sandbox or PARITY_NO_SANDBOX=1 lets"),
    ):
        with pytest.raises(ParityError, match=begin.format(behaviour, error, said.split("; ")[0])) as caught:
            worker.load(behaviour, "fp64")
        assert said in str(caught.value)
    assert worker.fingerprint()["sandbox"] == "no network, writes to its own folder only, at most 2 GiB of memory"
    with pytest.raises(ParityError) as caught:
        worker.load("no_such_behaviour", "fp64")
    assert "sandbox" not in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: no other kernel counts the data of a process")
@pytest.mark.parametrize(("behaviour", "error"), [("takes", "MemoryError"), ("takes_tensors", "RuntimeError")])
def test_memory_beyond_the_limit_is_one_line(worker: RemoteSession, behaviour: str, error: str) -> None:
    said = r"\(the worker may have 2 GiB of memory; --worker-memory gives it more\)$"
    with pytest.raises(ParityError, match=rf"^engine stub_engine, load {behaviour}: {error}: [\s\S]*{said}"):
        worker.load(behaviour, "fp64")
    assert worker.load("well", "fp64") == {"well": [1]}


# A kernel that refuses: the script of the sandbox, without some of its calls.
REFUSING = """
import sys
sys.path.append({tree!r})
import confine
real = confine._call
def call(what, function, *arguments):
    if function == {function!r}:
        raise confine.Refused(what + ": Operation not permitted")
    real(what, function, *arguments)
confine._call = call
confine._main(sys.argv[1:])
"""
OLD = "import sys\nsys.path.append({tree!r})\nimport confine\nconfine._set_read_only = lambda *_, **__: False\n"
OLD += "confine._main(sys.argv[1:])\n"


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Return a function that replaces the script of the sandbox."""

    def replace(script: str, **values: object) -> None:
        path = tmp_path / "script.py"
        path.write_text(script.format(tree=str(TREE), **values))
        monkeypatch.setattr(sandbox, "_SCRIPT", str(path))
        sandbox._tried.cache_clear()
        sandbox._say_once.cache_clear()

    monkeypatch.setattr(sandbox, "_tried", sandbox.cache(sandbox._tried.__wrapped__))
    return replace


@pytest.mark.parametrize(
    ("function", "says", "connects", "writes"),
    [
        ("unshare", r"have your network and may write wherever you may: .*\(user namespaces: Op", True, True),
        ("mount", r"may write wherever you may: no sandbox here \(mounting /: Op", False, True),
    ],
)
def test_where_the_kernel_refuses_a_worker_runs_and_one_line_says_so(
    kernel: Callable[..., None],
    start: Callable[..., Inside],
    port: int,
    capfd: pytest.CaptureFixture[str],
    function: str,
    says: str,
    connects: bool,
    writes: bool,
) -> None:
    if function == "mount" and sandbox.allowed().network is None:
        pytest.skip("needs user and network namespaces without privileges")
    kernel(REFUSING, function=function)
    for _ in range(2):
        inside = start()
        assert (inside.ask(CONNECT, port=port) == "connected") is connects
        place = str(inside.own.parent)
        assert (inside.ask(WRITE, places=[place], remove=True)[place] == "written") is writes
    err = capfd.readouterr().err.splitlines()
    assert len(err) == 1
    assert re.match(f"^parity: workers {says}", err[0])


def test_mounts_are_closed_one_by_one_where_the_kernel_knows_no_better(
    allowed: None, kernel: Callable[..., None], start: Callable[..., Inside], capfd: pytest.CaptureFixture[str]
) -> None:
    kernel(OLD)
    inside = start()
    places = [str(Path.home()), str(TREE), "/tmp", str(inside.own)]
    said = inside.ask(WRITE, places=places, remove=True)
    assert set(said.values()) == {"Read-only file system", "written"}
    assert said[str(inside.own)] == "written"
    assert capfd.readouterr().err == ""


def test_another_system_than_linux_is_said(
    start: Callable[..., Inside], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sandbox.sys, "platform", "darwin")
    monkeypatch.setattr(sandbox, "_tried", sandbox.cache(sandbox._tried.__wrapped__))
    sandbox._say_once.cache_clear()
    inside = start()
    assert inside.box.command(["python"]) == ["python"]
    assert inside.box.memory == 0
    assert "no sandbox here (it takes Linux)" in capfd.readouterr().err


def test_an_interpreter_that_is_not_there_is_told_by_name(start: Callable[..., Inside], tmp_path: Path) -> None:
    box = Sandbox(tmp_path, tmp_path, sandbox.allowed(), 1 << 34, whole_environment=False)
    with pytest.raises(ParityError, match=r"^--legacy-python /no/python: no worker starts there \(No such file"):
        Interpreter("/no/python", log=tmp_path / "log", limit=60.0, sandbox=box)
