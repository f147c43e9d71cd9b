"""A checkpoint as the two files that the engines read: each with its own parameter names, exactly those it fills."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from parity.ap.settings import Settings
from parity.ap.subject import Subject, sha256
from parity.errors import ParityError
from parity.weights.checkpoint import read_checkpoint
from parity.weights.conversion import convert
from parity.weights.convert_command import new_shapes

_REMARKS = "remarks"
# This command has neither option: what one of them would take goes through a file that `parity convert` writes.
_OPTIONS = ("parity convert --ema", "parity convert --trust-pickle")


def weights_of(subject: Subject, settings: Settings) -> dict[str, Path]:
    """Return engine -> its weights as a safetensors file, converting the checkpoint the first time.

    Raises:
        ParityError: the checkpoint cannot be read, or its keys do not fit the case.
    """
    case = subject.case
    if subject.shipped and not case.rules:
        return {case.legacy: subject.checkpoint, case.new: subject.checkpoint}
    folder = settings.folder / case.id / f"weights-{sha256(subject.checkpoint)[:16]}"
    files = {engine: folder / f"{engine}.safetensors" for engine in (case.legacy, case.new)}
    if not all(file.is_file() for file in files.values()):
        checkpoint = read_checkpoint(subject.checkpoint, options=_OPTIONS)
        state = {name: value for name, value in checkpoint.state.items() if _is_filled(name, value)}
        try:
            converted = convert(state, rules=case.rules, target_names=new_shapes(case))
        except ParityError as error:
            raise ParityError(f"{subject.checkpoint}: {error}") from None
        remarks = [f"{subject.checkpoint.name}: {remark}" for remark in checkpoint.remarks]
        _save(files[case.legacy], state, remarks)
        _save(files[case.new], converted, remarks)
    return files


def remarks_of(weights: Path) -> list[str]:
    """Return what was noticed of a checkpoint when it was converted into this file."""
    with safe_open(weights, framework="pt") as file:
        remarks: list[str] = json.loads((file.metadata() or {}).get(_REMARKS, "[]"))
    return remarks


def _is_filled(name: str, value: Tensor) -> bool:
    """Return whether a session fills this: constants that a constructor makes are not read from a checkpoint."""
    return value.is_floating_point() or name.endswith("num_batches_tracked")


def _save(path: Path, state: Mapping[str, Tensor], remarks: list[str]) -> None:
    """Write a state dict whole or not at all; names that share memory are written each."""
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: value.contiguous().clone() for name, value in state.items()},
            part,
            metadata={_REMARKS: json.dumps(remarks)},
        )
        part.replace(path)
    except OSError as error:
        raise ParityError(f"{path} cannot be written: {error}") from None
