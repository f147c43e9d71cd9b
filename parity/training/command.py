"""What ``parity train`` does, behind its options."""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parity.cases.base import Case
from parity.cases.registry import find_case
from parity.engines.environment import legacy_python
from parity.engines.host import worker_source
from parity.engines.mmdet2 import Mmdet2Engine
from parity.engines.session import engine_class, make_engine
from parity.errors import ParityError
from parity.text import one_line, shown
from parity.weights.kinds import OLD, ZIP, kind_of
from parity.weights.pickles import load

DRIVER = Path(__file__).with_name("driver.py")
LOG = "losses.jsonl"
_RUNS_PICKLES = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"  # lets torch run whatever a file asks for: no training gets that
_NAMED, _LATEST = "last_checkpoint", "latest.pth"  # how mmengine and mmcv 1.x say which checkpoint is the last


@dataclass(frozen=True)
class Launch:
    """How a training is started: its words, what it adds to the environment, and where it logs."""

    command: tuple[str, ...]
    environment: dict[str, str]
    log: Path


def train(options: argparse.Namespace) -> Path:
    """Train as the options ask and return the file of the loss curve.

    Raises:
        ParityError: the call is wrong, or the training failed; its own output says why.
    """
    launch = prepare(options)
    inherited = {name: value for name, value in os.environ.items() if name != _RUNS_PICKLES}
    done = subprocess.run(launch.command, env={**inherited, **launch.environment}, check=False)
    if done.returncode:
        raise ParityError(
            f"the training of {options.case} ended with status {done.returncode}: its own output is above;"
            " --resume goes on from the last checkpoint"
        )
    return launch.log


def prepare(options: argparse.Namespace) -> Launch:
    """Write the job into its work folder and return how to start it."""
    case = find_case(options.case)
    engine = case.new if options.engine == "new" else case.legacy
    _require(options)
    folder = (options.work_dir or Path("work_dirs") / f"{case.id}-{options.engine}").resolve()
    log = folder / LOG
    if log.exists() and not options.resume:
        raise ParityError(f"{folder} holds a training: --resume goes on with it, --work-dir names another folder")
    legacy = options.engine == "legacy"
    package = Path(__file__).parents[2]
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH")]))}
    python = sys.executable
    if legacy:
        python = _local(legacy_python(engine, options.legacy_python))
        environment["PYTHONPATH"] = _source(folder)  # this package and nothing else of this interpreter's
    if options.resume:
        expect_plain_checkpoint(folder)
    if options.gpus == 0:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    try:
        job = _write_job(case, engine, options, folder)
    except OSError as error:
        raise ParityError(f"--work-dir {folder} cannot be written: {error.strerror}") from error
    launcher = _launcher(options.gpus) if options.gpus > 1 else ()
    return Launch((python, *launcher, str(DRIVER), str(job)), environment, log)


def expect_plain_checkpoint(folder: Path) -> None:
    """Read what a training would go on from, as data; where there is nothing, it begins anew.

    Raises:
        ParityError: the checkpoint is not there, damaged, or asks for more than data; it is named.
    """
    for path in _to_resume(folder):
        kind = kind_of(path)
        if kind not in (ZIP, OLD):
            raise ParityError(f"{path} is no checkpoint of a training: --work-dir names another folder")
        load(path, kind=kind, option="")


def _to_resume(folder: Path) -> list[Path]:
    try:
        named = (folder / _NAMED).read_text().strip() if (folder / _NAMED).exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ParityError(f"{folder / _NAMED} cannot be read: {one_line(str(error))}") from None
    if "://" in named or "\0" in named or (named and not Path(named).exists()):
        raise ParityError(f"{folder / _NAMED} names {shown(named)}, which is no file here: correct or remove it")
    latest = [folder / _LATEST] if (folder / _LATEST).is_symlink() or (folder / _LATEST).exists() else []
    return [*([Path(named)] if named else []), *latest]


def _require(options: argparse.Namespace) -> None:
    """Raise ``ParityError`` where the options make no sense together."""
    legacy = options.engine == "legacy"
    engine = find_case(options.case).legacy
    wanted = engine_class(engine).checkout if legacy else ""
    if wanted and not options.legacy_root:
        raise ParityError(f"--engine legacy: clone {wanted}, and name its folder with --legacy-root")
    if options.gpus < 0 or options.max_steps < 0:
        raise ParityError("--gpus and --max-steps: give 0 or more")
    if options.seed is not None and not 0 <= options.seed < 2**32:
        raise ParityError(f"--seed {options.seed}: from 0 to 4294967295")
    require_data_options(options)
    if options.batches and legacy and options.gpus > 1 and issubclass(engine_class(engine), Mmdet2Engine):
        raise ParityError("--batches: mmdet 2 is fed them on one GPU (--gpus 1) or on the CPU (--gpus 0)")
    if options.batches and not (options.batches / "manifest.json").is_file():
        raise ParityError(f"--batches {options.batches}: no frozen batches; `parity freeze --batches N` makes them")


def require_data_options(options: argparse.Namespace) -> None:
    """Raise ``ParityError`` where ``--cfg-option`` or ``--data-root`` cannot be meant."""
    unclear = [option for option in options.cfg_option if "=" not in option]
    if unclear:
        raise ParityError(f"--cfg-option {unclear[0]}: write it as KEY=VALUE, such as optim_wrapper.optimizer.lr=1e-4")
    if options.data_root and not options.data_root.is_dir():
        raise ParityError(f"--data-root {options.data_root}: no such folder")


def _local(python: str) -> str:
    if "=" in python:
        raise ParityError(f"--legacy-python {python}: a training is started where its interpreter is; run it there")
    return python


def _source(folder: Path) -> str:
    """Write this package as a zip file for another interpreter to import."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".parity.zip"
    path.write_bytes(worker_source())
    return str(path)


def _launcher(gpus: int) -> tuple[str, ...]:
    """Return the words that start one process a GPU, the same in torch 1.9 and today."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = ("--master_addr=127.0.0.1", f"--master_port={port}")
    return ("-m", "torch.distributed.run", "--nnodes=1", f"--nproc_per_node={gpus}", *address)


def _write_job(case: Case, engine: str, options: argparse.Namespace, folder: Path) -> Path:
    legacy = options.engine == "legacy"
    root = str(Path(options.legacy_root).resolve()) if legacy and options.legacy_root else ""
    job: dict[str, Any] = {
        "engine": engine,
        "root": root,
        "config": case.configs[engine] if legacy else make_engine(engine).config_path(case),
        "work_dir": str(folder),
        "log": str(folder / LOG),
        "data_root": str(options.data_root.resolve()) if options.data_root else "",
        "options": list(options.cfg_option),
        "gpus": options.gpus,
        "seed": options.seed,
        "max_steps": options.max_steps,
        "resume": options.resume,
        "offline": options.offline,
        "batches": str(options.batches.resolve()) if options.batches else "",
        "header": {"case": case.id, "engine": engine, "gpus": options.gpus, "options": list(options.cfg_option)},
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "job.json"
    path.write_text(json.dumps(job, indent=1) + "\n")
    return path
