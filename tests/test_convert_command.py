"""``parity convert``: a checkpoint there and back, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from parity.cases.base import Case
from parity.weights import convert_command
from parity.weights.checkpoint import read_checkpoint
from parity.weights.rules import ClassMap, Drop, Rename

LEGACY = {"neck.convs.0.weight": (3, 2), "cls.weight": (91, 4), "cls.bias": (91,), "old.scale": (1,)}
NEW = {"neck.0.weight": (3, 2), "cls.weight": (2, 4), "cls.bias": (2,)}
RULES = (
    Rename(r"neck\.convs\.(.*)", r"neck.\1"),
    ClassMap(r"cls\.(weight|bias)", (18, 1), 91),
    Drop(r"old\.(.*)", "the new engine computes it"),
)


@pytest.fixture
def small_case(case: Case, monkeypatch: pytest.MonkeyPatch) -> Case:
    """Return the case with three rules and a handful of parameters, whose engines need not be built."""
    small = replace(case, rules=RULES)
    monkeypatch.setattr(convert_command, "find_case", lambda _: small)
    monkeypatch.setattr(convert_command, "new_shapes", lambda _: NEW)
    monkeypatch.setattr(convert_command, "legacy_shapes", lambda _: LEGACY)
    return small


@pytest.fixture
def legacy_file(tmp_path: Path) -> Path:
    draw = torch.Generator().manual_seed(0)
    state = {name: torch.randn(shape, generator=draw) for name, shape in LEGACY.items()}
    meta = {"mmcv_version": "1.4.7", "CLASSES": ("dog", "person")}
    torch.save({"meta": meta, "state_dict": state}, tmp_path / "legacy.pth")
    return tmp_path / "legacy.pth"


def test_convert_and_back(
    small_case: Case, legacy_file: Path, tmp_path: Path, parity_command: Callable[..., tuple[int, str, str]]
) -> None:
    new, back = tmp_path / "new.pth", tmp_path / "back.pth"
    status, out, err = parity_command("convert", small_case.id, legacy_file, new, "--ledger", tmp_path / "ledger.json")
    assert (status, err) == (0, "")
    assert "read: weights of a mmcv checkpoint" in out
    assert "keys: 4 read, 3 written, each accounted for" in out
    assert "2 by ClassMap(" in out
    assert "reversible: --reverse gives the input back bit for bit" in out
    written = torch.load(new, weights_only=True)
    assert {name: tuple(value.shape) for name, value in written["state_dict"].items()} == NEW
    assert written["meta"]["dataset_meta"]["classes"] == ("dog", "person")
    assert len(json.loads((tmp_path / "ledger.json").read_text())["moves"]) == 4

    status, out, err = parity_command("convert", small_case.id, new, back, "--reverse")
    assert (status, err) == (0, "")
    assert "gives the input back bit for bit" in out
    first, last = read_checkpoint(legacy_file).state, read_checkpoint(back).state
    assert {name: value.numpy().tobytes() for name, value in last.items()} == {
        name: value.numpy().tobytes() for name, value in first.items()
    }


def test_convert_says_when_there_is_no_way_back(
    small_case: Case,
    legacy_file: Path,
    tmp_path: Path,
    parity_command: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lossy = replace(small_case, rules=(Rename(r"neck.convs.0\.(.*)", r"neck.0.\1"), *RULES[1:]))
    monkeypatch.setattr(convert_command, "find_case", lambda _: lossy)
    status, out, _ = parity_command("convert", lossy.id, legacy_file, tmp_path / "new.pth")
    assert status == 0
    assert "not reversible: weights: cannot be reversed: 'neck.convs.0" in out


def test_weights_trained_on_cannot_be_reversed_without_what_was_dropped(
    small_case: Case, tmp_path: Path, parity_command: Callable[..., tuple[int, str, str]]
) -> None:
    torch.save({"state_dict": {name: torch.ones(shape) for name, shape in NEW.items()}}, tmp_path / "new.pth")
    status, _, err = parity_command("convert", small_case.id, tmp_path / "new.pth", tmp_path / "back.pth", "--reverse")
    assert status == 2
    assert "new.pth: weights: cannot be reversed: 89 of the 91 rows of 'cls.weight' were dropped and not kept" in err
    assert not (tmp_path / "back.pth").exists()


def test_convert_writes_nothing_unless_all_is_accounted_for(
    small_case: Case, tmp_path: Path, parity_command: Callable[..., tuple[int, str, str]]
) -> None:
    state = {name: torch.ones(shape) for name, shape in LEGACY.items()}
    torch.save({**state, "strange": torch.ones(1)}, tmp_path / "in.pth")
    ledger = tmp_path / "ledger.json"
    status, _, err = parity_command(
        "convert", small_case.id, tmp_path / "in.pth", tmp_path / "o.pth", "--ledger", ledger
    )
    named = f"parity: {tmp_path / 'in.pth'}: weights: "
    assert (status, err) == (2, f"{named}1 legacy keys have no place ['strange'], 0 new keys get no value []\n")
    assert [path.name for path in tmp_path.iterdir()] == ["in.pth"]


def test_convert_needs_three_different_files(
    small_case: Case, legacy_file: Path, tmp_path: Path, parity_command: Callable[..., tuple[int, str, str]]
) -> None:
    message = "the input, the output and the ledger must be different files"
    status, _, err = parity_command("convert", small_case.id, legacy_file, legacy_file)
    assert status == 2
    assert message in err
    status, _, err = parity_command(
        "convert", small_case.id, legacy_file, tmp_path / "n.pth", "--ledger", tmp_path / "n.pth"
    )
    assert status == 2
    assert message in err


def test_a_ledger_that_cannot_be_written_is_an_error(
    small_case: Case, legacy_file: Path, tmp_path: Path, parity_command: Callable[..., tuple[int, str, str]]
) -> None:
    status, _, err = parity_command(
        "convert", small_case.id, legacy_file, tmp_path / "new.pth", "--ledger", tmp_path / "no" / "ledger.json"
    )
    assert status == 2
    assert "ledger.json: No such file or directory" in err


def test_the_legacy_names_come_from_a_record(case: Case, record_folder: Path) -> None:
    shapes = convert_command.legacy_shapes(case)
    assert shapes is not None
    assert list(shapes["backbone.conv1.weight"]) == [64, 3, 7, 7]
    assert convert_command.legacy_shapes(replace(case, id="none_frozen")) is None
