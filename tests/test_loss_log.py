"""The loss curve of a training: written step by step, gone on with after an interruption, read and drawn."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from parity.cases import registry
from parity.cases.registry import all_cases
from parity.errors import ParityError
from parity.report import curves
from parity.report.curves import BINS, panels, read_curve
from parity.report.page import render, write_curves
from parity.report.results import Report
from parity.training.loss_log import LossLog

CASE = "ddq_fcn_r50_12e"


def write(path: Path, steps: int, *, engine: str = "mmdet3", loss: Callable[[int], float] = lambda n: 2.0 / n) -> Path:
    log = LossLog(str(path), {"case": CASE, "engine": engine, "gpus": 2})
    log.begin(0)
    for step in range(1, steps + 1):
        losses = {"loss": loss(step), "loss_cls": loss(step) / 2}
        log.add(step, 1 + step // 10, rates=[1e-5, 1e-4, 1e-4], losses=losses, grad_norm=None)
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_step_is_a_line_under_a_header(tmp_path: Path) -> None:
    header, first, second = lines(write(tmp_path / "losses.jsonl", 2))
    assert header == {"schema": 1, "case": CASE, "engine": "mmdet3", "gpus": 2}
    assert first["lr"] == [1e-4, 1e-5]
    assert first["losses"] == {"loss": 2.0, "loss_cls": 1.0}
    assert (first["step"], second["step"], second["grad_norm"]) == (1, 2, None)
    assert first["time"] >= 0.0


def test_a_resumed_training_drops_what_it_makes_again(tmp_path: Path) -> None:
    path = write(tmp_path / "losses.jsonl", 5)
    with path.open("a") as file:
        file.write('{"step": 6, "lo')  # the power went
    log = LossLog(str(path), {"case": CASE, "engine": "mmdet3", "gpus": 2})
    log.begin(3)
    log.add(4, 2, rates=[1e-4], losses={"loss": 9.0}, grad_norm=1.5)
    assert [line["step"] for line in lines(path)[1:]] == [1, 2, 3, 4]
    assert lines(path)[-1]["losses"] == {"loss": 9.0}


def test_a_curve_is_read_with_its_terms_and_rates(tmp_path: Path) -> None:
    curve = read_curve(write(tmp_path / "losses.jsonl", 4))
    assert curve.label == f"{CASE}, mmdet3 on 2 GPUs"
    assert list(curve.series) == ["loss", "loss_cls", "learning rate"]
    assert curve.series["loss"] == [(1, 2.0), (2, 1.0), (3, 2 / 3), (4, 0.5)]
    assert replace(curve, gpus=0).label.endswith("on the CPU")


def test_the_last_line_of_an_interrupted_training_may_be_half(tmp_path: Path) -> None:
    path = write(tmp_path / "losses.jsonl", 3)
    path.write_text(path.read_text()[:-20])
    assert len(read_curve(path).series["loss"]) == 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "list index out of range"),
        ('{"schema": 7}\n', "schema 7, this version reads 1"),
        ('{"schema": 1, "case": "x", "engine": "y", "gpus": 0}\n{"step"\n{}\n', "Expecting ':' delimiter"),
        ("[1]\n", "list indices must be integers"),
    ],
)
def test_what_is_no_curve_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text(text)
    with pytest.raises(ParityError, match=rf"other\.jsonl is no loss curve \(.*{re.escape(reason)}.*parity train"):
        read_curve(path)


def test_a_curve_without_a_step_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"losses\.jsonl has no step yet: nothing to draw"):
        read_curve(write(tmp_path / "losses.jsonl", 0))


def test_two_curves_share_a_chart_and_its_scale(tmp_path: Path) -> None:
    first = read_curve(write(tmp_path / "a.jsonl", 1000))
    second = read_curve(write(tmp_path / "b.jsonl", 500, loss=lambda n: 4.0 / n))
    loss, term, rate = panels([first, second])
    assert (loss.name, term.name, rate.name) == ("loss", "loss_cls", "learning rate")
    assert loss.last_step == 1000
    assert loss.logarithmic
    assert not rate.logarithmic
    assert [number for number, _ in loss.lines] == [0, 1]
    assert all(len(points.split()) <= BINS for _, points in loss.lines)
    assert [row[:2] for row in loss.rows] == [(0, 2.0), (1, 4.0)]
    late = sum(2.0 / n for n in range(451, 501)) / 50
    assert [row[2] for row in loss.rows] == pytest.approx([late, 2 * late])


def test_a_value_that_is_not_finite_is_drawn_at_the_top(tmp_path: Path) -> None:
    curve = read_curve(write(tmp_path / "a.jsonl", 3, loss=lambda n: float("nan") if n == 3 else float(n)))
    points = panels([curve])[0].lines[0][1].split()
    assert points == ["0.0,130.0", "200.0,0.0", "400.0,0.0"]


def test_a_term_with_two_names_is_one_chart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new engine's name is told by the legacy's; the longest prefix counts."""
    case = replace(all_cases()[CASE], loss_names={"loss_c": "cost_c", "loss_cls": "class_cost"})
    monkeypatch.setattr(curves, "all_cases", lambda: {**registry.all_cases(), CASE: case})
    new, old = read_curve(write(tmp_path / "a.jsonl", 2)), read_curve(write(tmp_path / "b.jsonl", 2, engine="old"))
    assert "class_cost" in new.series
    assert "loss_cls" in old.series


def test_the_page_shows_both_and_loads_nothing(tmp_path: Path) -> None:
    both = [read_curve(write(tmp_path / f"{name}.jsonl", 20, engine=name)) for name in ("ddq_mmdet2", "<b>new")]
    page = write_curves(both, tmp_path / "out").read_text()
    assert page.count("<polyline") == 6
    assert f"{CASE}, ddq_mmdet2 on 2 GPUs" in page
    assert "&lt;b&gt;new" in page
    assert "http" not in page.replace("http-equiv", "")
    whole = render(Report({}, ()), curves=both)
    assert "Loss curves" in whole
    assert "Loss curves" not in render(Report({}, ()))


def test_the_command_overlays_curves(tmp_path: Path, parity_command: Callable[..., tuple[int, str, str]]) -> None:
    path = write(tmp_path / "losses.jsonl", 3)
    status, out, _ = parity_command("report", "--curves", path, path, "--out", tmp_path / "out")
    assert status == 0
    assert out == f"report: {tmp_path / 'out' / 'curves.html'}\n"
    status, _, err = parity_command("report", "--curves", tmp_path / "none.jsonl")
    assert status == 2
    assert "none.jsonl is no loss curve" in err
