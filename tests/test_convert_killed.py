"""A conversion that is killed leaves a whole file or none, no ledger of another file, and nothing for ever."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from kills import KILLS, hidden, killed, killed_at_each_step
from test_convert_command import LEGACY, NEW, RULES

from parity.atomic import sweep
from parity.cli import main
from parity.weights import convert_command
from parity.weights.checkpoint import read_checkpoint

ROWS = 20_000  # of a parameter: a file that takes a moment to write
CONVERTER = """
import itertools, sys
from pathlib import Path
from test_convert_killed import convert, write_legacy

folder = Path(sys.argv[1])
for number in (0, 1):
    write_legacy(folder / f"legacy-{number}.pth", number)
print("ready", flush=True)
for number in itertools.cycle((0, 1)):
    convert(folder, number)
"""


def write_legacy(path: Path, number: int, *, rows: int = ROWS) -> None:
    """Write a checkpoint whose weights are all ``number``; that of 1 has a name more, so that ledgers differ."""
    shapes = {**LEGACY, "neck.convs.0.weight": (rows, 32), **({"old.more": (1,)} if number else {})}
    torch.save({"state_dict": {name: torch.full(shape, float(number)) for name, shape in shapes.items()}}, path)


def convert(folder: Path, number: int, *, rows: int = ROWS) -> None:
    """Convert it to ``new.pth``; the case is a handful of parameters."""
    case = convert_command.find_case("ddq_detr_4scale_r50_12e")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(convert_command, "find_case", lambda _: replace(case, rules=RULES))
        patched.setattr(convert_command, "new_shapes", lambda _: {**NEW, "neck.0.weight": (rows, 32)})
        words = ["convert", case.id, str(folder / f"legacy-{number}.pth"), str(folder / "new.pth")]
        assert main([*words, "--ledger", str(folder / "ledger.json")]) == 0


def assert_whole(folder: Path) -> None:
    """What is at its place is whole; the ledger, where there is one, is that of the file beside it."""
    path, ledger, number = folder / "new.pth", folder / "ledger.json", -1
    if path.exists():
        values = {float(value) for tensor in read_checkpoint(path).state.values() for value in tensor.unique()}
        assert len(values) == 1
        made = torch.load(path, weights_only=True)["meta"]["parity"]
        number = int(values.pop())
        assert made["from"] == f"legacy-{number}.pth"
    if ledger.exists():
        assert len(json.loads(ledger.read_text())["moves"]) == len(LEGACY) + number


def test_a_kill_at_any_moment_leaves_a_whole_file_or_none(tmp_path: Path) -> None:
    moment = random.Random(15)
    for _ in range(KILLS):
        killed(CONVERTER, tmp_path, moment=moment, most=1.0)
        assert_whole(tmp_path)
        convert(tmp_path, 1)  # the next start
        assert_whole(tmp_path)
        assert list(hidden(tmp_path)) == []


def test_a_kill_before_each_thing_it_does_to_files_leaves_a_whole_file_or_none(tmp_path: Path) -> None:
    for number in (0, 1):
        write_legacy(tmp_path / f"legacy-{number}.pth", number, rows=3)
    convert(tmp_path, 1, rows=3)

    def checked() -> None:
        assert_whole(tmp_path)
        convert(tmp_path, 1, rows=3)  # the next start
        assert_whole(tmp_path)
        assert list(hidden(tmp_path)) == []

    assert killed_at_each_step(lambda: convert(tmp_path, 0, rows=3), tmp_path, checked) > 4


def test_a_conversion_that_fails_at_its_place_keeps_no_ledger_and_leaves_nothing(tmp_path: Path) -> None:
    write_legacy(tmp_path / "legacy-0.pth", 0)
    (tmp_path / "new.pth").mkdir()
    with pytest.raises(AssertionError):
        convert(tmp_path, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["legacy-0.pth", "new.pth"]


def test_a_sweep_takes_what_nobody_writes_and_no_other_file(tmp_path: Path) -> None:
    for name in (".new.pth.123.part", ".new.pth.123-456.part", ".other.pth.1-2.part", "new.pth"):
        (tmp_path / name).touch()
    sweep(tmp_path / "new.pth")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.pth.1-2.part", "new.pth"]
