"""The kind of a record stands in its manifest, and which comparisons it is for."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_plugin import suite

from parity.cases.base import Batch, Case, TrainingBatch
from parity.cases.registry import find_case
from parity.check import Checker
from parity.engines.host import RemoteSession
from parity.errors import ParityError
from parity.mutants.bench import Bench
from parity.records.freeze import freeze
from parity.records.kinds import checks_in, checks_of, checks_of_batch
from parity.records.locate import default_fixtures, find_records
from parity.records.store import Record, write_record
from parity.report.checks import checks_in_order, missing_checks
from parity.report.results import read_report

CASE = "ddq_fcn_r50_12e"
RETINA = "stock_retinanet_r50_1x"
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def fcn() -> Case:
    return find_case(CASE)


def copied(tmp_path: Path, name: str, *, source: str = "tiny", **said: Any) -> Path:
    """Return a copy of a committed record under another name, with something else said of it in its manifest."""
    folder = tmp_path / "fixtures" / CASE / name
    shutil.copytree(default_fixtures() / CASE / source, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "record": name, **said}))
    return folder


@pytest.mark.parametrize(
    "folder", find_records(default_fixtures()), ids=lambda folder: f"{folder.parent.name}/{folder.name}"
)
def test_a_committed_record_is_read_as_what_its_name_says(folder: Path) -> None:
    case = find_case(folder.parent.name)
    batch = {**case.records, **case.training}.get(folder.name)
    expected = checks_of(case, folder.name) if batch is None else checks_of_batch(case, batch)
    assert checks_in(case, folder) == expected


def test_an_inference_record_may_have_any_name(tmp_path: Path, fcn: Case, parity_command: Command) -> None:
    folder = copied(tmp_path, "trajectory-1", kind="inference")
    assert checks_in(fcn, folder) == checks_of(fcn, "tiny")
    report = tmp_path / "results.json"
    words = ("check", CASE, "--fixtures", tmp_path / "fixtures", "--stage", "preprocess", "--json", report)
    status, out, err = parity_command(*words)
    assert (status, err) == (0, "")
    assert "same: 4 of 4 stage checks passed" in out
    checks = checks_in_order(read_report(report))
    assert {check.kind for check in checks} == {"inference"}
    assert missing_checks(checks) == []
    assert missing_checks(checks[1:]) == [(CASE, "trajectory-1", "preprocess", "isolated", "fp64")]
    assert [record.id for record in Bench(fcn, tmp_path / "fixtures").records] == ["trajectory-1"]


def test_without_a_kind_the_name_decides_as_before(tmp_path: Path, fcn: Case) -> None:
    assert checks_in(fcn, copied(tmp_path, "trajectory-1", kind="")) == checks_of(fcn, "trajectory")
    with pytest.raises(ParityError, match=r"manifest\.json is damaged: 'steps' is missing; restore"):
        Record(tmp_path / "fixtures" / CASE / "trajectory-1")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            {"kind": "video"},
            r"manifest.json is of the kind 'video'; this version knows inference, training, ",
        ),
        ({"kind": "training"}, r"damaged: 'steps' is missing \(it says that it is of the kind 'training'\); restore"),
        ({"kind": "recipe"}, r"damaged: 'recipe' is missing \(it says that it is of the kind 'recipe'\); restore"),
        ({"checks": {"stages": ["necks"]}}, r"is for the stage 'necks'; a record of the kind 'inference' has preproc"),
        ({"checks": {"modes": ["whole"]}}, r"is for the mode 'whole'; a record of the kind 'inference' has isolated, "),
        (
            {"checks": {"modes": "isolated"}},
            r"manifest.json is damaged: Expected `array`, got `str` - at `..checks.*; restore",
        ),
        (
            {"checks": ["isolated"]},
            r"manifest.json is damaged: Expected `object`, got `array` - at `..checks`.*; restore",
        ),
    ],
)
def test_a_record_of_a_wrong_kind_is_one_line(
    said: dict[str, Any], message: str, tmp_path: Path, parity_command: Command
) -> None:
    copied(tmp_path, "other", **said)
    status, out, err = parity_command("check", CASE, "--fixtures", tmp_path / "fixtures")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert re.search(message, err), err


def test_the_suite_refuses_a_record_of_a_wrong_kind_before_it_begins(tmp_path: Path) -> None:
    copied(tmp_path, "other", kind="video")
    done = suite("--fixtures-dir", tmp_path / "fixtures", "--case", CASE)
    assert done.returncode == 4
    assert "manifest.json is of the kind 'video'; this version knows inference" in done.stderr


def test_the_suite_makes_the_tests_that_a_record_is_for(tmp_path: Path, fcn: Case) -> None:
    checks = checks_in(fcn, copied(tmp_path, "other", checks={"stages": ["preprocess"], "modes": ["cascade"]}))
    assert (checks.stages, checks.modes, checks.dtypes) == (("preprocess",), ("cascade",), ("fp64", "fp32"))


def test_a_batch_may_not_ask_for_what_no_record_has(fcn: Case) -> None:
    batch = Batch(seed=1, sizes=((64, 64),))
    with pytest.raises(ParityError, match=rf"^case {CASE}: a batch is for the stage 'loss'; a record of the kind "):
        checks_of_batch(fcn, replace(batch, stages=("loss",)))
    training = TrainingBatch(seed=1, sizes=((64, 64),), objects=(1,), stages=("loss",))
    assert checks_of_batch(fcn, training).stages == ("loss",)
    assert checks_of_batch(fcn, replace(training, steps=2, stages=())).kind == "trajectory"


@pytest.fixture(scope="module")
def frozen(mmdet2: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Record]:
    """Return a function that freezes a batch of a stock detector live."""
    case, folder = find_case(RETINA), tmp_path_factory.mktemp("frozen")
    whole = case.records["tiny"]

    def make(name: str, **asked: Any) -> Record:
        with closing(RemoteSession("mmdet2", python=mmdet2, root="")) as legacy:
            record = freeze(case, name, replace(whole, **asked), legacy, progress=lambda text: None)
        write_record(folder / RETINA / name, *record, force=True)
        return Record(folder / RETINA / name)

    return make


def results_of(record: Record) -> list[tuple[str, str, str, bool]]:
    checker, checks = Checker(find_case(RETINA)), record.checks(find_case(RETINA))
    runs = [(mode, dtype) for mode in checks.modes for dtype in checks.dtypes]
    found = [result for mode, dtype in runs for result in checker.check(record, mode=mode, dtype=dtype)]
    return [(result.stage, result.mode, result.dtype, result.verdict.passes) for result in found]


@pytest.mark.legacy
def test_a_record_for_cascade_alone_holds_nothing_to_feed_a_stage(frozen: Callable[..., Record]) -> None:
    record = frozen("cascade", modes=("cascade",), sizes=((128, 160),))
    large = [entry for entry in record.entries.values() if entry.role == "output" and len(entry.of_shape) == 4]
    assert any(entry.kind == "sketch" for entry in large)
    assert max(entry.shape[-1] for entry in large if entry.kind != "whole") == 2048
    assert not [entry for entry in record.entries.values() if entry.role.startswith("unpromoted")]
    stages = find_case(RETINA).stage_names()
    assert results_of(record) == [(stage, "cascade", dtype, True) for dtype in ("fp64", "fp32") for stage in stages]
    assert record.manifest["checks"] == {"modes": ["cascade"]}


@pytest.mark.legacy
def test_a_record_of_the_preprocessing_runs_no_detector(frozen: Callable[..., Record]) -> None:
    record = frozen("pixels", stages=("preprocess",))
    assert {entry.stage for entry in record.entries.values()} == {"preprocess"}
    assert record.manifest["decisions"] == {}
    modes = [(mode, dtype) for mode in ("isolated", "cascade") for dtype in ("fp64", "fp32")]
    assert results_of(record) == [("preprocess", mode, dtype, True) for mode, dtype in modes]


@pytest.mark.legacy
def test_a_record_of_one_stage_holds_what_that_stage_is_fed(frozen: Callable[..., Record]) -> None:
    record = frozen("head", stages=("bbox_head",))
    outputs = {entry.stage for entry in record.entries.values() if entry.role == "output"}
    assert outputs == {"preprocess", "neck", "bbox_head"}
    modes = [(mode, dtype) for mode in ("isolated", "cascade") for dtype in ("fp64", "fp32")]
    assert results_of(record) == [("bbox_head", mode, dtype, True) for mode, dtype in modes]
