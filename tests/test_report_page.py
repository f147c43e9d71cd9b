"""The HTML report: what it says without its scripts, and what it gives them; test_browser runs them."""

import html
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import report_tools
from report_tools import CASE
from test_ap_result import result as ap_result

from parity.compare.verdicts import Verdict
from parity.errors import ParityError
from parity.report.ap_section import write_page
from parity.report.checks import share
from parity.report.figures import number, values
from parity.report.located import read_located, write_located
from parity.report.order import rerun, stage_order
from parity.report.page import render, write_report
from parity.report.plotly import SCRIPT
from parity.report.results import DecisionResult, Report, StageResult, TensorResult, read_report

FINE = replace(
    report_tools.FINE,
    max_abs=4e-15,
    rms=1e-15,
    rel_rms=1e-15,
    budget=9000.0,
    minimum_budget=90.0,
    floor_max=1e-16,
    floor_rms=1.1e-16,
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
    body = re.sub(r"<(style|script).*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def data_of(page):
    """Return what the page's scripts draw: its checks, with their tensors as dictionaries."""
    plain = json.loads(re.search(r'<script type="application/json" id="run">(.*?)</script>', page, re.DOTALL)[1])
    for check in plain["checks"]:
        check["tensors"] = [dict(zip(plain["fields"], row, strict=True)) for row in check["tensors"]]
    return plain["checks"]


def page_of(*results, environment=ENVIRONMENT):
    return render(Report(environment, results))


def headline(page):
    return text_of(re.search(r"<h1>.*?</h1>", page, re.DOTALL)[0])


def test_green_run():
    page = page_of(stage(), stage(mode="cascade"))
    assert headline(page) == "✓ The engines are the same"
    assert "2 of 2 stage checks passed" in text_of(page)
    assert "on cpu, in 3 s." in text_of(page)
    assert "First to diverge" not in page
    assert "✕" not in headline(page)
    assert '<details class="folded" open>' not in page


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


def test_a_tensor_of_the_wrong_shape_comes_before_one_with_wrong_values():
    broken = replace(OFF, verdict=Verdict.NONFINITE)
    text = text_of(page_of(stage("neck", OFF, broken, SHAPE, broken)))
    assert f"Worst tensor p6 ✕ wrong shape : {SHAPE.note}" in text


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


def test_environment_marks_what_differs():
    page = page_of(stage())
    assert '<td class="differs">2.13.0</td>' in page
    assert "<td>EPYC</td><td>EPYC</td>" in page
    assert "ddq_mmdet3rc" in page


def test_an_uncertified_decision_alone_makes_the_headline():
    bug = replace(TIE, verdict=Verdict.DIVERGED, certified=0, uncertified=2, note="")
    text = text_of(page_of(stage("decoder", FINE, decisions=(bug,))))
    assert "1 of 1 decision not the same" in text
    assert "Decision decoder.nms.1 ✕ diverged : 2 of 2 flips beyond noise" in text


def test_causes_and_known_deviations_have_their_sections():
    known = replace(FINE, name="mask", deviation="mmdet 3.3 passes no mask")
    page = page_of(stage("encoder", known, notes=("float32 islands differ (only in the legacy engine: a.py)",)))
    text = text_of(page.split('<h2 id="causes">')[1])
    assert "encoder (record padded) float32 islands differ" in text
    assert "mask (padded, encoder; 1 check) mmdet 3.3 passes no mask" in text
    assert 'id="causes"' not in page_of(stage())
    assert 'id="causes"' not in page_of(stage("encoder", known, notes=(f"mask: {known.remark}",)))
    assert 'id="deviations"' not in page_of(stage(), stage("neck", SHAPE))


def test_float32_alone_does_not_prove_the_meaning():
    assert "No float64 run is among them" in page_of(stage(dtype="fp32"))
    assert "No float64 run is among them" not in page_of(stage(), stage(dtype="fp32"))


def test_a_page_that_cannot_be_made_leaves_the_old_one(tmp_path):
    path = write_report(Report({}), tmp_path)
    before = path.read_text(encoding="utf-8")
    unwritable = Report({"parity": object()}, (stage(),))
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_report(unwritable, tmp_path)
    assert path.read_text(encoding="utf-8") == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["index.html", SCRIPT, "results.json"]


def test_a_full_disk_leaves_the_old_page_and_nothing_unfinished(tmp_path, monkeypatch):
    path = write_report(Report({}), tmp_path)
    before = path.read_text(encoding="utf-8")

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(ParityError, match=r"index.html cannot be written|results.json cannot be written"):
        write_report(Report({}, (stage(),)), tmp_path)
    assert path.read_text(encoding="utf-8") == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["index.html", SCRIPT, "results.json"]


def test_stages_come_in_the_order_of_the_detector_and_unknown_ones_as_they_came():
    others = [replace(stage(name), case="other") for name in ("backbone", "neck", "a_head", "predict")]
    results = [stage("predict"), stage("decoder"), stage("neck"), *others]
    assert stage_order(results) == ["backbone", "neck", "a_head", "decoder", "predict"]
    assert stage_order(list(reversed(others))) == ["predict", "a_head", "neck", "backbone"]


def test_rerun_names_the_device_and_quotes():
    assert rerun(replace(stage(), device="cuda")).endswith('encoder-isolated-fp64-cuda" --device cuda')
    assert rerun(replace(stage(), record="$(rm x)")).startswith("pytest parity -k '")


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


def matrix_of(page):
    """Return the matrix as rows of texts."""
    table = re.search(r'<table id="matrix".*?</table>', page, re.DOTALL)[0]
    rows = re.findall(r"<tr.*?</tr>", table, re.DOTALL)
    return [[text_of(cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)] for row in rows]


def test_the_matrix_has_a_line_a_case_and_one_for_each_way_of_running():
    used = replace(FINE, minimum_budget=1800.0)
    trained = stage("loss", record="train-one-object", mode="cascade")
    page = page_of(stage("predict"), stage("predict", used, mode="cascade"), trained)
    assert matrix_of(page) == [
        ["Case how it was run", "predict", "loss"],
        ["ddq_ detr_ 4scale_ r50_ 12e", "✓ passed 20 %", "✓ passed 1 %"],
        ["float64 isolated", "✓ passed 1 %", ""],
        ["float64 cascade", "✓ passed 20 %", ""],
        ["float64 training", "", "✓ passed 1 %"],
    ]


def test_a_failing_cell_says_how_many_times_its_budget_and_leads_to_its_check():
    page = page_of(stage("decoder"), stage("decoder", OFF, record="photos"))
    assert matrix_of(page)[1][1] == "✕ did not pass 1.0e10\N{MULTIPLICATION SIGN} 1 of 2"
    target = re.search(r'class="verdict bad" href="#check-(\d+)"', page)[1]
    assert data_of(page)[int(target)]["record"] == "photos"


def test_a_cell_without_a_figure_says_its_verdict():
    assert matrix_of(page_of(stage("neck", SHAPE)))[1][1] == "✕ did not pass wrong shape"


def test_the_lines_of_a_case_that_passed_are_folded_among_others():
    other = replace(stage(), case="ddq_detr_5scale_r50_12e")
    assert page_of(stage(), other).count('id="ways-1" hidden') == 1
    assert "hidden" not in re.search(r'id="ways-1"[^>]*', page_of(stage("neck", OFF), other))[0]
    assert 'id="ways-1" hidden' not in page_of(stage())


def test_scripts_get_every_tensor_worst_first_and_its_command():
    (check,) = data_of(page_of(stage("decoder", FINE, GONE, OFF)))
    assert [tensor["name"] for tensor in check["tensors"]] == ["mask", "references[2]", "memory"]
    assert check["rerun"].endswith('padded-decoder-isolated-fp64-cpu"')
    assert check["locate"] == f"parity locate {CASE} --stage decoder --record padded --legacy-root DIR"
    off = check["tensors"][1]
    assert (off["max"], off["actual"], off["expected"], off["over"]) == (0.0625, "0.562500", "0.500000", 123)
    assert (check["tensors"][0]["max"], check["tensors"][0]["used"]) == (None, "inf")


def test_only_stages_that_fail_and_have_modules_are_to_be_located():
    checks = data_of(page_of(stage("decoder"), stage("preprocess", OFF), stage("loss", OFF, record="train-one-object")))
    assert [check["locate"] for check in checks] == ["", "", ""]


def test_what_is_not_finite_reaches_the_scripts_as_text():
    broken = replace(OFF, verdict=Verdict.NONFINITE, actual=math.nan, expected=-math.inf, nonfinite=4)
    (check,) = data_of(page_of(stage("decoder", broken)))
    assert check["error"] == "inf"
    tensor = check["tensors"][0]
    assert (tensor["actual"], tensor["expected"], tensor["nonfinite"]) == ("NaN", "-\N{INFINITY}", 4)


def test_names_and_notes_are_escaped():
    evil = "</script><script>alert(1)</script>"
    bad = replace(OFF, name=evil, unit=evil, note=evil)
    decision = DecisionResult(evil, evil, Verdict.DIVERGED, flips=1, uncertified=1, note=evil)
    result = StageResult(evil, evil, evil, evil, evil, evil, 1.0, (bad,), (decision,), (evil,))
    environment = {"new": {evil: evil}, "records": {evil: {"legacy": {"torch": evil}}}, "parity": evil, "when": evil}
    page = page_of(result, environment=environment)
    assert "alert(1)</script>" not in page
    assert page.count("<script") == 2
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 15
    assert data_of(page)[0]["tensors"][0]["name"] == evil
    assert "-k '" in html.unescape(page)


def test_only_plotlys_script_is_loaded_and_only_our_own_is_allowed():
    known = replace(FINE, deviation="no mask (https://github.com/open-mmlab/mmdetection/issues/10910)")
    page = page_of(stage("encoder", known), stage("decoder", OFF))
    assert not re.search(r"<link|<script src|<iframe|<object|@import|url\(", page)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert "default-src 'none'" in policy
    assert re.search(r"script-src 'self' file: 'sha256-[^']+'$", policy)
    outside = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert set(re.findall(r'"(https?:[^"]*)"', outside)) == {"https://github.com/open-mmlab/mmdetection/issues/10910"}


def test_checks_that_did_not_run_are_told():
    whole = [stage(name, dtype=dtype) for name in ("neck", "encoder") for dtype in ("fp64", "fp32")]
    assert "did not run" not in page_of(*whole)
    page = page_of(*whole[:-1])
    assert f"1 check did not run, of stages that were checked in another way: {CASE}-padded-encoder" in text_of(page)
    assert matrix_of(page)[1][2] == "✓ passed 1 % 1 not run"


def test_a_stage_that_a_record_is_not_for_is_blank_and_not_called_not_run():
    recipe = stage("schedule", record="recipe")
    trained = stage("loss", record="train-one-object", mode="cascade")
    fcn = replace(stage("fcn_head", mode="cascade"), case="ddq_fcn_r50_12e", record="train-one-object")
    assert "not run" not in text_of(page_of(stage("predict"), stage("predict", mode="cascade"), recipe, trained, fcn))


def test_every_link_within_the_page_has_its_target():
    page = page_of(stage("encoder"), stage("decoder", OFF), stage("decoder", OFF, record="photos"))
    places = {target for target in re.findall(r'href="#([^"]+)"', page) if not target.startswith("check-")}
    assert {"start", "decisions", "environment"} <= places
    assert places <= set(re.findall(r'id="([^"]+)"', page))
    numbers = {int(number) for number in re.findall(r'href="#check-(\d+)', page)}
    assert numbers
    assert numbers <= {check["number"] for check in data_of(page)}


def test_write_report_leaves_whole_files(tmp_path):
    report = Report(ENVIRONMENT, (stage("decoder", replace(OFF, minimum_budget=math.inf)),), 2.5)
    path = write_report(report, tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "index.html"
    assert sorted(file.name for file in path.parent.iterdir()) == ["index.html", SCRIPT, "results.json"]
    assert path.read_text(encoding="utf-8") == render(report)
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert read_report(path.parent / "results.json") == report


def test_what_locate_told_is_shown_with_its_stage(tmp_path):
    write_located(
        tmp_path / "locate-decoder.json", case=CASE, stage="decoder", lines=["first difference: a.b", "  new"]
    )
    page = write_report(Report(ENVIRONMENT, (stage("decoder", OFF), stage("encoder"))), tmp_path).read_text("utf-8")
    assert [check["located"] for check in data_of(page)] == ["", "first difference: a.b\n  new"]


@pytest.mark.parametrize("name", ["locate-x.json", "ap.json"])
def test_a_damaged_file_beside_the_page_is_named_and_the_results_are_kept(tmp_path, name):
    (tmp_path / name).write_text('{"case"')
    with pytest.raises(ParityError, match=f"{name} cannot be shown"):
        write_report(Report(ENVIRONMENT, (stage(),)), tmp_path)
    assert read_report(tmp_path / "results.json").results == (stage(),)
    assert not (tmp_path / "index.html").exists()


def test_no_locate_file_is_no_harm(tmp_path):
    assert read_located(tmp_path / "nowhere") == {}


@pytest.mark.parametrize(("used", "says"), [(0.5, "50 %"), (1.0, "100 %"), (31.4, "31\N{MULTIPLICATION SIGN}")])
def test_a_share_of_a_budget_is_written_for_people(used, says):
    assert share(used) == says


def test_what_ap_left_beside_the_page_is_its_section(tmp_path):
    write_page([ap_result(shift=5.0), ap_result()], tmp_path)
    page = write_report(Report(ENVIRONMENT, (stage(),)), tmp_path).read_text("utf-8")
    section = page.split('<h2 id="ap">')[1].split("<h2")[0]
    assert re.findall(r"(\d+) of 120 detections match", text_of(section)) == ["0", "120"]
    assert section.count('src="data:image/jpeg;base64,') == 4
    assert "parity ap measures it" in text_of(page_of(stage()).split('<h2 id="ap">')[1])


def test_locate_writes_what_it_told(tmp_path, monkeypatch, parity_command):
    monkeypatch.setattr("parity.locate.command.locate", lambda options: iter(["first difference: a.b", "  new"]))
    path = tmp_path / "locate-decoder.json"
    status, out, _ = parity_command("locate", CASE, "--stage", "decoder", "--json", path)
    assert (status, out) == (0, "first difference: a.b\n  new\n")
    assert read_located(tmp_path) == {(CASE, "decoder"): "first difference: a.b\n  new"}


@pytest.mark.parametrize(
    ("text", "says"), [('{"schema": 2, "res', "is no results file"), ('{"schema": 99}', "newer one")]
)
def test_a_damaged_or_newer_file_makes_no_page(tmp_path, parity_command, text, says):
    (tmp_path / "results.json").write_text(text)
    status, _, err = parity_command("report", tmp_path / "results.json", "--out", tmp_path / "page")
    assert status == 2
    assert says in err
    assert err.count("\n") == 1
    assert not (tmp_path / "page").exists()


LIMITS = {
    CASE: {
        "rows": [
            {
                **{"limit": "queries", "value": 900, "where": "model.num_queries", "record": "limits"},
                **{"decision": "query_selection.nms.0", "how": "the first 900 of 1352", "reason": ""},
            },
            {"limit": "denoising", "value": 100, "where": "in the code", "reason": "it chooses among <nothing>"},
        ],
        "problems": [],
    }
}


def limits_of_page(limits: object) -> str:
    page = render(Report({**ENVIRONMENT, "limits": limits}, (report_tools.check("decoder"),)))
    return page.split('<h2 id="limits">')[1].split("<h2")[0]


def test_limits_are_told_with_what_binds_them():
    section = limits_of_page(LIMITS)
    assert "<details>" in section
    assert "1 of 2 limits bound by a record" in section
    assert "limits, query_selection.nms.0: the first 900 of 1352" in section
    assert "it chooses among &lt;nothing&gt;" in section


def test_limits_that_nothing_binds_and_wrong_declarations_are_open():
    rows = [{"limit": "queries", "value": 900, "where": "in the code", "record": "", "reason": ""}]
    for said in ({"rows": rows, "problems": []}, {"rows": [], "problems": ["mmdet3's config has a limit"]}):
        section = limits_of_page({CASE: said})
        assert "<details open>" in section
        assert "not bound</span>" in section or "mmdet3&#39;s config has a limit" in section


def test_earlier_results_tell_no_limits():
    assert 'id="limits"' not in render(Report(ENVIRONMENT, (report_tools.check("decoder"),)))
