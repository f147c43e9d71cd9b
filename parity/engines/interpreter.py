"""Another interpreter as a process of ours: what it prints, how long it starts and how it ends disturb nobody.

A gateway of execnet speaks to it over descriptors of its own, so that whatever prints to standard output, a banner or
``sitecustomize``, goes elsewhere. Over ssh there is no other channel: all before a mark is passed over, and standard
output is another file from the mark on.
"""

from __future__ import annotations

import inspect
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import execnet
from execnet import gateway_base, gateway_io

from parity.engines.sandbox import Sandbox
from parity.errors import ParityError

START_LIMIT = 60.0  # seconds until an interpreter runs its first line; nothing is imported before that
_LOOK_EVERY = 0.5  # seconds between two looks at whether it lives
_MARK = b"--- parity speaks from here on ---"
_MOST_BEFORE = 1 << 20  # bytes before the mark
# Runs first; double quotes would end the remote shell's argument. What follows comes as one line.
_OWN = "import os;r,w=os.fdopen({reads},'rb'),os.fdopen({writes},'wb');"
_STANDARD = (
    "import os;r,w=os.fdopen(os.dup(0),'rb'),os.fdopen(os.dup(1),'wb');"
    "os.dup2(2,1);os.dup2(os.open(os.devnull,os.O_RDONLY),0);"
)
_GO_ON = f"w.write({_MARK!r});w.flush();exec(eval(r.readline()))"
_SERVE = """
execmodel = get_execmodel("thread")
io = Popen2IO(w, r, execmodel)
io.write(b"1")
serve(io, id="worker")
"""


class Interpreter:
    """A Python that runs; ``gateway`` is execnet's.

    Args:
        python: its program, or an execnet specification such as ``ssh=host//python=/opt/py38``.
        log: file that its standard error is appended to; over ssh, that of ssh.
        limit: seconds until it runs its first line.
        sandbox: of a program on this machine; otherwise it has all that this process has.

    Raises:
        ParityError: it does not start; one line.
    """

    def __init__(self, python: str, *, log: Path, limit: float, sandbox: Sandbox | None = None) -> None:
        self.python = python
        self.process: _Process | None = None
        self._group = execnet.Group()
        self._limit = min(limit, START_LIMIT)
        try:
            if "=" not in python:
                self.gateway = self._start_here(python, log, sandbox)
            elif (spec := execnet.XSpec(python)).ssh:
                self.gateway = self._start_over_ssh(spec, log)
            else:
                self.gateway = self._start_otherwise(python)
        except (OSError, EOFError, ValueError, execnet.HostNotFound) as error:
            self.end()
            raise ParityError(f"{self._called}: no worker starts there ({self._why(error, log)})") from error
        except ParityError:
            self.end()
            raise

    @property
    def _called(self) -> str:
        return f"--legacy-python {self.python}"

    def _why(self, error: BaseException, log: Path) -> str:
        lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
        own = "" if isinstance(error, EOFError) else str(getattr(error, "strerror", "") or error)
        return own or (lines or [self.ending_within(_LOOK_EVERY) or str(error)])[-1]

    def _start_here(self, python: str, log: Path, sandbox: Sandbox | None) -> Any:
        reads, its_writes = os.pipe()
        its_reads, writes = os.pipe()
        try:
            words = [python, "-u", "-c", _OWN.format(reads=its_reads, writes=its_writes) + _GO_ON]
            with log.open("ab") as file:
                started = subprocess.Popen(
                    sandbox.command(words) if sandbox else words,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=file,
                    pass_fds=[its_reads, its_writes, *(sandbox.descriptors if sandbox else ())],
                    env=sandbox.environment(os.environ) if sandbox else None,
                    start_new_session=True,
                )
        except BaseException:
            os.close(reads)
            os.close(writes)
            raise
        finally:
            os.close(its_reads)
            os.close(its_writes)
        self.process = _Process(started, leads=True)
        return self._gateway(_Pipes(self.process, reads, writes), execnet.XSpec("popen"))

    def _start_over_ssh(self, spec: Any, log: Path) -> Any:
        arguments: Sequence[str] = gateway_io.ssh_args(spec)
        command = [*arguments[:-1], arguments[-1].replace(gateway_io.popen_bootstrapline, _STANDARD + _GO_ON)]
        with log.open("ab") as file:
            started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file)
        assert started.stdin is not None
        assert started.stdout is not None
        reads, writes = os.dup(started.stdout.fileno()), os.dup(started.stdin.fileno())
        started.stdout.close()
        started.stdin.close()
        self.process = _Process(started, leads=False)
        return self._gateway(_Pipes(self.process, reads, writes), spec)

    def _start_otherwise(self, python: str) -> Any:
        """Let execnet start it, as over a socket; it knows no limit."""
        made: list[Any] = []

        def make() -> None:
            try:
                made.append(self._group.makegateway(python))
            except Exception as error:  # execnet asserts what the other side says
                made.append(OSError(0, f"{type(error).__name__}: {error}"))

        thread = threading.Thread(target=make, daemon=True)
        thread.start()
        thread.join(self._limit)
        if not made:
            raise self._late()
        if isinstance(made[0], OSError):
            raise made[0]
        return made[0]

    def _gateway(self, pipes: _Pipes, spec: Any) -> Any:
        """Return a gateway over two descriptors; the other side begins to speak with the mark."""
        until = time.monotonic() + self._limit
        try:
            self._skip_to_mark(pipes, until)
            source = inspect.getsource(gateway_base) + _SERVE
            pipes.write(repr(source).encode() + b"\n")
            self._await(pipes, until)
            if pipes.read(1) != b"1":
                raise ValueError("what it answers is none of its own words")
        except BaseException:
            pipes.close()
            raise
        self._group.allocate_id(spec)
        spec.execmodel = spec.execmodel or "thread"
        gateway = execnet.Gateway(pipes, spec)
        gateway.spec = spec
        self._group._register(gateway)
        return gateway

    def _skip_to_mark(self, pipes: _Pipes, until: float) -> None:
        before = b""
        while not before.endswith(_MARK):
            self._await(pipes, until)
            byte = pipes.read(1)
            before += byte
            if len(before) > _MOST_BEFORE:
                raise ValueError("it prints without an end")

    def _await(self, pipes: _Pipes, until: float) -> None:
        """Wait until there is something to read, or the other side is closed."""
        while not select.select([pipes.reads], [], [], min(_LOOK_EVERY, max(0.0, until - time.monotonic())))[0]:
            if self.has_ended():
                raise EOFError
            if time.monotonic() >= until:
                raise self._late()

    def _late(self) -> ParityError:
        return ParityError(f"{self._called}: no worker starts there (it ran nothing within {self._limit:g} s)")

    def has_ended(self) -> bool:
        """Whether the process is known to have ended, whoever still holds its descriptors."""
        return self.process is not None and self.process.ended.is_set()

    def ending(self) -> str:
        """Return how the process ended, in words; nothing where it lives or is not known."""
        return "" if self.process is None else self.process.ending()

    def ending_within(self, seconds: float) -> str:
        """Return how the process ended, or will have ended so many seconds from now."""
        if self.process is not None:
            self.process.ended.wait(seconds)
        return self.ending()

    def end(self) -> None:
        """End it, with all processes that it started; at once if it does not listen."""
        self._group.terminate(timeout=1.0)
        if self.process is not None:
            self.process.kill()
            self.process.ended.wait()


class _Process:
    """A process that somebody waits for all the time; when it ends, so do those of its session, if it leads one.

    What it forked would otherwise hold its descriptors, and nobody would notice that it is gone.
    """

    def __init__(self, started: subprocess.Popen[bytes], *, leads: bool) -> None:
        self._started = started
        self._leads = leads
        self.ended = threading.Event()
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        if self._leads:  # nobody else collects it: as a zombie, it keeps the number of its session
            os.waitid(os.P_PID, self._started.pid, os.WEXITED | os.WNOWAIT)
            self._signal_session()
        self._started.wait()
        self.ended.set()

    def kill(self) -> None:
        """End it."""
        if not self.ended.is_set():
            self._signal_session() if self._leads else self._started.kill()

    def _signal_session(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._started.pid, signal.SIGKILL)

    def ending(self) -> str:
        """Return how it ended, in words; nothing where it lives."""
        status = self._started.returncode if self.ended.is_set() else None
        if status is None:
            return ""
        if status == -signal.SIGKILL:
            return "it was killed (SIGKILL): memory ran out, or somebody ended it"
        if status < 0:
            return f"it was ended by {_signal_name(-status)}"
        return "it ended at once" if status == 0 else f"it ended with exit status {status}"


class _Pipes(gateway_base.Popen2IO):
    """What execnet reads and writes; unbuffered, so that ``select`` tells the truth."""

    remoteaddress = ""

    def __init__(self, process: _Process, reads: int, writes: int) -> None:
        self._process = process
        self.reads = reads
        model = gateway_base.get_execmodel("thread")
        super().__init__(os.fdopen(writes, "wb"), os.fdopen(reads, "rb", buffering=0), model)

    def read(self, numbytes: int) -> bytes:
        """Return exactly so many bytes."""
        parts, left = [], numbytes
        while left:
            part = self.infile.read(min(left, 1 << 20))
            if not part:
                raise EOFError(f"expected {numbytes} bytes, got {numbytes - left}")
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Close both ends."""
        for file in (self.infile, self.outfile):
            with suppress(OSError):
                file.close()

    def wait(self) -> None:
        """Wait for the process."""
        self._process.ended.wait()

    def kill(self) -> None:
        """End the process."""
        self._process.kill()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
