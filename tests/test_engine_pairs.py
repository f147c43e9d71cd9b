"""A case with other engines than its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from parity.cases.pairs import split_id, with_engines
from parity.cases.registry import find_case
from parity.errors import ParityError

RETINA, DETR = "stock_retinanet_r50_1x", "stock_deformable_detr_r50_50e"


def test_an_id_tells_its_engines() -> None:
    assert split_id("a@b..c") == ("a", "b", "c")
    assert split_id("a") == ("a", "", "")


def test_one_engine_in_two_ways_has_one_set_of_calls_and_no_rules() -> None:
    case = find_case(f"{DETR}@mmdet3..mmdet3_compiled")
    assert (case.legacy, case.new, case.legacy_stages, case.rules) == ("mmdet3", "mmdet3_compiled", (), ())
    assert case.stages_of("mmdet3") == find_case(DETR).stages
    assert case.configs["mmdet3_compiled"] == case.configs["mmdet3"]
    assert find_case(DETR).rules, "the case itself is left alone"


def test_the_legacy_engine_against_itself_has_the_legacy_s_calls() -> None:
    case = with_engines(find_case(DETR), "mmdet2", "mmdet2")
    assert case.stages == find_case(DETR).legacy_stages


def test_the_legacy_engine_against_a_variant_keeps_rules_and_options() -> None:
    case = find_case(f"{RETINA}@mmdet2..mmdet3_compiled")
    assert case.legacy_stages == find_case(RETINA).legacy_stages
    assert case.options["mmdet3_compiled"] == find_case(RETINA).options["mmdet3"]
    assert case.deviations == find_case(RETINA).deviations


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("mmdet9", "mmdet3", "is declared for mmdet2 and mmdet3, not for mmdet9"),
        ("mmdet3", "mmdet2", "the truth comes first, as in --pair mmdet2 mmdet2"),
    ],
)
def test_a_pair_that_makes_no_sense_is_one_line(old: str, new: str, text: str) -> None:
    with pytest.raises(ParityError, match=text):
        with_engines(find_case(RETINA), old, new)


def test_the_commands_take_a_pair(parity_command: Callable[..., tuple[int, str, str]], tmp_path: object) -> None:
    status, _, err = parity_command("check", RETINA, "--pair", "mmdet3", "mmdet3_compiled", "--fixtures", tmp_path)
    assert status == 2
    assert f"holds no record of {RETINA}@mmdet3..mmdet3_compiled" in err
    status, _, err = parity_command("check", "--pair", "mmdet3", "mmdet3_compiled")
    assert (status, err) == (2, "parity: --pair: name the cases to check\n")


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs the C++ compiler that torch.compile calls: install g++")
@pytest.mark.xdist_group("live")
def test_compiling_changes_nothing_but_roundoff(
    parity_command: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    pair = (RETINA, "--pair", "mmdet3", "mmdet3_compiled")
    status, _, err = parity_command("freeze", *pair, "--sizes", "32x64", "--record", "small", "--out", tmp_path)
    assert status == 0, err
    compiled = torch._dynamo.utils.counters["frames"]["ok"]
    wanted = ("--stage", "backbone", "--mode", "isolated", "--dtype", "fp64")
    status, out, err = parity_command("check", *pair, "--fixtures", tmp_path, *wanted)
    assert status == 0, out + err
    assert "same: 1 of 1 stage checks passed" in out
    assert torch._dynamo.utils.counters["frames"]["ok"] > compiled, "what was judged was not compiled"
