"""Stock detectors, proven live: mmdet 2.22 in its own interpreter against mmdet 3.3 here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_divergence_docs import shown, words
from torch import nn

from parity.cases.registry import find_case
from parity.check import Checker
from parity.engines.host import RemoteSession
from parity.engines.session import Session
from parity.locate.command import located, reference, told
from parity.records.store import Record

pytestmark = [pytest.mark.legacy, pytest.mark.xdist_group("live")]

PROOF = 1e-12  # relative RMS in float64, in every stage
RETINA = "stock_retinanet_r50_1x"
PROVEN = (RETINA, "stock_fcos_r50_1x", "stock_faster_rcnn_r50_1x")
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("records")


@pytest.mark.parametrize("case_id", PROVEN)
def test_a_stock_detector_is_proven_live(case_id: str, mmdet2: str, records: Path, parity_command: Command) -> None:
    words = (case_id, "--record", "tiny", "--legacy-python", mmdet2, "--out", records)
    status, out, err = parity_command("freeze", *words)
    assert status == 0, err
    found = records / f"{case_id}.json"
    status, out, err = parity_command("check", case_id, "--fixtures", records, "--json", found)
    assert status == 0, out + err
    stages = len(find_case(case_id).stage_names())
    assert f"same: {4 * stages} of {4 * stages} stage checks passed" in out
    results = [result for result in json.loads(found.read_text())["results"] if result["dtype"] == "fp64"]
    errors = [tensor["rel_rms"] for result in results for tensor in result["tensors"]]
    assert len(errors) >= 2 * stages
    assert max(errors) <= PROOF


def test_the_tie_of_the_docs_is_real(mmdet2: str, records: Path, parity_command: Command) -> None:
    """The fifth example of docs/reading-a-divergence.md; the others need no legacy engine."""
    if not (records / RETINA / "tiny").is_dir():
        pytest.skip(f"needs the record that the live proof of {RETINA} freezes: run the whole file")
    wanted = ("--stage", "predict", "--mode", "isolated", "--dtype", "fp32")
    status, out, _ = parity_command("check", RETINA, "--fixtures", records, *wanted)
    assert status == 0
    assert [words(line) for line in shown("A tie")] == [
        words(line.strip()) for line in out.splitlines() if line.strip()
    ]


def test_the_difference_that_is_lifted_is_real(mmdet2: str, records: Path) -> None:
    folder = records / RETINA / "tiny"
    if not folder.is_dir():
        pytest.skip(f"needs the record that the live proof of {RETINA} freezes: run the whole file")
    as_shipped = replace(find_case(RETINA), options={}, deviations=())
    checker = Checker(as_shipped)
    session, _ = checker._session("fp64")
    session.load(RETINA, "fp64", as_shipped=True)
    results = list(checker.check(Record(folder), mode="isolated", dtype="fp64"))
    assert [result.stage for result in results if not result.verdict.passes] == ["predict"]


def test_the_difference_that_is_lifted_has_to_show_and_does(mmdet2: str, records: Path) -> None:
    folder = records / RETINA / "tiny"
    if not folder.is_dir():
        pytest.skip(f"needs the record that the live proof of {RETINA} freezes: run the whole file")
    checker = Checker(find_case(RETINA))
    (found,) = checker.check(Record(folder), mode="isolated", dtype="fp64", stages=["predict"])
    assert found.verdict.passes
    assert set(map(str, find_case(RETINA).deviations)) <= checker.shown
    # An engine that keeps those boxes as it is shipped: the option lifts nothing.
    checker = Checker(find_case(RETINA))
    checker._as_shipped.case = find_case(RETINA)
    shipped = checker._as_shipped._session = Session("mmdet3")
    checker._as_shipped._names = shipped.load(RETINA, "fp64")
    (found,) = checker.check(Record(folder), mode="isolated", dtype="fp64", stages=["predict"])
    assert [tensor.name for tensor in found.tensors if not tensor.verdict.passes] == ["stale deviation of predict"]


def _without_activation(model: Any) -> None:
    model.bbox_head.cls_convs[2].activate = nn.Identity()


def _other_eps(model: Any) -> None:
    model.backbone.layer2[1].bn1.eps = 1e-3


def _other_upsampling(model: Any) -> None:
    model.neck.upsample_cfg = {"mode": "bilinear"}


@pytest.fixture(scope="module")
def legacy(mmdet2: str) -> Iterator[RemoteSession]:
    with RemoteSession("mmdet2", python=mmdet2, root="") as session:
        yield session


@pytest.mark.parametrize(
    ("stage", "plant", "line"),
    [
        ("backbone", _other_eps, "first difference: backbone.layer2.1.bn1, call 0: the same went in, something else"),
        ("neck", _other_upsampling, "first difference: in the stage's own code, outside of any module"),
        ("bbox_head", _without_activation, "first difference: bbox_head.cls_convs.2.activate, call 0: the same went"),
    ],
)
def test_locate_names_the_module_of_a_planted_bug(
    stage: str, plant: Callable[[Any], None], line: str, legacy: RemoteSession
) -> None:
    case = find_case(RETINA)
    known = reference(case, case.records["tiny"], stage, legacy)
    assert list(told(located(known)))[1] == "no module differs, and neither does what the stage gives"
    assert list(told(located(known, altered=plant)))[1].startswith(line)
