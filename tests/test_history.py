"""The history of runs: what is kept, what changed since the last green run, and what the page says of it."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_tools import CASE, ENVIRONMENT, FINE, OFF, SCRIPT, check, run_of, written

from parity.errors import ParityError
from parity.report.gather import gather
from parity.report.history import History, checks_of_run, last_green
from parity.report.history_log import append, open_log, read_history
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
    return gather(folder, read_history(folder))[0].history


def write_history(folder: Path, history: History) -> Path:
    """Write the runs of a history as lines; return the log's path."""
    with open_log(folder) as file:
        append(file, history, history.runs)
    return folder / "history.jsonl"


def left_out(folder: Path) -> list[str]:
    """Bring a history up to date; return what its page names as left out."""
    section = (
        update_history(folder).read_text("utf-8").partition('<section id="unreadable">')[2].partition("</section>")[0]
    )
    return [html.unescape(re.sub(r"<[^>]*>", "", line)) for line in re.findall(r"<li>(.*?)</li>", section, re.S)]


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
    assert read_history(tmp_path).history == history
    assert read_history(tmp_path / "elsewhere").history == History()


def test_a_run_whose_folder_is_gone_stays_and_one_written_anew_is_added(tmp_path: Path) -> None:
    night(tmp_path, 3)
    written(tmp_path / "latest", run_of(when="2026-11-04T02:00:00+00:00"))
    update_history(tmp_path)
    shutil.rmtree(tmp_path / "2026-11-03")
    written(tmp_path / "latest", run_of(*RED, when="2026-11-05T02:00:00+00:00"))
    page = update_history(tmp_path)
    runs = read_history(tmp_path).history.runs
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
    assert len(read_history(tmp_path).history.runs) == 1


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
    assert [run.name for run in read_history(tmp_path).history.runs] == ["2026-11-03"]


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('"runs":', '"run":', "Object missing required field `name`"),
        ('"name":', '"nam":', "Object missing required field `name`"),
        ('"schema":2', '"schema":9', "it has schema 9, this version reads 2: update parity"),
        ('"verdicts":"www"', '"verdicts":"w?w"', f"the checks of {CASE}/padded are damaged"),
        ('"verdicts":"www"', '"verdicts":"ww"', f"the checks of {CASE}/padded are damaged"),
        ('"seconds":4.5', '"seconds":null', "Expected `float`, got `null`"),
        ('"seconds":4.5', '"seconds":1e999', "out of range"),
        ('"seconds":4.5', '"seconds":NaN', "JSON is malformed"),
        ('"problems":[]', '"unknown":' + 9999 * "[", "recursion|Recursion|depth"),
        ('"schema":2}', "", "truncated"),
    ],
)
def test_a_damaged_line_costs_that_run_alone_and_is_named(tmp_path: Path, old: str, new: str, why: str) -> None:
    for day in (3, 4, 5):
        night(tmp_path, day)
    update_history(tmp_path)
    for day in (3, 4, 5):
        shutil.rmtree(tmp_path / f"2026-11-{day:02}")
    path = tmp_path / "history.jsonl"
    lines = path.read_bytes().split(b"\n")
    lines[1] = lines[1].replace(old.encode(), new.encode()) if old.encode() in lines[1] else b"{}"
    path.write_bytes(b"\n".join(lines))
    before = path.read_bytes()
    (line,) = left_out(tmp_path)
    assert re.match(rf"history\.jsonl, line 2: left out: .*({why})", line)
    assert [run.name for run in read_history(tmp_path).history.runs] == ["2026-11-03", "2026-11-05"]
    night(tmp_path, 6)
    update_history(tmp_path)
    assert path.read_bytes().startswith(before)
    assert [run.name[-1] for run in read_history(tmp_path).history.runs] == ["3", "5", "6"]


@pytest.mark.parametrize("cut", [1, 2, 200])
def test_a_torn_last_line_does_not_take_the_next_run_with_it(tmp_path: Path, cut: int) -> None:
    night(tmp_path, 3)
    night(tmp_path, 4)
    update_history(tmp_path)
    path = tmp_path / "history.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    shutil.rmtree(tmp_path / "2026-11-04")
    night(tmp_path, 5)
    update_history(tmp_path)
    assert [run.name[-1] for run in read_history(tmp_path).history.runs] == ["3", *(["4"] if cut == 1 else []), "5"]


@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "-Infinity", "1e999", "1" + 400 * "0", "1" + 5000 * "0", "null", '"nan"', "[]", "true"]
)
@pytest.mark.parametrize("where", ['"seconds": 1.5', '"seconds": 0.0', '"count": 49152', '"max_abs": 4e-06'])
def test_no_figure_of_one_run_costs_the_history_another(tmp_path: Path, where: str, value: str) -> None:
    night(tmp_path, 3)
    path = night(tmp_path, 4) / "results.json"
    assert where in path.read_text()
    path.write_text(path.read_text().replace(where, f"{where.partition(' ')[0]} {value}"))
    update_history(tmp_path)
    night(tmp_path, 5)
    named = left_out(tmp_path)
    names = [run.name[-1] for run in read_history(tmp_path).history.runs]
    assert names in (["3", "4", "5"], ["3", "5"])
    assert len(named) == 3 - len(names)
    assert all(line.startswith("2026-11-04: ") for line in named)
    if where == '"seconds": 1.5':
        assert names == ["3", "5"]


def test_a_fault_of_ours_costs_that_run_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    night(tmp_path, 3)
    night(tmp_path, 4)

    def read(path: Path) -> Report:
        if path.parent.name == "2026-11-03":
            raise ZeroDivisionError("a fault")
        return read_report(path)

    monkeypatch.setattr("parity.report.gather.read_report", read)
    assert left_out(tmp_path) == [
        f"2026-11-03: {tmp_path}/2026-11-03/results.json cannot be read: ZeroDivisionError: a fault"
    ]
    assert [run.name for run in read_history(tmp_path).history.runs] == ["2026-11-04"]


def old_history(folder: Path) -> Path:
    """Write ``history.json`` as an earlier version did, and nothing else; return its path."""
    (folder / "history.json").write_bytes((Path(__file__).parent / "data" / "history-1.json").read_bytes())
    return folder / "history.json"


def test_a_history_of_an_earlier_version_is_read_once_and_kept(tmp_path: Path) -> None:
    old = old_history(tmp_path)
    before = old.read_bytes()
    night(tmp_path, 5)
    for _ in range(2):
        update_history(tmp_path)
        assert [run.name for run in read_history(tmp_path).history.runs] == ["2026-11-03", "2026-11-04", "2026-11-05"]
        assert len((tmp_path / "history.jsonl").read_bytes().splitlines()) == 3
    assert old.read_bytes() == before
    old.unlink()
    history = read_history(tmp_path).history
    assert [run.verdict.passes for run in history.runs] == [True, False, True]
    found = checks_of_run(history, history.runs[1])
    assert {name: (each.verdict.value, each.used) for name, each in found.items()}[ID] == ("diverged", 10.0)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("]}]}", "", "left out: Input data was truncated"),
        ('"schema":1', '"schema":3', "left out: it has schema 3, this version reads 1: update parity"),
        ('"verdicts":"wdw"', '"verdicts":"wd"', "1 of its runs are damaged"),
        ('"seconds":4.5', '"seconds":null', "left out: Expected `float`, got `null`"),
    ],
)
def test_a_damaged_history_of_an_earlier_version_is_named_and_kept(
    tmp_path: Path, old: str, new: str, why: str
) -> None:
    path = old_history(tmp_path)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    before = path.read_bytes()
    night(tmp_path, 5)
    (line,) = left_out(tmp_path)
    assert line.startswith(f"history.json: {why}")
    assert read_history(tmp_path).history.runs[-1].name == "2026-11-05"
    assert path.read_bytes() == before


def test_a_full_disk_leaves_the_log_as_it_was(tmp_path: Path) -> None:
    night(tmp_path, 3)
    update_history(tmp_path)
    before = (tmp_path / "history.jsonl").read_bytes()
    night(tmp_path, 4)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 99, limits[1]))
        with pytest.raises(ParityError, match=r"history\.jsonl cannot be written: no space is left"):
            update_history(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert (tmp_path / "history.jsonl").read_bytes() == before
    update_history(tmp_path)
    assert len(read_history(tmp_path).history.runs) == 2


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


def test_the_policy_of_the_page_allows_its_own_script_alone(tmp_path: Path) -> None:
    night(tmp_path, 3)
    page = update_history(tmp_path).read_text("utf-8")
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)
    (own,) = re.findall(r"<script>(.*?)</script>", page, re.S)
    digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
    assert policy.split("; ") == [
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        "img-src data:",
        f"script-src 'self' file: 'sha256-{digest}'",
    ]
    assert not re.search(r"\son[a-z]+=", page.replace(own, ""))  # it allows no handler in an attribute either


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


def test_a_history_that_cannot_be_written_does_not_cost_the_run_its_page(tmp_path: Path) -> None:
    (tmp_path / "history.json").write_text("{}")
    (tmp_path / "history.jsonl").mkdir()
    lines = list(publish(run_of(), tmp_path / "today"))
    assert lines[0] == f"report: {tmp_path / 'today' / 'index.html'}"
    assert lines[1] == f"history: left as it was; {tmp_path / 'history.jsonl'} cannot be written: Is a directory"


def test_a_run_that_is_replaced_before_anybody_looked_is_in_the_history(tmp_path: Path) -> None:
    written(tmp_path / "reports" / "latest", run_of(*RED, when="2026-11-04T02:00:00+00:00"))
    list(publish(run_of(when="2026-11-05T02:00:00+00:00"), tmp_path / "reports" / "latest"))
    runs = read_history(tmp_path / "reports").history.runs
    assert [(run.name, run.verdict.passes) for run in runs] == [("latest", False), ("latest", True)]


def test_a_run_written_meanwhile_is_kept_and_the_other_gets_a_folder_beside_it(tmp_path: Path) -> None:
    folder, began = tmp_path / "reports" / "latest", time.time() - 60.0
    reports = [run_of(check(stage)) for stage in ("backbone", "encoder", "decoder")]
    lines = [list(publish(report, folder, began=began)) for report in reports]
    assert lines[0] == [f"report: {folder / 'index.html'}", f"history: {tmp_path / 'reports' / 'index.html'}"]
    third = folder.with_name("latest-3")
    assert lines[2] == [
        f"report: another run was written to {folder} meanwhile and is kept; this one is in {third}",
        f"report: {third / 'index.html'}",
        f"history: {tmp_path / 'reports' / 'index.html'}",
    ]
    for report, name in zip(reports, ("latest", "latest-2", "latest-3"), strict=True):
        assert read_report(folder.with_name(name)) == report
    assert {run.name for run in read_history(tmp_path / "reports").history.runs} == {"latest", "latest-2", "latest-3"}
    list(publish(reports[1], folder, began=time.time() + 60.0))  # a run that began after all of them
    assert read_report(folder) == reports[1]


WRITER = """
import sys
from pathlib import Path
from report_tools import check, run_of
from parity.report.publish import publish

folder, name = Path(sys.argv[1]), sys.argv[2]
sys.stdin.readline()  # both begin at once
for number in range(4):
    run = run_of(check(name), when=f"2026-11-2{number}T02:00:00+00:00", commit=name, parity=f"{name}-{number}")
    assert list(publish(run, folder))[1].startswith("history: /")
"""


def test_two_writers_of_one_folder_at_once_are_both_in_the_history_and_never_mixed(tmp_path: Path) -> None:
    folder = tmp_path / "reports" / "latest"
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder), name],
            stdin=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths},
        )
        for name in ("backbone", "encoder")
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"\n")
        writer.stdin.close()
    while any(writer.poll() is None for writer in writers):
        assert_one_run(folder)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert_one_run(folder)
    runs = read_history(folder.parent).history.runs
    lines = (folder.parent / "history.jsonl").read_text().splitlines()
    assert {json.loads(line)["surroundings"]["parity"] for line in lines} == {
        f"{name}-{number}" for name in ("backbone", "encoder") for number in range(4)
    }
    assert len(runs) == 4  # a folder's name and the time are a run's name: four times are there
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def assert_one_run(folder: Path) -> None:
    """Whatever lies in a folder of a run at any moment is of one run."""
    try:
        page = (folder / "index.html").read_text("utf-8")
        results = json.loads((folder / "results.json").read_text("utf-8"))["environment"]["parity"]
        again = (folder / "index.html").read_text("utf-8")
    except FileNotFoundError:
        return
    if page == again:
        assert results in page


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
        "history.jsonl",
        "index.html",
        "plotly.min.js",
    ]
    assert json.loads((tmp_path / "history.jsonl").read_text())["name"] == "2026-11-03"
    status, _, err = parity_command("report", "--history", tmp_path / "none")
    assert status == 2
    assert "none: no such folder; `parity check --report-dir" in err
