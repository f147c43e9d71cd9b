"""docs/reading-a-divergence.md shows what really comes out: examples are made again and held against the page.

The tie is that of a stock detector, whose record is not committed: ``test_stock_live`` makes that one again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from parity.cases.registry import find_case
from parity.check import Checker
from parity.commands import print_results
from parity.records.locate import default_fixtures
from parity.records.store import Record

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reading-a-divergence.md"
FCN, DETR = "ddq_fcn_r50_12e", "ddq_detr_4scale_r50_12e"


def _nothing(model: Any) -> None:
    pass


def _eps(model: Any) -> None:
    model.backbone.layer4[2].bn2.eps = 1e-3


def _no_padding(model: Any) -> None:
    model.get_valid_ratio = lambda mask: torch.ones(len(mask), 2)


def _class_slip(model: Any) -> None:
    layer = model.bbox_head.conv_cls
    with torch.no_grad():
        layer.weight.copy_(layer.weight.roll(1, 0))
        layer.bias.copy_(layer.bias.roll(1, 0))


# Heading of the page -> case, record, stage, mode, dtype, what is planted in the new engine.
EXAMPLES: dict[str, tuple[str, str, str, str, str, Callable[[Any], None]]] = {
    "A wrong eps": (FCN, "tiny", "backbone", "isolated", "fp64", _eps),
    "A float32 island": (DETR, "unpadded", "encoder", "isolated", "fp64", _nothing),
    "A pad mask": (DETR, "padded", "encoder", "isolated", "fp64", _no_padding),
    "A class-map slip": (FCN, "tiny", "fcn_head", "isolated", "fp64", _class_slip),
}


def shown(heading: str) -> list[str]:
    """Return the lines of the output that the page shows below a heading."""
    section = PAGE.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```text\n(.*?)```", section, flags=re.S)
    assert len(blocks) == 1, f"{heading}: one block of output is wanted"
    return [line.strip() for line in blocks[0].splitlines() if line.strip()]


def made(heading: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the lines that the check really prints."""
    case_id, record, stage, mode, dtype, plant = EXAMPLES[heading]
    checker = Checker(find_case(case_id))
    loaded = Record(default_fixtures() / case_id / record)
    session = checker.prepared(loaded, dtype)[0]
    plant(session.model)
    capsys.readouterr()
    print_results(list(checker.check(loaded, mode=mode, dtype=dtype, stages=[stage])))
    return [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip()]


def words(line: str) -> str:
    """Return a line without its numbers: float32 noise, and the last digits, are the machine's."""
    return re.sub(r"[-+]?\d[\d.,e+-]*", "N", re.sub(r" +", " ", line))


@pytest.mark.parametrize("heading", EXAMPLES)
def test_the_page_shows_what_comes_out(heading: str, capsys: pytest.CaptureFixture[str]) -> None:
    expected, actual = shown(heading), made(heading, capsys)
    missing = [line for line in expected if words(line) not in map(words, actual)]
    assert not missing, "\n".join(["the page says", *missing, "but it is", *actual])
    notes = [line for line in actual if line.startswith("note:") and words(line) not in map(words, expected)]
    assert not notes, "an island is told only where it is what differs"
