"""What other tools read of a run: the schema, JUnit XML, Markdown, the table at the end of pytest."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as XML

import jsonschema
import pytest
from report_tools import CASE, FINE, OFF, SCRIPT, TIE, check, run_of, written

from parity.compare.verdicts import Verdict
from parity.report.junit import junit
from parity.report.markdown import markdown
from parity.report.matrix import matrix, table
from parity.report.results import Report, read_report, to_json
from parity.report.schema import results_schema, schema_text

ROOT = Path(__file__).resolve().parents[1]
OLD = sorted((ROOT / "tests" / "data" / "results").glob("schema-*.json"))
RED = run_of(check("backbone"), check("encoder", OFF), check("decoder", OFF, decisions=(TIE,)))
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(results_schema())
    return jsonschema.Draft202012Validator(results_schema())


def test_the_published_schema_is_that_of_the_types(parity_command: Command) -> None:
    published = (ROOT / "docs" / "results.schema.json").read_text("utf-8")
    assert published == schema_text(), "run: parity report --schema > docs/results.schema.json"
    assert parity_command("report", "--schema") == (0, published, "")


def test_what_is_written_fits_the_schema(schema: jsonschema.Draft202012Validator) -> None:
    endless = replace(OFF, minimum_budget=float("inf"), actual=float("nan"))
    report = run_of(check("encoder", endless, decisions=(TIE,)), check("decoder", error="no such stage", tensors=()))
    schema.validate(json.loads(to_json(report)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"verdict": "diverged"', '"verdict": "splendid"', "'splendid' is not one of"),
        ('"case": ', '"cas": ', "'case' is a required property"),
        ('"schema": 2', '"schema": 1', "2 was expected"),
        ('"max_abs": 0.5', '"max_abs": "much"', "'much' is not valid under any of the given schemas"),
        ('"seconds": 1.5', '"seconds": null', "None is not valid under any"),
    ],
)
def test_what_is_altered_does_not_fit(
    schema: jsonschema.Draft202012Validator, old: str, new: str, message: str
) -> None:
    plain = json.loads(to_json(RED).replace(old, new))
    with pytest.raises(jsonschema.ValidationError, match=message):
        schema.validate(plain)


@pytest.mark.parametrize("path", OLD, ids=lambda path: path.stem)
def test_results_of_earlier_schemas_open(path: Path, tmp_path: Path, parity_command: Command) -> None:
    report = read_report(path)
    assert report.verdict.passes
    assert len(report.results) == 15
    assert {result.stage for result in report.results} == {"query_selection"}
    status, out, _ = parity_command("report", path, "--markdown", "-", "--out", tmp_path)
    assert status == 0
    assert "## ✓ Same: 15 of 15 stage checks passed" in out
    assert "query_selection" in (tmp_path / "index.html").read_text("utf-8")


def test_there_is_an_example_of_every_earlier_schema() -> None:
    assert [path.stem for path in OLD] == ["schema-1"]


def test_junit_has_a_test_a_check_and_a_suite_a_case() -> None:
    other = check("neck", case="another", error="no such record", tensors=())
    root = XML.fromstring(junit(Report(RED.environment, (*RED.results, other))))
    assert [(suite.get("name"), suite.get("tests"), suite.get("failures"), suite.get("errors")) for suite in root] == [
        (CASE, "3", "2", "0"),
        ("another", "1", "0", "1"),
    ]
    tests = list(root.iter("testcase"))
    assert [(test.get("classname"), test.get("name")) for test in tests][1] == (
        f"{CASE}.padded",
        "encoder-isolated-fp32-cpu",
    )
    properties = {element.get("name"): element.get("value") for element in tests[1].iter("property")}
    assert properties["verdict"] == "diverged"
    assert (properties["budget_used"], properties["worst_tensor"]) == ("10", "memory")
    failures = [test.find("failure") for test in tests]
    assert failures[0] is None
    assert failures[1] is not None
    assert 'to reproduce: pytest parity -k "' in (failures[1].text or "")
    (error,) = root.iter("error")
    assert error.get("message") == "no such record"


def test_junit_is_xml_whatever_the_names_hold() -> None:
    odd = check("encoder", replace(OFF, name=f"{SCRIPT}\x00\x1b[1m]]>"), record=f'"{SCRIPT}&')
    root = XML.fromstring(junit(run_of(odd)))
    (test,) = root.iter("testcase")
    assert test.get("classname") == f'{CASE}."{SCRIPT}&'
    assert f"{SCRIPT}\N{REPLACEMENT CHARACTER}" in next(iter(test.iter("failure"))).text  # type: ignore[operator]


def test_markdown_of_a_green_run_says_so_and_nothing_else() -> None:
    text = markdown(run_of())
    assert text.startswith("## ✓ Same: 3 of 3 stage checks passed, 4.5 s\n")
    assert "| encoder | ✓ 25 % |" in text
    assert "diverging" not in text
    assert "commit 0123456789ab, torch 2.13.0" in text


def test_markdown_of_a_red_run_names_the_first_diverging_stage_and_the_command() -> None:
    text = markdown(Report(RED.environment, tuple(reversed(RED.results))))
    assert text.startswith("## ✕ Not the same: 1 of 3 stage checks passed")
    assert f"First diverging stage: **encoder** ({CASE}, record padded, isolated, fp32, cpu)" in text
    assert f'to reproduce: pytest parity -k "{CASE}-padded-encoder-isolated-fp32-cpu"' in text
    assert "| encoder | ✕ 1 of 1 |" in text
    assert "All 2 diverging checks" in text


def test_markdown_of_nothing_is_red() -> None:
    assert markdown(Report({})).startswith("## ✕ Not the same: 0 of 0 stage checks passed")
    assert "Nothing was compared" in markdown(Report({}))


def test_markdown_escapes_what_names_hold() -> None:
    odd = replace(OFF, name="```\n@everybody")
    text = markdown(run_of(check("encoder", odd, case=f"a|{SCRIPT}"), check(f"x{SCRIPT}", OFF, record="`@all`#1")))
    fence = re.search(r"^(`{4,})text$(.*)^\1$", text, flags=re.MULTILINE | re.DOTALL)
    assert fence is not None
    outside = text.replace(fence[0], "")
    assert "<script>" not in outside
    assert "@" not in outside
    assert "a\\|&lt;script&gt;" in outside


def test_markdown_tells_ap_and_is_red_where_that_is(tmp_path: Path, parity_command: Command) -> None:
    engine = {"figures": {"AP": 41.523}}
    ap = {"case": CASE, "problems": [], "legacy": engine, "new": engine, "detections": {"share": 0.9991}}
    folder = written(tmp_path / "run", run_of())
    (folder / "ap.json").write_text(json.dumps([ap]))
    _, green, _ = parity_command("report", folder, "--markdown", "-")
    assert green.startswith("## ✓ Same")
    assert f"| ✓ {CASE} | 41.52 | 41.52 | 99.91 % |" in green
    (folder / "ap.json").write_text(json.dumps([{**ap, "problems": ["AP differs by -0.4"]}]))
    _, red, _ = parity_command("report", folder, "--markdown", "-")
    assert red.startswith("## ✕ Not the same: 3 of 3 stage checks passed")
    assert f"- {CASE}: AP differs by -0.4" in red
    (folder / "ap.json").write_text("[")
    status, _, err = parity_command("report", folder, "--markdown", "-")
    assert (status, err.count("\n")) == (2, 1)
    assert "ap.json is damaged" in err


def test_the_table_puts_cases_that_do_not_fit_below() -> None:
    cases = ("ddq_detr_4scale_r50_12e", "ddq_fcn_r50_12e", "mine")
    found = matrix([check(stage, case=case) for case in cases for stage in ("neck", "predict")])
    wide, narrow = table(found, width=80), table(found, width=25)
    assert wide[0].split() == ["ddq_detr_", "ddq_fcn_", "mine"]
    assert [line.split()[0] for line in wide[3:]] == ["neck", "predict"]
    assert max(map(len, narrow)) <= 25
    assert sum(line.startswith("neck") for line in narrow) == 3


def test_the_table_tells_failures_what_was_not_run_and_what_there_is_not() -> None:
    results = [check("encoder"), check("encoder", OFF, dtype="fp64"), check("fcn_head", case="ddq_fcn_r50_12e")]
    found = matrix([*results, check("neck", case="ddq_fcn_r50_12e")])
    assert found.text("encoder", CASE) == "✕ 1 of 2"
    assert found.text("neck", CASE) == "–"  # noqa: RUF001
    assert found.text("fcn_head", CASE) == ""
    gone = matrix([check("neck", replace(FINE, verdict=Verdict.MISSING))])
    assert gone.text("neck", CASE) == "✕ 1 of 1"


def test_the_summaries_are_written_and_no_page_unless_asked_for(tmp_path: Path, parity_command: Command) -> None:
    folder = written(tmp_path / "run", RED)
    words = ("report", folder, "--junit", tmp_path / "junit.xml", "--markdown", tmp_path / "summary.md")
    assert parity_command(*words) == (0, "", "")
    assert (tmp_path / "junit.xml").read_text("utf-8") == junit(read_report(folder))
    assert (tmp_path / "summary.md").read_text("utf-8") == markdown(read_report(folder))
    assert [path.name for path in folder.iterdir()] == ["results.json"]


def test_a_page_is_written_into_its_runs_own_folder_and_another_shows_the_same(
    tmp_path: Path, parity_command: Command
) -> None:
    folder = written(tmp_path / "monday", run_of())
    located = {"case": CASE, "stage": "encoder", "lines": ["layers.0.norms.0 is the first"]}
    (folder / "locate-encoder.json").write_text(json.dumps(located))
    assert parity_command("report", folder / "results.json") == (0, f"report: {folder / 'index.html'}\n", "")
    assert parity_command("report", folder, "--out", tmp_path / "copy")[0] == 0
    for page in (folder, tmp_path / "copy"):
        assert "layers.0.norms.0 is the first" in (page / "index.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("report",), "report: name RESULTS.json"),
        (("report", "--markdown", "-"), "report: name RESULTS.json"),
        (("report", "none.json", "--markdown", "-"), "none.json is no results file"),
    ],
)
def test_a_wrong_call_is_told_in_one_line(words: tuple[str, ...], message: str, parity_command: Command) -> None:
    status, out, err = parity_command(*words)
    assert (status, out) == (2, "")
    assert err.startswith(f"parity: {message}")
    assert err.count("\n") == 1
