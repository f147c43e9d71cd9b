"""The history of runs: what is kept, what changed since the last green run, and what the page says of it."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_tools import CASE, ENVIRONMENT, FINE, OFF, SCRIPT, check, run_of, written

from parity.errors import ParityError
from parity.report.history import History, checks_of_run, gather, last_green, read_history, write_history
from parity.report.history_page import changed, keeps_history, render_history, update_history
from parity.report.publish import publish
from parity.report.results import Report, read_report

Command = Callable[..., tuple[int, str, str]]
ID = f"{CASE}-padded-encoder-isolated-fp32-cpu"
RED = (check("backbone"), check("encoder", OFF), check("decoder"))


def night(folder: Path, day: int, *results: Any, **environment: Any) -> Path:
    when = f"2026-11-{day:02}T02:00:00+00:00"
    return written(folder / f"2026-11-{day:02}", run_of(*results, when=when, **environment))


def known(folder: Path) -> History:
    history, _ = gather(folder)
    return history


def test_runs_come_by_the_time_they_began(tmp_path: Path) -> None:
    for day in (12, 3, 7):
        night(tmp_path, day)
    assert [run.name for run in known(tmp_path).runs] == ["2026-11-03", "2026-11-07", "2026-11-12"]


def test_what_a_run_found_is_kept_in_small(tmp_path: Path) -> None:
    night(tmp_path, 3, *RED)
    history = known(tmp_path)
    (run,) = history.runs
    assert (run.verdict.value, run.passed, run.ran, run.seconds) == ("diverged", 2, 3, 4.5)
    assert (run.first, run.rerun) == (ID, f'pytest parity -k "{ID}"')
    assert (run.device, run.commit, run.surroundings["torch"]) == ("cpu", "0123456789ab", "2.13.0")
    assert {name: (found.verdict.value, found.used) for name, found in checks_of_run(history, run).items()} == {
        ID.replace("encoder", "backbone"): ("within_budget", 0.25),
        ID: ("diverged", 10.0),
        ID.replace("encoder", "decoder"): ("within_budget", 0.25),
    }


def test_it_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    night(tmp_path, 3, *RED)
    night(tmp_path, 4, check("neck"), check("encoder", error="crashed", tensors=()))
    history = known(tmp_path)
    write_history(tmp_path, history)
    assert read_history(tmp_path) == history
    assert read_history(tmp_path / "elsewhere") == History()


def test_a_run_whose_folder_is_gone_stays_and_one_written_anew_is_added(tmp_path: Path) -> None:
    night(tmp_path, 3)
    written(tmp_path / "latest", run_of(when="2026-11-04T02:00:00+00:00"))
    update_history(tmp_path)
    shutil.rmtree(tmp_path / "2026-11-03")
    written(tmp_path / "latest", run_of(*RED, when="2026-11-05T02:00:00+00:00"))
    page = update_history(tmp_path)
    runs = read_history(tmp_path).runs
    assert [(run.name, run.verdict.passes) for run in runs] == [
        ("2026-11-03", True),
        ("latest", True),
        ("latest", False),
    ]
    assert "The engines are not the same" in page.read_text("utf-8")


def test_a_run_that_was_merely_copied_is_one_run(tmp_path: Path) -> None:
    path = night(tmp_path, 3) / "results.json"
    update_history(tmp_path)
    os.utime(path, (1, 1))
    update_history(tmp_path)
    assert len(read_history(tmp_path).runs) == 1


def test_a_run_of_schema_1_is_told_by_when_it_was_written(tmp_path: Path) -> None:
    example = Path(__file__).parent / "data" / "results" / "schema-1.json"
    (tmp_path / "old").mkdir()
    path = Path(shutil.copy(example, tmp_path / "old" / "results.json"))
    os.utime(path, (86400, 86400))
    (run,) = known(tmp_path).runs
    assert run.when == "1970-01-02T00:00:00+00:00"
    assert run.ran == 15


def test_a_damaged_run_is_left_out_and_told(tmp_path: Path) -> None:
    night(tmp_path, 3)
    (night(tmp_path, 4) / "results.json").write_text(f'{{"schema": "{SCRIPT}"')
    page = update_history(tmp_path).read_text("utf-8")
    assert "2026-11-04/results.json is no results file" in page
    assert [run.name for run in read_history(tmp_path).runs] == ["2026-11-03"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"runs":', '"run":', None),
        ('"schema":1', '"schema":9', "has schema 9, this version reads 1: update parity"),
        ('"verdicts":"www"', '"verdicts":"w?w"', "is damaged: delete it, and it is made anew"),
        ('"verdicts":"www"', '"verdicts":"ww"', "is damaged: delete it"),
        ('"seconds":4.5', '"seconds":"long"', r"is no history \(Expected `float`"),
        ("]}", "", r"is no history \(Input data was truncated\): delete it"),
    ],
)
def test_a_damaged_history_is_refused(tmp_path: Path, old: str, new: str, message: str | None) -> None:
    night(tmp_path, 3)
    path = write_history(tmp_path, known(tmp_path))
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    if message is None:  # what is not known is let pass, and the runs are read again
        assert read_history(tmp_path).runs == []
        return
    with pytest.raises(ParityError, match=rf"history\.json {message}"):
        update_history(tmp_path)


def test_the_last_green_run_is_one_that_can_be_compared(tmp_path: Path) -> None:
    night(tmp_path, 3)
    night(tmp_path, 4, check("backbone"))  # green, and it did not run the encoder
    night(tmp_path, 5, device="cuda")
    night(tmp_path, 6, check("backbone", OFF), check("encoder", OFF))
    night(tmp_path, 7, *RED)
    history = known(tmp_path)
    green = last_green(history, history.runs[-1])
    assert green is not None
    assert green.name == "2026-11-03"
    assert last_green(history, history.runs[0]) is None
    assert last_green(history, history.runs[2]) is None


def test_what_changed_is_verdicts_errors_beyond_noise_and_surroundings(tmp_path: Path) -> None:
    night(tmp_path, 3)
    grown = replace(FINE, minimum_budget=0.9 * FINE.budget)
    new = {**ENVIRONMENT["new"], "mmcv": "2.1.1"}
    night(tmp_path, 4, check("backbone", grown), check("encoder", OFF), check("neck"), new=new)
    history = known(tmp_path)
    changes = changed(history, *history.runs)
    assert [(change.kind, change.worse) for change in changes] == [
        ("error", True),
        ("verdict", True),
        ("check", True),
        ("environment", False),
    ]
    assert str(changes[0]).endswith("backbone-isolated-fp32-cpu: 25 % of its budget -> 90 % of its budget")
    assert str(changes[1]) == f"{ID}: within_budget -> diverged"
    assert str(changes[3]) == "mmcv: 2.1.0 -> 2.1.1"
    assert changed(history, history.runs[0], history.runs[0]) == []


def test_a_changed_numerical_setting_is_marked(tmp_path: Path) -> None:
    night(tmp_path, 3, settings={"cudnn_tf32": False, "onednn": True})
    night(tmp_path, 4, settings={"cudnn_tf32": True, "onednn": True})
    history = known(tmp_path)
    assert [str(change) for change in changed(history, *history.runs)] == ["setting cudnn_tf32: False -> True"]


def test_the_page_of_a_red_night_says_since_when_and_what_to_run(tmp_path: Path) -> None:
    night(tmp_path, 3)
    night(tmp_path, 4, *RED, commit="ba9876543210")
    night(tmp_path, 5, *RED, commit="ba9876543211")
    page = re.sub(r"\s+", " ", update_history(tmp_path).read_text("utf-8"))
    assert "On <b>cpu</b>: not the same since 2026-11-04 02:00 (2 runs in a row). 2 of 3 stage checks" in page
    assert "git log --oneline 0123456789ab..ba9876543211" in page
    assert f"parity bisect 0123456789ab ba9876543211 -- pytest parity -k &#34;{ID}&#34;" in page


def test_the_page_of_a_green_night_says_that_nothing_changed(tmp_path: Path) -> None:
    night(tmp_path, 3)
    night(tmp_path, 4)
    page = re.sub(r"\s+", " ", update_history(tmp_path).read_text("utf-8"))
    assert "On <b>cpu</b>: the same since 2026-11-03 02:00 (2 runs in a row)" in page
    assert "Nothing: neither a verdict, nor an error beyond noise, nor the surroundings." in page
    assert "git log" not in page


def test_a_green_run_of_another_series_does_not_hide_a_red_one(tmp_path: Path) -> None:
    night(tmp_path, 3)
    night(tmp_path, 4, check("neck", OFF))
    written(tmp_path / "live", run_of(when="2026-11-04T05:00:00+00:00", series="live"))
    page = update_history(tmp_path).read_text("utf-8")
    assert "The engines are not the same" in page
    assert "On cpu: not the same" in re.sub(r"<[^>]*>", "", page)
    assert "On cpu, live: the same" in re.sub(r"<[^>]*>", "", page)


def test_a_green_run_of_a_part_does_not_hide_a_red_one(tmp_path: Path) -> None:
    night(tmp_path, 3)
    night(tmp_path, 4, check("backbone"), check("encoder", OFF), check("decoder"))
    night(tmp_path, 5, check("backbone"))
    page = re.sub(r"<[^>]*>", "", update_history(tmp_path).read_text("utf-8"))
    assert "The engines are not the same" in page
    assert re.search(r"not the same since\s+2026-11-04", page)
    night(tmp_path, 6, check("encoder"))
    assert "The engines are the same" in re.sub(r"<[^>]*>", "", update_history(tmp_path).read_text("utf-8"))


def test_a_check_that_is_no_more_is_forgotten_with_the_next_whole_run(tmp_path: Path) -> None:
    night(tmp_path, 3, check("neck", OFF))
    night(tmp_path, 4)
    assert "The engines are the same" in re.sub(r"<[^>]*>", "", update_history(tmp_path).read_text("utf-8"))


def test_only_pages_that_are_there_are_linked(tmp_path: Path) -> None:
    (night(tmp_path, 3) / "index.html").write_text("")
    night(tmp_path, 4)
    page = update_history(tmp_path).read_text("utf-8")
    assert re.findall(r'href="([^"]*)"', page) == ["2026-11-03/index.html"]


def test_names_are_escaped_wherever_they_stand(tmp_path: Path) -> None:
    odd = check(SCRIPT, OFF, case=SCRIPT, record=SCRIPT, device=f"{SCRIPT}'\"")
    one = written(tmp_path / "a'\"><b>", run_of(odd, device=SCRIPT, commit=SCRIPT, new={SCRIPT: SCRIPT}))
    (one / "index.html").write_text("")
    written(tmp_path / "then", run_of(check("neck"), device=SCRIPT, when="2026-01-01"))
    page = update_history(tmp_path).read_text("utf-8")
    assert "alert(1)" in page
    assert SCRIPT not in page
    assert "<b>" not in page.replace("<b>parity</b>", "").replace("<b>First to diverge:</b>", "").replace(
        "<b>&lt;script&gt;", ""
    )


def ap_of(folder: Path, *problems: str) -> None:
    engine = {"figures": {"AP": 41.52, "APs": -1.0}, "classes": {}}
    case = {"case": CASE, "problems": problems, "legacy": engine, "new": engine, "detections": {"share": 0.999}}
    (folder / "ap.json").write_text(json.dumps([case]))


def test_ap_beside_the_results_is_kept_and_beyond_its_limits_the_run_is_red(tmp_path: Path) -> None:
    ap_of(night(tmp_path, 3))
    four = night(tmp_path, 4)
    first = known(tmp_path)
    write_history(tmp_path, first)
    ap_of(four, f"AP differs by {SCRIPT}")
    history = known(tmp_path)
    assert [run.passes for run in first.runs] == [True, True]
    assert [run.passes for run in history.runs] == [True, False]
    kept = {f"{CASE} AP legacy": 41.52, f"{CASE} AP new": 41.52, f"{CASE} matched": 99.9}
    assert [run.ap for run in history.runs] == [kept, kept]
    page = update_history(tmp_path).read_text("utf-8")
    assert "The engines are not the same" in page
    assert f"AP of {CASE}: AP differs by &lt;script&gt;" in page
    (four / "ap.json").write_text("[{")
    assert "2026-11-04/ap.json is damaged" in update_history(tmp_path).read_text("utf-8")


def test_an_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    assert "This folder holds no run" in render_history(known(tmp_path))


def test_a_run_in_reports_brings_the_history_up_to_date(tmp_path: Path) -> None:
    lines = list(publish(run_of(), tmp_path / "reports" / "today"))
    assert lines == [
        f"report: {tmp_path / 'reports' / 'today' / 'index.html'}",
        f"history: {tmp_path / 'reports' / 'index.html'}",
    ]
    assert 'href="../index.html">Since when?' in (tmp_path / "reports" / "today" / "index.html").read_text("utf-8")
    assert re.search(r'href="today/index.html"', (tmp_path / "reports" / "index.html").read_text("utf-8"))
    assert read_report(tmp_path / "reports" / "today") == run_of()


def test_a_damaged_history_does_not_cost_the_run_its_page(tmp_path: Path) -> None:
    (tmp_path / "history.json").write_text("{")
    lines = list(publish(run_of(), tmp_path / "today"))
    assert lines[0] == f"report: {tmp_path / 'today' / 'index.html'}"
    assert lines[1].startswith(f"history: left as it was; {tmp_path / 'history.json'} is no history (")
    assert (tmp_path / "history.json").read_text() == "{"


def test_a_run_elsewhere_writes_nothing_beside_itself(tmp_path: Path) -> None:
    assert len(list(publish(Report({}), tmp_path / "today"))) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["today"]
    assert not keeps_history(tmp_path / "today")
    (tmp_path / "history.json").write_text("{}")
    assert keeps_history(tmp_path / "today")


def test_the_command_makes_it_and_refuses_what_is_no_folder(tmp_path: Path, parity_command: Command) -> None:
    night(tmp_path, 3)
    assert parity_command("report", "--history", tmp_path) == (0, f"history: {tmp_path / 'index.html'}\n", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "2026-11-03",
        "history.json",
        "index.html",
        "plotly.min.js",
    ]
    assert json.loads((tmp_path / "history.json").read_text())["runs"][0]["name"] == "2026-11-03"
    status, _, err = parity_command("report", "--history", tmp_path / "none")
    assert status == 2
    assert "none: no such folder; `parity check --report-dir" in err
