"""Fuzzing for real: mmdet 2.22 in its own interpreter against mmdet 3.3, on situations drawn on the spot."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from parity.cases.registry import find_case
from parity.fuzz.command import fuzz_live, open_live
from parity.fuzz.live import Kind, Live
from parity.fuzz.search import search
from parity.fuzz.situations import batches, to_json
from parity.mutants.plant import set_attribute

pytestmark = [pytest.mark.legacy, pytest.mark.xdist_group("live")]

RETINA = "stock_retinanet_r50_1x"
EXAMPLES = 16  # a minute or so on two cores
SHRINKS = 8


def options(mmdet2: str, **given: object) -> argparse.Namespace:
    usual: dict[str, Any] = {"examples": EXAMPLES, "seed": 0, "kind": None, "dtype": "fp64", "situation": None}
    engine = {"legacy_root": "", "legacy_python": mmdet2, "time_limit": None, "save_failing": None}
    return argparse.Namespace(**{**usual, **engine, **given})


@pytest.fixture(scope="module")
def live(mmdet2: str) -> Iterator[Live]:
    with open_live(find_case(RETINA), options(mmdet2)) as both:
        yield both


def test_no_drawn_situation_tells_the_engines_apart(live: Live, mmdet2: str) -> None:
    found = fuzz_live(live, options(mmdet2))
    assert found.passed, "\n".join(found.lines)
    assert f"{EXAMPLES} situations, {EXAMPLES} the same" in found.lines[0]
    assert "tied weights" in found.lines[1]
    assert "padding" in found.lines[1]


def test_a_planted_bug_is_found_made_small_and_kept(
    live: Live, mmdet2: str, tmp_path: Path, parity_command: Callable[..., tuple[int, str, str]]
) -> None:
    """Padding with 1 for 0 shows only where an image is padded."""
    bug = set_attribute("data_preprocessor", "pad_value", 1)
    with bug():
        found = search(live.judge, batches(live.case), examples=EXAMPLES, shrinks=SHRINKS)
        assert found.failing is not None
        situation = tmp_path / "found.json"
        situation.write_text(to_json(found.failing))
        again = fuzz_live(live, options(mmdet2, situation=situation, save_failing=tmp_path / "kept"))
        assert not again.passed
        text = "\n".join(again.lines)
        assert "stage 'preprocess' is not the same: diverged" in text
        command = re.search(r"to reproduce: parity (check .*)", text)
        assert command is not None
        status, out, _ = parity_command(*command[1].split())
        assert status == 1
        assert "stage 'preprocess' is not the same: diverged" in out
    first = list(found.outcomes)[found.drawn - 1]
    assert found.outcomes[first].kind is found.outcomes[found.failing].kind is Kind.DIVERGED
    assert found.drawn < len(found.outcomes) <= found.drawn + SHRINKS
    assert len(to_json(found.failing)) < len(to_json(first))
    (smallest,) = found.failing.pictures
    assert (smallest.boxes, smallest.size != (32, 32)) == ((), True)  # 32x32 is not padded
    status, out, err = parity_command(*command[1].split()[:4])
    assert status == 0, out + err  # the record is true: without the bug all of it passes, in float32 too
    assert "same: 20 of 20 stage checks passed" in out
