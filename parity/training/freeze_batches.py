"""What ``parity freeze CASE --batches N`` does: dump what an engine's own training loader gives."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import save
from tqdm import tqdm

from parity.cases.registry import find_case
from parity.engines.environment import legacy_python
from parity.engines.host import DEFAULT_TIME_LIMIT, RemoteSession
from parity.engines.session import Session
from parity.errors import ParityError
from parity.training.command import require_data_options
from parity.training.frozen_batches import MANIFEST, SCHEMA

AnySession = Session | RemoteSession


def freeze_batches(options: argparse.Namespace) -> Path:
    """Dump the batches that the options ask for and return their folder.

    Raises:
        ParityError: the call is wrong, the folder exists, or the engine fails.
    """
    case = find_case(options.case)
    folder = options.out or Path("batches") / case.id
    if options.batches < 1:
        raise ParityError(f"--batches {options.batches}: give 1 or more")
    if folder.exists() and not options.force:
        raise ParityError(f"{folder} exists; --force replaces it, --out writes elsewhere")
    if folder.exists() and not _holds_nothing_else(folder):
        raise ParityError(f"{folder} holds no frozen batches: --force replaces nothing else, --out writes elsewhere")
    require_data_options(options)
    settings = {
        "data_root": str(options.data_root.resolve()) if options.data_root else "",
        "seed": options.seed or 0,
        "options": list(options.cfg_option),
    }
    if options.engine == "new":
        return dump(Session(case.new), case.id, folder, count=options.batches, **settings)
    python = legacy_python(case.legacy, options.legacy_python)
    limit = options.time_limit or DEFAULT_TIME_LIMIT
    with RemoteSession(case.legacy, python=python, root=options.legacy_root, time_limit=limit) as session:
        return dump(session, case.id, folder, count=options.batches, **settings)


def _holds_nothing_else(folder: Path) -> bool:
    """Whether a folder is one that ``dump`` wrote, or empty: ``--out`` may name any folder of the user's."""
    if not folder.is_dir():
        return False
    files = {path.name for path in folder.iterdir()}
    others = [name for name in files if name != MANIFEST and not re.fullmatch(r"batch-\d+\.safetensors", name)]
    return not others and (not files or MANIFEST in files)


def dump(session: AnySession, case_id: str, folder: Path, *, count: int, **settings: Any) -> Path:
    """Write ``count`` batches of a session's engine into ``folder``, all or nothing; return the folder."""
    described = []
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise ParityError(f"--out {folder} cannot be written: {error.strerror}") from error
    try:
        session.open_loader(case_id, **settings)
        for number in tqdm(range(count), desc=f"{case_id}, batches", unit="batch", disable=None):
            tensors = {name: tensor.contiguous() for name, tensor in session.next_batch().tensors.items()}
            content, file = save(tensors), f"batch-{number:05}.safetensors"
            (part / file).write_bytes(content)
            objects = [len(tensors[f"gt_labels[{index}]"]) for index in range(len(tensors["image"]))]
            described.append({"file": file, "sha256": hashlib.sha256(content).hexdigest(), "objects": objects})
        engine = session.fingerprint()
        manifest = {"schema": SCHEMA, "case": case_id, "engine": engine, **settings, "batches": described}
        (part / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        part.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        part.rename(folder)
    except OSError as error:
        raise ParityError(f"{folder} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder
