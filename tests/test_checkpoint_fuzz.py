"""Crafted checkpoints: weights that are well formed, or one line; nothing is run. Seeded, and bounded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from crafted_checkpoints import craft

from parity.errors import ParityError
from parity.weights.checkpoint import read_checkpoint

SEEDS = range(300)
PART = 50


@pytest.mark.parametrize("first", range(0, len(SEEDS), PART))
def test_a_crafted_checkpoint_gives_weights_or_one_line(
    first: int, tmp_path: Path, parity_command: Callable[..., tuple[int, str, str]]
) -> None:
    mark, output = tmp_path / "was_run", tmp_path / "out.pth"
    wrong, refused = {}, 0
    for seed in SEEDS[first : first + PART]:
        crafted = craft(seed, mark)
        path = tmp_path / f"model{crafted.suffix}"
        path.write_bytes(crafted.data)
        status, out, err = parity_command("coco", "labels", path, output, "--80")
        refused += status == 2
        reason = fault(path, output, status, out, err)
        if reason or mark.exists():
            wrong[seed] = f"{crafted.name}: {reason or 'it was run'}"
        for file in (path, output, mark):
            file.unlink(missing_ok=True)
    assert wrong == {}
    assert PART // 2 < refused < PART


def fault(path: Path, output: Path, status: int, out: str, err: str) -> str:
    """Return what is wrong with an outcome: empty if it is one line, or a file that torch reads."""
    if status == 0:
        content = torch.load(output, weights_only=True)
        return "" if content["state_dict"] and not err else f"an odd file: {err}"
    if status != 2 or output.exists() or out:
        return f"status {status}: {err[-300:]}"
    is_line = err.startswith(f"parity: {path}") and err.count("\n") == 1 and err[:-1].isprintable() and len(err) < 1500
    averages = _with_averages(path)
    return "" if is_line and averages else f"no line: {err[-300:]}"


def _with_averages(path: Path) -> bool:
    """Return whether asking for averages, too, gives weights or a line."""
    try:
        return bool(read_checkpoint(path, ema=True).state)
    except ParityError as error:
        return str(error).isprintable()


def test_a_seed_is_always_the_same_file(tmp_path: Path) -> None:
    first, second = craft(7, tmp_path / "a"), craft(7, tmp_path / "a")
    assert first.name == second.name
    assert len({craft(seed, tmp_path / "a").name for seed in SEEDS}) > len(SEEDS) // 2
