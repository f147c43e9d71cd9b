"""Who predicts: processes that are started here, one for each GPU, or those that torchrun started."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from traceback import format_exc
from typing import Any, Protocol, TypeVar

from parity.ap.frames import count_frames, part_path
from parity.ap.progress import Progress
from parity.ap.run import Image, Run
from parity.ap.shard import REASON, predict_share, share, write_plan
from parity.errors import ParityError

T = TypeVar("T")
_LOOK_EVERY = 0.2  # seconds
_VISIBLE_WITHIN = 120.0  # seconds until a shared file system shows what another node wrote


class Team(Protocol):
    """Processes that share the images of a run."""

    leads: bool

    def agree(self, decide: Callable[[], T]) -> T:
        """Return what the leading process decides, in every process."""

    def predict(self, run: Run, images: Sequence[Image], round_: int, progress: Progress) -> list[str]:
        """Predict images, each once; return what failed, a line for each process."""


def complete(run: Run, team: Team, progress: Progress) -> list[str]:
    """Predict whatever is missing, round by round: what a failing process leaves, the others do in the next one.

    Returns:
        what failed on the way.

    Raises:
        ParityError: a whole round brought nothing; names some of the images that are missing.
    """
    failures: list[str] = []
    missing, round_ = team.agree(run.left)
    while missing:
        failures += team.predict(run, missing, round_, progress)
        before = len(missing)
        missing, round_ = team.agree(run.left)
        if len(missing) == before:
            raise ParityError(_hopeless(run, missing, failures))
    return failures


def _hopeless(run: Run, missing: Sequence[Image], failures: Sequence[str]) -> str:
    some = ", ".join(str(image.id) for image in missing[:5])
    reason = failures[-1] if failures else "no process says why"
    return (
        f"{run.job.case}, {run.job.engine}: {len(missing)} of {len(run.images)} images cannot be predicted"
        f" ({some}{', …' if len(missing) > 5 else ''}): {reason}"
    )


class Spawned:
    """Processes started here, one for each device.

    Args:
        devices: what ``CUDA_VISIBLE_DEVICES`` is in each, ``""`` for the CPU.
        held: a file descriptor that they inherit: the lock of the run.
    """

    leads = True

    def __init__(self, devices: Sequence[str], *, held: int = -1) -> None:
        self._devices = list(devices)
        self._held = held

    def agree(self, decide: Callable[[], T]) -> T:
        """There is one process that decides."""
        return decide()

    def predict(self, run: Run, images: Sequence[Image], round_: int, progress: Progress) -> list[str]:
        """Start the processes and wait; a device that fails before it got anything done is not used again."""
        plan = run.folder / f"plan-{round_}.json"
        devices = self._devices[: len(images)]
        write_plan(plan, run.job, images, round_, identity=run.digest)
        processes = [self._start(plan, rank, len(devices)) for rank in range(len(devices))]
        try:
            while any(process.poll() is None for process in processes):
                progress.refresh()
                time.sleep(_LOOK_EVERY)
        finally:
            for process in processes:
                process.kill()
                process.wait()
        progress.refresh()
        failed = [rank for rank, process in enumerate(processes) if process.returncode]
        useless = [rank for rank in failed if not frames_of(run.folder, round_, rank)]
        self._devices = [device for rank, device in enumerate(self._devices) if rank not in useless]
        return [f"{_called(devices[rank], rank)}: {_last_words(plan, rank)}" for rank in failed]

    def _start(self, plan: Path, rank: int, world: int) -> subprocess.Popen[bytes]:
        device = self._devices[rank]
        command = [sys.executable, "-m", "parity.ap.shard", str(plan), "--rank", str(rank), "--world", str(world)]
        command += ["--parent", str(os.getpid())]
        with _log(plan, rank).open("wb") as log:
            return subprocess.Popen(
                [*command, "--device", "cuda:0" if device else "cpu"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "CUDA_VISIBLE_DEVICES": device},
                pass_fds=[self._held] if self._held >= 0 else [],
            )


class Torchrun:
    """The processes that torchrun started, on one node or several; this one is one of them.

    They meet over gloo, which needs no GPU; each uses the GPU of its local rank.
    """

    def __init__(self, device: str) -> None:
        import torch.distributed as dist

        self._dist = dist
        self._device = device
        if not dist.is_initialized():
            dist.init_process_group("gloo", timeout=timedelta(days=7))  # the slowest share is waited for
            # Gloo's threads must end before the interpreter does: one that still lets go of a Python object aborts it.
            atexit.register(dist.destroy_process_group)
        self._rank, self._world = dist.get_rank(), dist.get_world_size()
        self.leads = self._rank == 0

    def agree(self, decide: Callable[[], T]) -> T:
        """Return what the process of rank 0 decides; what it raises, all raise."""
        said: list[Any] = [None]
        if self.leads:
            try:
                said = [(True, decide())]
            except ParityError as error:
                said = [(False, error)]
            except Exception as error:  # the others wait for an answer, whatever happened
                said = [(False, ParityError(f"{type(error).__name__}: {error}", detail=format_exc()))]
        self._dist.broadcast_object_list(said, src=0)
        good, value = said[0]
        if not good:
            raise value
        return value  # type: ignore[no-any-return]

    def predict(self, run: Run, images: Sequence[Image], round_: int, progress: Progress) -> list[str]:
        """Predict this process's share; wait for the others."""
        lead = self.agree(lambda: dict(run.identity))
        mine, failure = share(images, rank=self._rank, world=self._world), ""
        last = [time.monotonic()]

        def tell() -> None:
            if self.leads and time.monotonic() - last[0] > 1.0:
                last[0] = time.monotonic()
                progress.refresh()

        part = part_path(run.folder, round_, self._rank)
        try:
            _require_same(run.identity, lead)
            predict_share(run.job, mine, part, identity=run.digest, device=self._device, tell=tell)
        except Exception as error:  # of any kind: the others go on, and the lead tells
            failure = f"rank {self._rank}: {error}"
        told: list[Any] = [None] * self._world
        self._dist.all_gather_object(told, (failure, frames_of(run.folder, round_, self._rank)))
        frames = {rank: count for rank, (_, count) in enumerate(told)}
        self.agree(lambda: _await_visible(run.folder, frames, round_))
        return [reason for reason, _ in told if reason]


def _require_same(identity: Mapping[str, str], lead: Mapping[str, str]) -> None:
    """Raise ``ParityError`` where a process would predict with other weights, data or code than the leading one."""
    different = sorted(name for name in identity.keys() | lead.keys() if identity.get(name) != lead.get(name))
    if different:
        raise ParityError(f"its {', '.join(different)} differ from those of rank 0: its predictions do not count")


def frames_of(folder: Path, round_: int, rank: int) -> int:
    """Return how many images a process predicted in one round."""
    part = part_path(folder, round_, rank)
    return count_frames(part)[0] if part.exists() else 0


def _await_visible(folder: Path, frames: dict[int, int], round_: int) -> None:
    """Wait until all that other nodes wrote can be read here: shared file systems take their time."""
    until = time.monotonic() + _VISIBLE_WITHIN
    while any(frames_of(folder, round_, rank) < count for rank, count in frames.items()):
        if time.monotonic() > until:
            raise ParityError(f"{folder} does not show what other processes wrote: is it on a file system they share?")
        time.sleep(_LOOK_EVERY)


def _called(device: str, rank: int) -> str:
    return f"GPU {device}" if device else f"process {rank}"


def _log(plan: Path, rank: int) -> Path:
    return plan.with_name(f"{plan.stem}-{rank}.log")


def _last_words(plan: Path, rank: int) -> str:
    """Return the reason that a process gave, or the last line that it wrote; and where the rest is."""
    log = _log(plan, rank)
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    stated = [line.removeprefix(REASON) for line in lines if line.startswith(REASON)]
    return f"{(stated or lines or ['killed'])[-1]} (see {log})"


def gpu_names(count: int) -> list[str]:
    """Return what ``CUDA_VISIBLE_DEVICES`` is to be in each of ``count`` processes.

    Raises:
        ParityError: there are fewer GPUs.
    """
    import torch

    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = named[:seen] or [str(index) for index in range(seen)]
    if count > len(names):
        raise ParityError(
            f"--gpus {count}: torch sees {seen or 'no'} GPU{'s' * (seen != 1)} here; --gpus 0 uses the CPU"
        )
    return names[:count]


def under_torchrun() -> bool:
    """Return whether torchrun started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def torchrun_device(gpus: int) -> str:
    """Return the device of this process, and have it see no other GPU."""
    if not gpus:
        return "cpu"
    local = int(os.environ.get("LOCAL_RANK", "0"))
    names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    if not os.environ.get("PARITY_OWN_GPU"):
        os.environ["CUDA_VISIBLE_DEVICES"] = names[local] if local < len(names) else str(local)
        os.environ["PARITY_OWN_GPU"] = "1"
    return "cuda:0"
