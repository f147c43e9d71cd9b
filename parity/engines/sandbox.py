"""What a worker on this machine is given: no network, one folder to write to, so much memory, some variables.

The process that becomes the worker takes the rest from itself (``confine.py``). What of this the kernel allows is
tried once, by doing it; what it does not allow is said, once, and the worker runs all the same.
``PARITY_NO_SANDBOX=1`` leaves all of it away.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from parity.errors import ParityError

OFF, MEMORY, MORE = "PARITY_NO_SANDBOX", "PARITY_WORKER_MEMORY", "PARITY_WORKER_VARIABLES"
_SCRIPT = str(Path(__file__).with_name("confine.py"))
_PATIENCE = 30.0  # seconds for a try
# What an interpreter, its libraries and their numbers depend on; nothing that tells who one is elsewhere.
_NAMES = frozenset(
    ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "TZ", "LANG", "LANGUAGE", "VIRTUAL_ENV", "CONDA_PREFIX")
)
_PREFIXES = (
    *("LC_", "LD_", "DYLD_", "XDG_CACHE_", "HF_H", "PYTHON", "PARITY_", "MALLOC_", "GLIBC_"),
    *("OMP_", "KMP_", "GOMP_", "MKL_", "OPENBLAS_", "BLIS_", "DNNL_", "ONEDNN_", "NUMEXPR_", "NUMBA_"),
    *("ATEN_", "TORCH", "PYTORCH_", "TRITON_", "GLOO_", "NCCL_", "MPL", "MMCV_", "MMENGINE_"),
    *("CUDA_", "CUDNN_", "CUBLAS_", "NVIDIA_", "HIP_", "ROCR_", "HSA_"),
)
_SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|_KEY|APIKEY|COOKIE")
_trying = threading.Lock()
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_HINTS = (
    (
        "network",
        r"gaierror|URLError|Connection(Refused)?Error|ConnectTimeout|Max retries exceeded|Network is unreachable",
        f"the worker has no network; --no-sandbox or {OFF}=1 gives it what you have",
    ),
    (
        "tree",
        r"Read-only file system|Errno 30\b",
        f"the worker may write to its own folder only; --no-sandbox or {OFF}=1 lets it write where you may",
    ),
    (
        "memory",
        r"MemoryError|bad_alloc|allocate memory|Unable to allocate|not enough memory",
        "the worker may have {memory} of memory; --worker-memory gives it more",
    ),
)


@dataclass(frozen=True)
class Means:
    """What the kernel allows: a network to join, as two descriptors, and whether mounts can be made read-only."""

    network: tuple[int, int] | None
    tree: bool
    refused: str = ""


@dataclass(frozen=True)
class Sandbox:
    """How one worker starts.

    Attributes:
        folder: its own, where it may write; ``shared`` is that of all workers of this process.
        memory: bytes that it may have as data; 0 for no limit.
    """

    folder: Path
    shared: Path
    means: Means
    memory: int
    whole_environment: bool

    def command(self, words: Sequence[str]) -> list[str]:
        """Return what starts a program so."""
        if self.means.network is None and not self.means.tree and not self.memory:
            return list(words)
        writable = [str(self.folder), str(self.shared)] if self.means.tree else None
        plan = {"network": self.means.network, "writable": writable, "memory": self.memory}
        return [*_script("run"), json.dumps(plan), *words]

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What the program has to inherit beside its own."""
        return self.means.network or ()

    def environment(self, here: Mapping[str, str]) -> dict[str, str]:
        """Return the variables it is given of those that are here."""
        if self.whole_environment:
            return dict(here)
        more = [name.strip() for name in here.get(MORE, "").split(",")]
        given = {name: value for name, value in here.items() if name in more or _is_needed(name)}
        own = self.folder / "tmp"
        own.mkdir(exist_ok=True)
        return {"MPLCONFIGDIR": str(own), "TRITON_CACHE_DIR": str(own / "triton"), **given, "TMPDIR": str(own)}

    def hint(self, said: str) -> str:
        """Return what an error that a worker told has to do with its sandbox; empty where it has nothing to."""
        held = {"network": self.means.network, "tree": self.means.tree, "memory": self.memory}
        for part, pattern, words in _HINTS:
            if held[part] and re.search(pattern, said):
                return f" ({words.format(memory=sized(self.memory))})"
        return ""


def sandbox(folder: Path, shared: Path, *, device: str) -> Sandbox:
    """Return how a worker on this machine starts; say, once, what the kernel refuses.

    Args:
        device: on a GPU memory is limited only where that is asked for: drivers reserve more than they use.

    Raises:
        ParityError: ``PARITY_WORKER_MEMORY`` is no size.
    """
    asked = os.environ.get(MEMORY, "")
    off = os.environ.get(OFF, "") not in ("", "0")
    memory = parsed_size(asked) if asked else 0 if off or device != "cpu" else machine_memory()
    if sys.platform != "linux":
        memory = 0
    if off:
        return Sandbox(folder, shared, Means(None, tree=False), memory, whole_environment=True)
    means = allowed()
    if means.refused:
        _say_once(means)
    return Sandbox(folder, shared, means, memory, whole_environment=False)


def found(seen: Mapping[str, int]) -> str:
    """Return in words what a worker saw from inside, whatever was meant to be.

    Args:
        seen: whether it has a way into a ``network``, whether it may ``write`` outside of its folder, and how many
            bytes of ``memory`` it may have; -1 for no limit.

    >>> found({"network": 0, "write": 0, "memory": 2**34})
    'no network, writes to its own folder only, at most 16 GiB of memory'
    """
    network = "network" if seen["network"] else "no network"
    tree = "writes wherever its user may" if seen["write"] else "writes to its own folder only"
    return ", ".join([network, tree, *([f"at most {sized(seen['memory'])} of memory"] if seen["memory"] > 0 else [])])


def allowed() -> Means:
    """Return what the kernel allows: one answer and one network for all workers of this process."""
    with _trying:
        return _tried()


@cache
def _tried() -> Means:
    """Try it on a program that does nothing."""
    if sys.platform != "linux":
        return Means(None, tree=False, refused="it takes Linux")
    network, no_network = _made_network()
    no_tree = _refusal(network, tree=True)
    tree = not no_tree
    if no_tree and network is not None and (no_join := _refusal(network, tree=False)):
        network, no_network = None, no_join
    return Means(network, tree, no_network or no_tree)


@cache
def _say_once(means: Means) -> None:
    has = [] if means.network else ["have your network"]
    has += [] if means.tree else ["may write wherever you may"]
    print(f"parity: workers {' and '.join(has)}: no sandbox here ({means.refused})", file=sys.stderr)


def _script(word: str) -> list[str]:
    return [sys.executable, "-I", "-S", _SCRIPT, word]


def _made_network() -> tuple[tuple[int, int] | None, str]:
    """Return a new network, which lives as long as the descriptors of its two namespaces, or why there is none."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    try:
        maker = subprocess.Popen(_script("make"), start_new_session=True, **pipes)
    except OSError as error:
        return None, str(error.strerror)
    with maker, contextlib.ExitStack() as opened:
        assert maker.stdout is not None
        assert maker.stderr is not None
        assert maker.stdin is not None
        if maker.stdout.readline() != b"made\n":
            return None, _last_line(maker.stderr.read())
        try:
            users = os.open(f"/proc/{maker.pid}/ns/user", os.O_RDONLY)
            opened.callback(os.close, users)
            network = os.open(f"/proc/{maker.pid}/ns/net", os.O_RDONLY)
        except OSError as error:
            return None, f"namespaces: {error.strerror}"
        opened.pop_all()
        return (users, network), ""


def _refusal(network: tuple[int, int] | None, *, tree: bool) -> str:
    """Start a program that does nothing in a sandbox; return why it did not run, nothing if it did."""
    with tempfile.TemporaryDirectory(prefix="parity-try-") as folder:
        tried = Sandbox(Path(folder), Path(folder), Means(network, tree), 0, whole_environment=True)
        words = tried.command([sys.executable, "-I", "-S", "-c", ""])
        try:
            done = subprocess.run(
                words, capture_output=True, pass_fds=tried.descriptors, timeout=_PATIENCE, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
    return "" if done.returncode == 0 else _last_line(done.stderr)


def _last_line(said: bytes) -> str:
    return (said.decode(errors="replace").strip().splitlines() or ["it ended without a word"])[-1]


def _is_needed(name: str) -> bool:
    return (name in _NAMES or name.startswith(_PREFIXES)) and not _SECRET.search(name)


def parsed_size(text: str) -> int:
    """Return bytes.

    >>> parsed_size("16G") == parsed_size("16GiB") == 16 * 2**30
    True

    Raises:
        ParityError: it is no size.
    """
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*([KMGT]?)(?:i?B)?\s*", text, re.IGNORECASE | re.ASCII)
    size = int(float(match[1]) * _UNITS[match[2].upper()]) if match else 0
    if not 0 < size < 1 << 62:
        raise ParityError(f"--worker-memory {text}: give a size, such as 16G")
    return size


def sized(size: int) -> str:
    """Return a size in words.

    >>> sized(3 * 2**29)
    '1.5 GiB'
    """
    return f"{size / (1 << 30):.3g} GiB"


def machine_memory() -> int:
    """Return the bytes of memory and swap that this machine has; 0 where it does not tell."""
    try:
        facts = Path("/proc/meminfo").read_text()
    except OSError:
        return 0
    return sum(int(size) << 10 for size in re.findall(r"^(?:MemTotal|SwapTotal):\s+(\d+) kB", facts, re.MULTILINE))
