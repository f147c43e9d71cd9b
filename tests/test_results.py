"""Results as plain data: written, read, refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.compare.verdicts import Verdict
from parity.errors import ParityError
from parity.report.results import (
    SCHEMA,
    DecisionResult,
    Report,
    StageResult,
    TensorResult,
    read_report,
    stage_from_json,
    stage_to_json,
    to_json,
)


def figures(*, greatest: float = 1e12) -> st.SearchStrategy[float]:
    return st.one_of(st.floats(0.0, greatest), st.just(math.inf))


def tensor_results() -> st.SearchStrategy[TensorResult]:
    return st.builds(
        TensorResult,
        name=st.sampled_from(["p3", "inf", "nan", "boxes[0]#samples"]),
        verdict=st.sampled_from(list(Verdict)),
        shape=st.lists(st.integers(0, 9), max_size=3).map(tuple),
        max_abs=figures(),
        rms=figures(),
        rel_rms=figures(),
        budget=figures(),
        minimum_budget=figures(),
        worst_index=st.lists(st.integers(0, 9), max_size=3).map(tuple),
        count=st.integers(0, 99),
        over=st.integers(0, 99),
        unit=st.sampled_from(["", "pixels xyxy", "inf"]),
        actual=st.one_of(st.none(), figures(), st.just(-math.inf)),
        expected=st.one_of(st.none(), figures()),
        note=st.sampled_from(["", "inf", "nan", "a note"]),
        deviation=st.sampled_from(["", "nan", "a reason (a link)"]),
    )


def decision_results() -> st.SearchStrategy[DecisionResult]:
    return st.builds(
        DecisionResult,
        kind=st.sampled_from(["nms", "topk", "sort"]),
        name=st.just("decoder.nms.0"),
        verdict=st.sampled_from(list(Verdict)),
        flips=st.integers(0, 9),
        smallest_margin=st.one_of(st.none(), figures()),
        needed=figures(),
        note=st.sampled_from(["", "-inf"]),
    )


def stage_results() -> st.SearchStrategy[StageResult]:
    return st.builds(
        StageResult,
        case=st.just("a_case"),
        record=st.just("padded"),
        stage=st.just("neck"),
        mode=st.sampled_from(["isolated", "cascade"]),
        dtype=st.sampled_from(["fp64", "fp32"]),
        device=st.just("cpu"),
        seconds=st.floats(0, 99),
        tensors=st.lists(tensor_results(), max_size=3).map(tuple),
        decisions=st.lists(decision_results(), max_size=2).map(tuple),
        notes=st.lists(st.sampled_from(["inf", "a note"]), max_size=2).map(tuple),
    )


def a_report(**changed: Any) -> Report:
    tensor = TensorResult("p3", Verdict.DIVERGED, (2, 3), minimum_budget=math.inf, max_abs=1.0, worst_index=(0, 1))
    values: dict[str, Any] = {
        "case": "a_case",
        "record": "padded",
        "stage": "neck",
        "mode": "isolated",
        "dtype": "fp64",
        "device": "cpu",
        "seconds": 0.5,
        "tensors": (tensor,),
    }
    return Report({"parity": "0"}, (StageResult(**{**values, **changed}),))


@given(stage_results())
def test_a_stage_comes_back_from_its_json(result: StageResult) -> None:
    plain = json.loads(json.dumps(stage_to_json(result), allow_nan=False))
    assert stage_from_json(plain) == result
    assert plain["verdict"] == result.verdict.value


def test_a_report_comes_back_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(to_json(a_report()))
    found = read_report(path)
    assert found == a_report()
    assert found.results[0].tensors[0].minimum_budget == math.inf


def test_the_json_is_what_every_reader_takes() -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    plain = json.loads(to_json(a_report()), parse_constant=refuse)
    assert plain["results"][0]["tensors"][0]["minimum_budget"] == "inf"


def test_a_known_deviation_of_an_earlier_version_is_read_off_its_note() -> None:
    stage = stage_to_json(a_report().results[0])
    tensor = {**stage["tensors"][0], "note": "known deviation: no mask (a link)"}
    (found,) = stage_from_json({**stage, "tensors": [tensor]}).tensors
    assert (found.deviation, found.note) == ("no mask (a link)", "")
    assert found.remark == "known deviation: no mask (a link)"
    (plain,) = stage_from_json({**stage, "tensors": [{**tensor, "note": "worst row: a"}]}).tensors
    assert (plain.deviation, plain.remark) == ("", "worst row: a")


def test_the_json_has_the_declared_fields() -> None:
    plain = json.loads(to_json(a_report()))
    assert set(plain) == {"schema", "environment", "seconds", "results"}
    result = plain["results"][0]
    declared = "case record stage mode dtype device verdict seconds tensors decisions"
    assert set(declared.split()) <= set(result)
    fields = "name verdict shape max_abs rms rel_rms budget minimum_budget worst_index"
    assert set(fields.split()) <= set(result["tensors"][0])


@pytest.mark.parametrize("cut", [0, 1, 40, -5])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "results.json"
    path.write_text(to_json(a_report())[:cut])
    with pytest.raises(ParityError, match=r"results\.json is no results file \(.*\): `parity check --json FILE`"):
        read_report(path)


@pytest.mark.parametrize("text", ["[]", "null", "{}", "3", '"schema"'])
def test_a_file_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ParityError, match=r"results\.json is no results file"):
        read_report(path)


def test_a_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"none\.json is no results file .*No such file"):
        read_report(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("schema", "advice"),
    [
        ("7", "update parity, it was written by a newer one"),
        ("0", "run `parity check`"),
        ('"two"', "run `parity check`"),
    ],
)
def test_a_file_of_another_schema_is_refused(tmp_path: Path, schema: str, advice: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(to_json(a_report()).replace(f'"schema": {SCHEMA}', f'"schema": {schema}'))
    with pytest.raises(ParityError, match=rf"results\.json has schema .*, this version reads 1 to {SCHEMA}: {advice}"):
        read_report(path)


def test_the_folder_of_a_run_is_read_as_its_results(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(to_json(a_report()))
    assert read_report(tmp_path) == a_report()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ParityError, match=r"empty/results\.json is no results file"):
        read_report(tmp_path / "empty")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"verdict": "diverged"', '"verdict": "splendid"'),
        ('"tensors"', '"arrays"'),
        ('"environment"', '"surroundings"'),
        ('"mode"', '"manner"'),
        ('"stage"', '"step"'),
    ],
)
def test_a_file_that_is_altered_is_refused(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(to_json(a_report()).replace(old, new))
    with pytest.raises(ParityError, match=r"results\.json is damaged \(\w+: .*\): run `parity check` again"):
        read_report(path)


@pytest.mark.parametrize("results", ["null", "3", '"text"', "[3]", "[null]"])
def test_a_file_whose_results_are_no_list_of_stages_is_refused(tmp_path: Path, results: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(f'{{"schema": 1, "environment": {{}}, "results": {results}}}')
    with pytest.raises(ParityError, match=r"results\.json is damaged"):
        read_report(path)


def test_a_stage_is_as_bad_as_its_worst_part() -> None:
    good = TensorResult("a", Verdict.EQUAL)
    flipped = DecisionResult("nms", "n", Verdict.DIVERGED)
    assert a_report(tensors=(good,)).results[0].verdict is Verdict.EQUAL
    assert a_report(tensors=(good,), decisions=(flipped,)).verdict is Verdict.DIVERGED


def test_a_stage_without_a_tensor_is_missing() -> None:
    agreed = DecisionResult("nms", "n", Verdict.EQUAL)
    assert a_report(tensors=(), decisions=(agreed,)).verdict is Verdict.MISSING


def test_a_report_without_results_is_missing() -> None:
    assert Report({}).verdict is Verdict.MISSING


def test_the_worst_tensors_come_first_and_failures_before_passes() -> None:
    names = {"a": (Verdict.EQUAL, 0.0), "b": (Verdict.WITHIN_BUDGET, 7.0), "c": (Verdict.MISSING, 0.0)}
    tensors = tuple(TensorResult(name, verdict, minimum_budget=need) for name, (verdict, need) in names.items())
    (result,) = a_report(tensors=tensors).results
    assert [tensor.name for tensor in result.worst_tensors()] == ["c", "b", "a"]


def test_the_id_is_that_of_pytest() -> None:
    assert a_report().results[0].id == "a_case-padded-neck-isolated-fp64-cpu"


@pytest.mark.parametrize(
    ("part", "value"), [("environment", None), ("case", None), ("max_abs", "x"), ("shape", 3), ("seconds", None)]
)
def test_a_value_of_a_wrong_type_is_refused(tmp_path: Path, part: str, value: object) -> None:
    result = StageResult("c", "r", "s", "isolated", "fp64", "cpu", 1.0, (TensorResult("t", Verdict.WITHIN_BUDGET, ()),))
    plain = json.loads(to_json(Report({}, (result,))))
    for holder in (plain, plain["results"][0], plain["results"][0]["tensors"][0]):
        if part in holder:
            holder[part] = value
            break
    (tmp_path / "results.json").write_text(json.dumps(plain))
    with pytest.raises(ParityError, match=r"results\.json is damaged \("):
        read_report(tmp_path / "results.json")


def test_what_a_later_version_adds_is_passed_over(tmp_path: Path) -> None:
    result = StageResult("c", "r", "s", "isolated", "fp64", "cpu", 1.0, (TensorResult("t", Verdict.WITHIN_BUDGET, ()),))
    report = Report({"when": "today"}, (result,))
    plain = json.loads(to_json(report))
    for holder in (plain, plain["results"][0], plain["results"][0]["tensors"][0]):
        holder["brand_new"] = [1]
    (tmp_path / "results.json").write_text(json.dumps(plain))
    assert read_report(tmp_path / "results.json") == report
