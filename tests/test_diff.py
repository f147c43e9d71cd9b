"""Two runs compared: what counts as a change, and as a change for the worse."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_tools import CASE, ENVIRONMENT, FINE, OFF, check, run_of, written

from parity.compare.verdicts import Verdict
from parity.report.diff import SHOWN, diff, to_text
from parity.report.results import Report

Command = Callable[..., tuple[int, str, str]]
ID = f"{CASE}-padded-encoder-isolated-fp32-cpu"


def used(share: float) -> Any:
    return replace(FINE, minimum_budget=share * FINE.budget)


def test_the_same_run_has_no_change() -> None:
    found = diff(run_of(), run_of(when="2026-11-21T02:00:00+00:00"))
    assert (found.changes, found.worse) == ((), False)
    assert to_text(found) == "no change: within_budget as before\n"


def test_a_verdict_that_changed_is_told_with_its_command() -> None:
    broken = diff(run_of(check()), run_of(check("encoder", OFF)))
    (verdict, error) = broken.changes
    assert broken.worse
    assert str(verdict) == f"{ID}: within_budget -> diverged"
    assert str(error) == f"{ID} memory: 4.00e-6 (25 % of its budget) -> 0.5 (10 times all of its budget)"
    assert f'to reproduce the first: pytest parity -k "{ID}"' in to_text(broken)
    mended = diff(run_of(check("encoder", OFF)), run_of(check()))
    assert not mended.worse
    assert [change.kind for change in mended.changes] == ["verdict", "error"]


def test_from_equal_to_within_budget_is_a_change_and_no_worse() -> None:
    exact = replace(FINE, verdict=Verdict.EQUAL, minimum_budget=0.0)
    found = diff(run_of(check("encoder", exact)), run_of(check("encoder", used(0.1))))
    assert [change.kind for change in found.changes] == ["verdict"]
    assert not found.worse


@pytest.mark.parametrize(("before", "after", "grew"), [(0.2, 0.3, False), (0.2, 0.4, True), (0.9, 0.2, False)])
def test_an_error_grew_if_it_did_by_more_than_noise(before: float, after: float, grew: bool) -> None:
    found = diff(run_of(check("encoder", used(before))), run_of(check("encoder", used(after))))
    assert found.worse is grew
    assert len(found.changes) == (abs(after - before) > 0.125)


def test_what_is_not_compared_any_more_is_worse_and_what_is_new_and_passes_is_not() -> None:
    short, long = run_of(check()), run_of(check(), check("decoder"))
    gone, came = diff(long, short), diff(short, long)
    assert gone.worse
    assert str(gone.changes[0]) == f"{CASE}-padded-decoder-isolated-fp32-cpu: within_budget -> nothing"
    assert not came.worse
    assert [change.kind for change in came.changes] == ["check"]
    assert diff(short, run_of(check(), check("decoder", OFF))).worse
    assert diff(run_of(), Report(ENVIRONMENT)).worse


def test_tensors_that_came_and_went_are_told() -> None:
    other = replace(FINE, name="mask")
    gone = diff(run_of(check("encoder", FINE, other)), run_of(check()))
    assert gone.worse
    assert str(gone.changes[0]) == f"{ID} mask: within_budget -> nothing"
    assert not diff(run_of(check()), run_of(check("encoder", FINE, other))).worse


def test_what_failed_without_a_figure_is_compared_too() -> None:
    infinite = replace(OFF, verdict=Verdict.NONFINITE, minimum_budget=math.inf)
    assert diff(run_of(check("encoder", OFF)), run_of(check("encoder", infinite))).worse
    assert not diff(run_of(check("encoder", infinite)), run_of(check("encoder", infinite))).changes


def test_changes_of_the_surroundings_are_told_and_no_worse() -> None:
    records = {f"{CASE}/padded": {"legacy": {"engine": "ddq_mmdet3rc", "torch": "1.9.0"}}}
    before = run_of(records=records)
    after = run_of(commit="ba9876543210", new={**ENVIRONMENT["new"], "torch": "2.14.0"}, driver="580.1")
    found = diff(before, after)
    assert not found.worse
    assert [str(change) for change in found.changes] == [
        "commit: 0123456789ab -> ba9876543210",
        "torch: 2.13.0 -> 2.14.0",
        "ddq_mmdet3rc engine: ddq_mmdet3rc -> nothing",
        "ddq_mmdet3rc torch: 1.9.0 -> nothing",
        "driver: nothing -> 580.1",
    ]


def test_a_change_of_a_numerical_setting_is_told() -> None:
    settings = {"cudnn_tf32": False, "threads": 2, "matmul_precision": None}
    allowed = run_of(settings={**settings, "cudnn_tf32": True})
    assert [str(change) for change in diff(run_of(settings=settings), allowed).changes] == [
        "setting cudnn_tf32: False -> True"
    ]
    assert diff(run_of(settings=settings), run_of(settings=settings)).changes == ()


def test_a_run_that_does_not_tell_its_settings_did_not_change_them() -> None:
    assert diff(run_of(), run_of(settings={"threads": 2})).changes == ()


def test_the_text_ends_somewhere_and_the_worse_comes_first() -> None:
    many = [replace(OFF, name=f"memory[{at}]") for at in range(2 * SHOWN)]
    fine = [replace(FINE, name=tensor.name) for tensor in many]
    found = diff(run_of(check("encoder", *fine)), run_of(check("encoder", *many), commit="ba9876543210"))
    lines = to_text(found).splitlines()
    assert lines[1] == f"worse: {2 * SHOWN + 1}"
    assert lines[2 + SHOWN] == f"  … and {SHOWN + 1} more: --json tells all"
    assert lines[3 + SHOWN] == "changed: 1"


def test_the_command_tells_by_its_exit_status(tmp_path: Path, parity_command: Command) -> None:
    green = written(tmp_path / "green", run_of())
    red = written(tmp_path / "red", run_of(check("backbone"), check("encoder", OFF), check("decoder")))
    assert parity_command("diff", green, green)[0] == 0
    assert parity_command("diff", red, green / "results.json")[0] == 0
    status, out, _ = parity_command("diff", green, red)
    assert status == 1
    assert "worse: 2\n  verdict " in out
    status, out, _ = parity_command("diff", green, red, "--json")
    plain = json.loads(out)
    assert (status, plain["schema"], plain["worse"]) == (1, 1, True)
    assert plain["changes"][0]["where"] == ID
    assert plain["changes"][0]["rerun"] == f'pytest parity -k "{ID}"'


@pytest.mark.parametrize("text", ["", '{"schema": 9}', '{"schema": 2'])
def test_a_bad_file_is_told_in_one_line(text: str, tmp_path: Path, parity_command: Command) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text(text)
    status, out, err = parity_command("diff", written(tmp_path / "green", run_of()), bad)
    assert (status, out) == (2, "")
    assert err.startswith(f"parity: {bad} ")
    assert err.count("\n") == 1
