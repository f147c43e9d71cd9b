"""With the ports imported, mmengine reads its own checkpoints, and none that asks for more than data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hostile_checkpoints import checkpoint, write
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader

import parity.ports  # noqa: F401  # registers the loader
from parity.errors import ParityError


def test_mmengine_reads_what_it_keeps(tmp_path: Path) -> None:
    torch.save(checkpoint(message_hub={"loss": HistoryBuffer([1.0], [1]), "best": np.float64(0.4)}), tmp_path / "a.pth")
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(tmp_path / "a.pth")
    loaded = CheckpointLoader.load_checkpoint(str(tmp_path / "a.pth"), "cpu")
    assert loaded["message_hub"]["loss"].mean() == 1.0


def test_what_asks_for_more_is_refused(tmp_path: Path) -> None:
    path, mark = write("message hub", tmp_path)
    with pytest.raises(ParityError, match=r"model\.pth: its pickle asks for exec"):
        CheckpointLoader.load_checkpoint(str(path), "cpu")
    assert not mark.exists()
    with pytest.raises(FileNotFoundError, match=r"none\.pth can not be found"):
        CheckpointLoader.load_checkpoint(str(tmp_path / "none.pth"), "cpu")
