"""Start a legacy interpreter and talk to it as if its session were a local one."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from parity.cases.outside import outside_files
from parity.engines import wire
from parity.engines.base import Run
from parity.engines.folders import SharedFolder, WorkerFolder
from parity.engines.interpreter import Interpreter
from parity.engines.numerics import Settings, Value
from parity.engines.sandbox import Sandbox, found, sandbox
from parity.engines.session import Shapes
from parity.errors import EngineError, ParityError
from parity.taps.islands import Promote

DEFAULT_TIME_LIMIT = 900.0  # seconds for one request
_LOOK_EVERY = 0.5  # seconds between two looks at whether the worker lives
_LAST_WORDS = 2.0  # seconds for what it said last to come, and for how it ended to be known

# Runs in the legacy interpreter before anything of ours is there. Its standard error goes to a file that
# the host reads when the worker dies; the kernel ends it with its host, even one killed outright.
BOOTSTRAP = """
import ctypes, faulthandler, os, sys, tempfile, zipfile
setup = channel.receive()
os.environ.update(setup["variables"])
folder = setup["folder"] or tempfile.mkdtemp(prefix="parity-worker-")
os.dup2(os.open(os.path.join(folder, "stderr.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
faulthandler.enable(2)
if setup["local"]:
    try:
        ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
    except Exception:
        pass

def seen():
    import resource, socket
    def routed(family, address):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as any_socket:
                any_socket.connect((address, 9))  # sends nothing: an address of documentation
            return True
        except OSError:
            return False
    places = ["/", os.path.expanduser("~"), os.getcwd()]
    return {
        "network": routed(socket.AF_INET, "192.0.2.1") or routed(socket.AF_INET6, "2001:db8::1"),
        "write": any(not os.statvfs(place).f_flag & os.ST_RDONLY for place in places if os.path.isdir(place)),
        "memory": resource.getrlimit(resource.RLIMIT_DATA)[0],
    }

try:
    path = os.path.join(folder, "parity.zip")
    with open(path, "wb") as file:
        file.write(setup["source"])
    # Unpacked: configs of ports are read as files, and changed functions by their source.
    source = os.path.join(folder, "source")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(source)
    sys.path.insert(0, source)
    try:
        import safetensors, torch
        from parity.engines.worker import serve
    except Exception as error:
        channel.send({"error": "%s: %s" % (type(error).__name__, error), "traceback": ""})
    else:
        channel.send({"value": {"folder": folder, "seen": seen()}})
        serve(channel)
finally:
    import shutil
    shutil.rmtree(folder, ignore_errors=True)
"""


def worker_source() -> bytes:
    """Return this package as a zip file: what the worker imports comes from its host, not from its disk."""
    root = Path(__file__).resolve().parents[1]
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(root.rglob("*.py")):
            archive.write(path, Path("parity") / path.relative_to(root))
        for path in outside_files():  # there they are files of the package like any other
            archive.write(path, Path("parity") / "cases" / path.name)
    return content.getvalue()


class WorkerDied(EngineError):
    """The process that an engine ran in has ended."""


class RemoteSession:
    """``parity.engines.session.Session`` in another interpreter, with the same methods.

    Args:
        engine: engine name, such as ``ddq_mmdet3rc``.
        python: its interpreter, or an execnet specification such as ``ssh=host//python=/opt/py38``.
        root: the user's checkout.
        time_limit: seconds that one request may take.
        variables: environment variables of the worker beside those that are there.

    Attributes:
        folder: the worker's own, where it runs; it goes when the worker ends.
        meeting: a folder where workers of this process, or of that machine, find each other.

    Raises:
        ParityError: one line naming the engine and what was asked of it; ``detail`` holds the worker's
            traceback or the end of its standard error.
    """

    def __init__(
        self,
        engine: str,
        *,
        python: str,
        root: str,
        device: str = "cpu",
        time_limit: float = DEFAULT_TIME_LIMIT,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._variables = dict(variables or {})
        self._siblings: dict[str, RemoteSession] = {}
        self.loaded: tuple[str, str] | None = None  # case and dtype of the model that stands
        self._asked = {"python": python, "root": root, "device": device, "time_limit": time_limit}
        self.engine = engine
        self.time_limit = time_limit
        self.closed = False
        self._doing = "start"
        self._tail = self._ending = ""
        local = "=" not in python
        self._folder, self._shared = WorkerFolder(), SharedFolder()
        self._sandbox: Sandbox | None = None
        self._log = self._folder.path / "stderr.log"
        self._interpreter: Interpreter | None = None
        try:
            if local:
                self._sandbox = sandbox(self._folder.path, self._shared.path, device=device)
            self._interpreter = Interpreter(python, log=self._log, limit=time_limit, sandbox=self._sandbox)
            self._channel = self._interpreter.gateway.remote_exec(BOOTSTRAP)
            setup = {"source": worker_source(), "folder": str(self._folder.path) if local else "", "local": local}
            setup["variables"] = self._variables
            self._channel.send(setup)
            begun = self._receive()
            self.folder = str(begun["folder"])
            self.meeting = str(self._shared.path) if local else self.folder
            self.environment = self._ask("open", engine=engine, root=root, device=device)
            self.environment["sandbox"] = found(begun["seen"])
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> RemoteSession:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the worker, at once if it does not listen."""
        self.closed = True
        for sibling in self._siblings.values():
            sibling.close()
        if self._interpreter is not None:
            self._interpreter.end()
        self._folder.remove()
        self._shared.release()

    def sibling(self, **variables: str) -> RemoteSession:
        """Return a worker of its own with further environment variables, which ends with this one.

        Raises:
            ParityError: it does not start.
        """
        key = repr(sorted(variables.items()))
        if key not in self._siblings or self._siblings[key].closed:
            self._siblings[key] = type(self)(self.engine, **self._asked, variables={**self._variables, **variables})  # type: ignore[arg-type]
        return self._siblings[key]

    def fingerprint(self) -> dict[str, str]:
        return dict(self.environment)

    def load(self, case_id: str, dtype: str) -> Shapes:
        shapes = dict(self._ask("load", case_id=case_id, dtype=dtype))
        self.loaded = (case_id, dtype)
        return shapes

    def fill(self, seed: int, fills: Sequence[Mapping[str, Any]] = ()) -> str:
        return str(self._ask("fill", seed=seed, fills=[dict(fill) for fill in fills]))

    def read_weights(self, path: str) -> str:
        return str(self._ask("read_weights", path=path))

    def detect(self, paths: Sequence[str], ahead: Sequence[str] = ()) -> Run:
        return wire.decode_run(self._ask("detect", paths=list(paths), ahead=list(ahead)))

    def constants(self) -> dict[str, str]:
        return dict(self._ask("constants"))

    def configure(self, **asked: Value) -> Settings:
        return dict(self._ask("configure", **asked))

    def restore(self) -> Settings:
        return dict(self._ask("restore"))

    def preprocess(self, files: Sequence[bytes], scale: Sequence[int]) -> Run:
        return wire.decode_run(self._ask("preprocess", files=list(files), scale=list(scale)))

    def limits(self, case_id: str) -> dict[str, float]:
        return dict(self._ask("limits", case_id=case_id))

    def recipe(self, case_id: str, stage: str, **arguments: Any) -> Run:
        return wire.decode_run(self._ask("recipe", case_id=case_id, stage=stage, **arguments))

    def open_loader(self, case_id: str, data_root: str, seed: int, options: Sequence[str]) -> None:
        self._ask("open_loader", case_id=case_id, data_root=data_root, seed=seed, options=list(options))

    def next_batch(self) -> Run:
        return wire.decode_run(self._ask("next_batch"))

    def cascade(
        self,
        batch: Mapping[str, torch.Tensor],
        *,
        forced: Mapping[str, torch.Tensor] | None = None,
        promote: Promote = True,
    ) -> Run:
        return wire.decode_run(
            self._ask("cascade", batch=wire.pack(dict(batch)), forced=_packed(forced), promote=_plain(promote))
        )

    def replay(
        self,
        stage_name: str,
        inputs: Mapping[str, torch.Tensor],
        *,
        forced: Mapping[str, torch.Tensor] | None = None,
        promote: Promote = True,
    ) -> Run:
        answer = self._ask(
            "replay",
            stage_name=stage_name,
            inputs=wire.pack(dict(inputs)),
            forced=_packed(forced),
            promote=_plain(promote),
        )
        return wire.decode_run(answer)

    def observe(self, batch: Mapping[str, torch.Tensor], paths: Sequence[str]) -> list[dict[str, Any]]:
        return list(self._ask("observe", batch=wire.pack(dict(batch)), paths=list(paths)))

    def watch_modules(self, stage: str) -> dict[str, dict[str, str]]:
        return dict(self._ask("watch_modules", stage=stage))

    def module_events(self) -> list[dict[str, Any]]:
        return list(self._ask("module_events"))

    def call_owners(self, stage: str) -> list[dict[str, str]]:
        return list(self._ask("call_owners", stage=stage))

    def train(self, batch: Mapping[str, torch.Tensor], **options: Any) -> Run:
        self.loaded = None  # the step moves the weights, and DDQ DETR leaves modules on the model
        for name in ("draws", "forced"):
            options[name] = _packed(options.get(name))
        return wire.decode_run(self._ask("train", batch=wire.pack(dict(batch)), **options))

    def join_group(self, rank: int, size: int, file: str, seconds: float) -> None:
        self._ask("join_group", rank=rank, size=size, file=file, seconds=seconds)

    def leave_group(self) -> None:
        self._ask("leave_group")

    def plant(self, mutant: str, file: str) -> None:
        self._ask("plant", mutant=mutant, file=file)

    def time_forwards(self, batch: Mapping[str, torch.Tensor], repeats: int) -> dict[str, list[float]]:
        return dict(self._ask("time_forwards", batch=wire.pack(dict(batch)), repeats=repeats))

    def _ask(self, method: str, **arguments: Any) -> Any:
        subject = arguments.get("stage") or arguments.get("case_id") or arguments.get("stage_name")
        self._doing = f"{method} {subject}" if subject else method
        try:
            self._channel.send({"method": method, "arguments": arguments})
        except OSError as error:
            raise self._died(error) from error
        return self._receive()

    def _receive(self) -> Any:
        try:
            answer = self._awaited()
        except (EOFError, self._channel.RemoteError) as error:
            raise self._died(error) from error
        if "error" in answer:
            detail = answer.get("traceback", "")
            kind = EngineError if detail else ParityError  # without a traceback it is a mistake in the call
            hint = self._hint(f"{answer['error']}\n{detail}")
            raise kind(f"engine {self.engine}, {self._doing}: {answer['error']}{hint}", detail=detail)
        return answer["value"]

    def _awaited(self) -> Any:
        """Return the answer; raise where none comes in time, or none can come any more."""
        assert self._interpreter is not None
        until = time.monotonic() + self.time_limit
        while True:
            gone = self._interpreter.has_ended()  # before one looks: what it said last is on its way here
            left = until - time.monotonic()
            try:
                return self._channel.receive(max(0.0, min(_LAST_WORDS if gone else _LOOK_EVERY, left)))
            except self._channel.TimeoutError:
                if gone:
                    raise EOFError from None
                if left <= 0.0:
                    self.close()
                    raise EngineError(
                        f"engine {self.engine}, {self._doing}: no answer within {self.time_limit:g} s; it was ended"
                        " (--time-limit gives it longer)"
                    ) from None

    def _hint(self, said: str) -> str:
        return "" if self._sandbox is None else self._sandbox.hint(said)

    def _died(self, error: BaseException) -> WorkerDied:
        assert self._interpreter is not None
        if not self.closed:
            self._tail = self._log.read_text(errors="replace")[-4000:] if self._log.exists() else ""
            self._ending = self._interpreter.ending_within(_LAST_WORDS)
            self.close()
        how = f"{self._ending}; " if self._ending else ""
        return WorkerDied(
            f"engine {self.engine}, {self._doing}: the worker died; {how}the end of its standard error follows"
            f"{self._hint(self._tail)}",
            detail=self._tail or str(error),
        )


def _plain(promote: Promote) -> bool | list[str]:
    return promote if isinstance(promote, bool) else list(promote)


def _packed(tensors: Mapping[str, torch.Tensor] | None) -> bytes | None:
    return None if tensors is None else wire.pack(dict(tensors))
