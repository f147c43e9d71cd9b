"""What could not be compared is neither the same nor different: it is said, by name, with an exit status of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from test_plugin import suite

from conftest import CASE
from parity.compare.verdicts import Verdict
from parity.records.listing import LISTING
from parity.records.store import Record
from parity.report.history import History, added
from parity.report.markdown import markdown
from parity.report.messages import failure_message
from parity.report.page import render
from parity.report.results import Report, StageResult, TensorResult, read_report

Command = Callable[..., tuple[int, str, str]]
FAST = ("--stage", "preprocess", "--mode", "isolated", "--dtype", "fp32")
WHY = "record r is listed and is not there"


def result(verdict: Verdict, stage: str = "neck", **others: str) -> StageResult:
    tensors = () if others else (TensorResult("p3", verdict, (1,)),)
    return StageResult("toy", "r", stage, "isolated", "fp64", "cpu", 1.0, tensors, **others)


SAME, OFF = result(Verdict.EQUAL), result(Verdict.DIVERGED, "encoder")
LEFT = result(Verdict.INCONCLUSIVE, "decoder", inconclusive=WHY)


@pytest.fixture
def one_of_two_records(copied_record: Path, tmp_path: Path) -> Path:
    """Return a fixtures folder of which one of two listed records is gone: it lies beside the folder."""
    fixtures = copied_record.parents[1]
    shutil.copytree(copied_record, copied_record.with_name("gone"))
    manifest = json.loads((copied_record / "manifest.json").read_text())
    (copied_record.with_name("gone") / "manifest.json").write_text(json.dumps({**manifest, "record": "gone"}))
    words = ["sha256sum", f"{CASE}/gone/manifest.json", f"{CASE}/padded/manifest.json"]
    done = subprocess.run(words, cwd=fixtures, capture_output=True, text=True, check=True)
    (fixtures / LISTING).write_text(done.stdout)
    copied_record.with_name("gone").rename(tmp_path / "gone")
    return fixtures


def test_inconclusive_never_passes_and_a_divergence_is_worse() -> None:
    assert not Verdict.INCONCLUSIVE.passes
    assert LEFT.verdict is Verdict.INCONCLUSIVE
    assert Report({}, (SAME, LEFT)).verdict is Verdict.INCONCLUSIVE
    assert Report({}, (SAME, LEFT, OFF)).verdict is Verdict.DIVERGED


def test_a_missing_record_is_named_and_ends_in_status_3(
    parity_command: Command, one_of_two_records: Path, tmp_path: Path
) -> None:
    words = ("check", CASE, "--fixtures", one_of_two_records, *FAST, "--json", tmp_path / "r.json")
    status, out, _ = parity_command(*words)
    assert status == 3
    assert f"record {one_of_two_records / CASE / 'gone'} is listed in records.sha256 and is not there" in out
    assert "nothing differs, but not everything was compared: 1 of 2 stage checks passed" in out
    report = read_report(tmp_path / "r.json")
    assert [(each.record, each.verdict) for each in report.results] == [
        ("gone", Verdict.INCONCLUSIVE),
        ("padded", Verdict.WITHIN_BUDGET),
    ]
    judged_by = {"sha256": Record(one_of_two_records / CASE / "padded").digest, "listed": True}
    assert report.environment["manifests"] == {f"{CASE}/padded": judged_by}


def test_all_records_are_there_and_the_status_is_0(
    parity_command: Command, one_of_two_records: Path, tmp_path: Path
) -> None:
    shutil.copytree(tmp_path / "gone", one_of_two_records / CASE / "gone")
    status, out, _ = parity_command("check", CASE, "--fixtures", one_of_two_records, *FAST)
    assert (status, "same: 2 of 2 stage checks passed" in out) == (0, True)


def test_pytest_fails_for_a_missing_record_and_says_which(one_of_two_records: Path) -> None:
    done = suite("--case", CASE, "--fixtures-dir", one_of_two_records, *FAST)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "gone is listed in records.sha256 and is not there" in done.stdout
    assert "1 failed, 1 passed" in done.stdout


def test_what_diverged_is_described_before_what_was_not_compared() -> None:
    text = failure_message([LEFT, SAME, OFF], rerun="again")
    assert text.startswith("stage 'encoder' is not the same: diverged")
    assert "1 of 3 stages were not compared: decoder" in text
    alone = failure_message([LEFT, SAME], rerun="again")
    assert (
        alone == f"stage 'decoder' was not compared (toy, record r, isolated, fp64, cpu)\n  {WHY}\nto reproduce: again"
    )


def test_the_page_says_that_not_everything_was_compared() -> None:
    page = render(Report({}, (SAME, LEFT)))
    assert "<title>Nothing differs, but not everything was compared" in page
    assert f"<dt>Why</dt><dd>{WHY}</dd>" in page
    assert "The engines are not the same" not in page
    assert "<title>The engines are not the same" in render(Report({}, (LEFT, OFF)))


def test_markdown_says_so_too() -> None:
    text = markdown(Report({}, (SAME, LEFT)))
    assert text.startswith("## ? Nothing differs, but not everything was compared: 1 of 2 stage checks passed")
    assert "First stage not compared: **decoder**" in text


def test_the_history_keeps_it_apart_from_a_divergence() -> None:
    history = added(History(), Report({"when": "2026-01-01"}, (SAME, LEFT)), name="night", source="1-1")
    assert (history.runs[0].verdict, history.runs[0].verdicts) == (Verdict.INCONCLUSIVE, "ei")
