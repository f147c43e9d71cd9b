"""The HTML report: what it says, that it is whole, and that it loads nothing."""

import html
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from parity.compare.verdicts import Verdict
from parity.report.page import Axis, number, render, rerun, stage_order, values, write_report
from parity.report.results import DecisionResult, Report, StageResult, TensorResult, read_report

CASE = "ddq_detr_4scale_r50_12e"
FINE = TensorResult(
    "memory",
    Verdict.WITHIN_BUDGET,
    (2, 96, 256),
    max_abs=4e-15,
    rms=1e-15,
    rel_rms=1e-15,
    budget=9000.0,
    minimum_budget=90.0,
    worst_index=(1, 2, 3),
    count=49152,
    floor_max=1e-16,
    floor_rms=1.1e-16,
    expected_rms=1.0,
    unit="activation",
)
OFF = replace(
    FINE,
    name="references[2]",
    verdict=Verdict.DIVERGED,
    unit="normalised cxcywh",
    max_abs=0.0625,
    rms=0.01,
    minimum_budget=9.1e13,
    worst_index=(1, 17, 3),
    over=123,
    actual=0.5625,
    expected=0.5,
)
SHAPE = TensorResult("p6", Verdict.SHAPE, (2, 256, 3, 5), note="shape (2, 256, 3, 4), expected (2, 256, 3, 5)")
GONE = TensorResult("mask", Verdict.MISSING, (2, 96), note="the new engine gave no such tensor")
STEADY = DecisionResult("nms", "decoder.nms.0", Verdict.EQUAL, count=277, smallest_margin=7.03e-6)
TIE = replace(
    STEADY, name="decoder.nms.1", verdict=Verdict.CERTIFIED, flips=2, certified=2, note="cliff: row 0 is read"
)
ENVIRONMENT = {
    "new": {"engine": "mmdet3", "torch": "2.13.0", "cpu": "EPYC"},
    "records": {f"{CASE}/padded": {"legacy": {"engine": "ddq_mmdet3rc", "torch": "1.9.0", "cpu": "EPYC"}}},
    "parity": "0.1.0",
}


def stage(name="encoder", *tensors, mode="isolated", dtype="fp64", record="padded", **rest):
    return StageResult(CASE, record, name, mode, dtype, "cpu", 1.5, tensors or (FINE,), **rest)


def text_of(page):
    """Return the words of a page, as a reader sees them: one space between any two."""
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def page_of(*results, environment=ENVIRONMENT):
    return render(Report(environment, results))


def headline(page):
    return text_of(re.search(r"<h1>.*?</h1>", page, re.DOTALL)[0])


def test_green_run():
    page = page_of(stage(), stage(mode="cascade"))
    assert headline(page) == "✓ The engines are the same"
    assert "2 of 2 stage checks passed" in text_of(page)
    assert "took 3 s in all" in text_of(page)
    assert "First to diverge" not in page
    assert "✕" not in headline(page)
    assert '<details class="folded" open>' not in page


def test_the_bar_has_its_figures_beside_it():
    text = text_of(page_of(stage()))
    assert "isolated 1.0e-15 1 % ✓ within budget" in text


def test_no_error_at_all_is_called_exact():
    page = page_of(stage("neck", replace(FINE, verdict=Verdict.EQUAL, max_abs=0.0, rms=0.0, minimum_budget=0.0)))
    assert "isolated exact ✓ equal" in text_of(page)
    assert 'class="exact"' in page
    assert "inf" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)


def test_diverging_run_names_the_first_stage_of_the_detector_not_of_the_list():
    page = page_of(stage("predict", OFF), stage("decoder", FINE, OFF), stage("encoder"))
    text = text_of(page)
    assert headline(page) == "✕ The engines are not the same"
    assert "1 of 3 stage checks passed" in text
    assert "First to diverge: stage decoder , isolated, fp64, cpu, record padded" in text
    assert "1 of 2 tensors not the same" in text
    assert "At [1, 17, 3] New engine 0.562500 normalised cxcywh Legacy engine 0.500000 normalised cxcywh" in text
    assert "Greatest error 0.0625 normalised cxcywh , allowed 9.00e-13" in text
    assert f'pytest parity -k "{CASE}-padded-decoder-isolated-fp64-cpu"' in text


def test_isolated_float64_comes_first_among_the_failures_of_a_stage():
    runs = [("cascade", "fp32"), ("isolated", "fp32"), ("cascade", "fp64"), ("isolated", "fp64")]
    page = page_of(*(stage("decoder", OFF, mode=mode, dtype=dtype) for mode, dtype in runs))
    assert f'-k "{CASE}-padded-decoder-isolated-fp64-cpu"' in text_of(page)


def test_failing_stage_is_open_with_its_worst_tensor_on_top_and_a_passing_one_is_not():
    page = page_of(stage("encoder"), stage("decoder", FINE, OFF))
    opened = re.findall(r'<details class="folded" open>.*?</details>', page, re.DOTALL)
    assert len(opened) == 1
    assert page.count('<details class="folded">') == 1
    text = text_of(opened[0])
    assert text.index("references[2]") < text.index("memory ✓")
    assert "9.10e13 9,000" in text
    assert "123 of 49,152" in text


def test_ten_tensors_at_most_and_the_page_says_so():
    many = [replace(FINE, name=f"t{at}", minimum_budget=float(at + 1)) for at in range(12)]
    text = text_of(page_of(stage("encoder", *many)))
    assert "t11 ✓" in text
    assert "t2 ✓" in text
    assert "t1 ✓" not in text
    assert "The 10 of 12 tensors that used most of their budget" in text


@pytest.mark.parametrize(("tensor", "says"), [(SHAPE, "✕ wrong shape"), (GONE, "✕ missing")])
def test_verdicts_without_figures_show_none(tensor, says):
    page = page_of(stage("neck", tensor))
    assert f"neck isolated no figures \N{EN DASH} {says}" in text_of(page)
    assert f"{says} {tensor.note}" in text_of(page)
    assert "not compared" in page
    assert 'class="bar ' not in page.split('id="record-1"')[1].split('class="charts"')[1]


def test_a_tensor_of_the_wrong_shape_comes_before_one_with_wrong_values():
    broken = replace(OFF, verdict=Verdict.NONFINITE)
    text = text_of(page_of(stage("neck", OFF, broken, SHAPE, broken)))
    assert f"Worst tensor p6 ✕ wrong shape : {SHAPE.note}" in text


def test_infinite_and_undefined_figures():
    endless = replace(OFF, max_abs=math.inf, rms=math.inf, rel_rms=math.inf, minimum_budget=math.inf)
    broken = replace(OFF, verdict=Verdict.NONFINITE, actual=math.nan, expected=-math.inf)
    page = page_of(stage("neck", endless), stage("decoder", broken))
    assert "isolated ∞ ✕ diverged" in text_of(page)
    assert "isolated not finite ✕ not finite" in text_of(page)
    assert "NaN -∞" in text_of(page)
    bars = page.split('class="charts"')[1]
    assert bars.count('<i class="bar " style="width: 100.0%"></i>') == 2


def test_a_stage_that_compared_no_tensor_fails():
    page = render(Report({}, (StageResult(CASE, "padded", "neck", "isolated", "fp64", "cpu", 0.1, ()),)))
    assert headline(page) == "✕ The engines are not the same"
    assert "no tensor was compared" in text_of(page)


@pytest.mark.parametrize("environment", [{}, {"new": None, "records": {"a/b": None}}])
def test_empty_results_are_a_failure(environment):
    page = render(Report(environment))
    assert headline(page) == "✕ Nothing was compared"
    assert 'class="answer bad"' in page
    assert "comparing nothing is a failure" in page
    assert "do not say what they ran on" in page


def test_names_and_notes_are_escaped():
    evil = "<script>alert(1)</script>"
    bad = replace(OFF, name=evil, unit=evil, note=evil)
    decision = DecisionResult(evil, evil, Verdict.DIVERGED, flips=1, uncertified=1, note=evil)
    result = StageResult(evil, evil, evil, evil, evil, evil, 1.0, (bad,), (decision,), (evil,))
    environment = {"new": {evil: evil}, "records": {evil: {"legacy": {"torch": evil}}}, "parity": evil}
    page = page_of(result, environment=environment)
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 20
    assert "-k '" in html.unescape(page)


def test_nothing_is_loaded():
    known = replace(FINE, note="known deviation: no mask (https://github.com/open-mmlab/mmdetection/issues/10910)")
    page = page_of(stage("encoder", known), stage("decoder", OFF))
    assert not re.search(r"\ssrc\s*=|<link|<script|<iframe|<object|@import|url\(", page)
    assert "default-src 'none'" in page
    assert re.findall(r'"(https?:[^"]*)"', page) == [
        "https://github.com/open-mmlab/mmdetection/issues/10910"
    ] * page.count('<a href="http')


def test_environment_marks_what_differs():
    page = page_of(stage())
    assert '<td class="differs">2.13.0</td>' in page
    assert "<td>EPYC</td><td>EPYC</td>" in page
    assert "ddq_mmdet3rc" in page


def test_only_decisions_with_flips_are_shown_at_once():
    page = page_of(stage("decoder", FINE, decisions=(STEADY, TIE)))
    shown, folded = page.split("<h4>Decisions</h4>")[1].split("<details")[:2]
    assert "decoder.nms.1" in shown
    assert "✓ certified" in text_of(shown)
    assert "decoder.nms.0" not in shown
    assert "1 decision without a flip" in folded
    assert "7.03e-6" in folded
    assert "cliff: row 0 is read (decoder.nms.1)" in text_of(page)


def test_an_uncertified_decision_alone_makes_the_headline():
    bug = replace(TIE, verdict=Verdict.DIVERGED, certified=0, uncertified=2, note="")
    text = text_of(page_of(stage("decoder", FINE, decisions=(bug,))))
    assert "1 of 1 decision not the same" in text
    assert "Decision decoder.nms.1 ✕ diverged : 2 of 2 flips beyond noise" in text


def test_causes_and_known_deviations_have_their_sections():
    known = replace(FINE, name="mask", note="known deviation: mmdet 3.3 passes no mask")
    page = page_of(stage("encoder", known, notes=("float32 islands differ (only in the legacy engine: a.py)",)))
    text = text_of(page.split('<h2 id="causes">')[1])
    assert "encoder (record padded) float32 islands differ" in text
    assert "mask (padded, encoder; 1 check) mmdet 3.3 passes no mask" in text
    assert 'id="causes"' not in page_of(stage())
    assert 'id="deviations"' not in page_of(stage(), stage("neck", SHAPE))


def test_checks_that_did_not_run_are_told():
    whole = [stage(name, dtype=dtype) for name in ("neck", "encoder") for dtype in ("fp64", "fp32")]
    assert "did not run" not in page_of(*whole)
    assert "1 check did not run" in text_of(page_of(*whole[:-1]))


def test_float32_alone_does_not_prove_the_meaning():
    assert "No float64 run is among them" in page_of(stage(dtype="fp32"))
    assert "No float64 run is among them" not in page_of(stage(), stage(dtype="fp32"))


def test_every_link_within_the_page_has_its_target():
    page = page_of(stage("encoder"), stage("decoder", OFF), stage("decoder", OFF, record="photos"))
    targets = set(re.findall(r'href="#([^"]+)"', page))
    assert {"record-1", "record-2", "check-0", "check-1", "check-2"} <= targets
    assert targets <= set(re.findall(r'id="([^"]+)"', page))


def test_write_report_leaves_two_whole_files(tmp_path):
    report = Report(ENVIRONMENT, (stage("decoder", replace(OFF, minimum_budget=math.inf)),))
    path = write_report(report, tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "index.html"
    assert sorted(file.name for file in path.parent.iterdir()) == ["index.html", "results.json"]
    assert path.read_text(encoding="utf-8") == render(report)
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert read_report(path.parent / "results.json") == report


def test_a_page_that_cannot_be_made_leaves_the_old_one(tmp_path):
    path = write_report(Report({}), tmp_path)
    before = path.read_text(encoding="utf-8")
    unwritable = Report({"parity": object()}, (stage(),))
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_report(unwritable, tmp_path)
    assert path.read_text(encoding="utf-8") == before
    assert len(list(tmp_path.iterdir())) == 2


def test_a_full_disk_leaves_the_old_page_and_nothing_unfinished(tmp_path, monkeypatch):
    path = write_report(Report({}), tmp_path)
    before = path.read_text(encoding="utf-8")

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        write_report(Report({}, (stage(),)), tmp_path)
    assert path.read_text(encoding="utf-8") == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["index.html", "results.json"]


def test_stages_come_in_the_order_of_the_detector_and_unknown_ones_as_they_came():
    others = [replace(stage(name), case="other") for name in ("backbone", "neck", "a_head", "predict")]
    results = [stage("predict"), stage("decoder"), stage("neck"), *others]
    assert stage_order(results) == ["backbone", "neck", "a_head", "decoder", "predict"]
    assert stage_order(list(reversed(others))) == ["predict", "a_head", "neck", "backbone"]


def test_rerun_names_the_device_and_quotes():
    assert rerun(replace(stage(), device="cuda")).endswith('encoder-isolated-fp64-cuda" --device cuda')
    assert rerun(replace(stage(), record="$(rm x)")).startswith("pytest parity -k '")


@pytest.mark.parametrize(
    ("value", "percent"), [(1e-8, 50.0), (0.0, 0.0), (1e-30, 0.0), (5.0, 100.0), (math.inf, 100.0), (None, 0.0)]
)
def test_axis_places_values_on_a_log_scale(value, percent):
    assert Axis(-12, -4).place(value) == percent


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "\N{EN DASH}"),
        (0.0, "0"),
        (182.4, "182"),
        (9000.0, "9,000"),
        (1.5e-7, "1.50e-7"),
        (2.5e7, "2.50e7"),
        (math.nan, "NaN"),
    ],
)
def test_figures_are_written_for_people(value, says):
    assert number(value) == says


def test_both_values_have_the_digits_that_tell_them_apart():
    assert values(replace(OFF, actual=1.00000000002, expected=1.0)) == ("1.00000000002", "1.00000000000")
    assert values(replace(OFF, actual=7.0, expected=7.0)) == ("7", "7")


def test_a_stage_that_a_case_does_not_have_is_blank_and_not_called_not_run():
    fcn = replace(stage("fcn_head"), case="ddq_fcn_r50_12e")
    rcnn = replace(stage("rpn_head"), case="ddq_rcnn_r50_12e")
    assert "not run" not in text_of(page_of(fcn, rcnn))
    assert "not run" in text_of(page_of(fcn, replace(rcnn, stage="neck")))
