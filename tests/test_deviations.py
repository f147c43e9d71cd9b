"""Known deviations: what each explains, where it has to show, and that one which explains nothing fails its stage."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from parity.cases.base import Case, Deviation, Seen
from parity.cases.common import DEGENERATE_BOXES, SQUARE_PADDING
from parity.cases.deviations import KINDS, AbsentMask, DegenerateBoxes, Lifted, PaddedToSquare
from parity.cases.registry import all_cases, find_case
from parity.check import Checker
from parity.compare.known import without_effect
from parity.compare.stage import compare_tensors
from parity.compare.verdicts import Verdict
from parity.engines.base import Run
from parity.errors import ParityError
from parity.records.layout import StoredTensors
from parity.records.locate import default_fixtures, find_records
from parity.records.store import Record
from parity.report.messages import failure_message
from parity.report.results import StageResult, TensorResult

SAID = {"tensor": "mask", "reason": "no mask", "link": "https://example.org/1"}
Command = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_deviation_that_says_its_kind_in_words_is_of_that_class(kind: str) -> None:
    declared = Deviation(tensor="mask", kind=kind, reason="no mask", link="https://example.org/1")
    assert type(declared) is KINDS[kind]
    assert declared == KINDS[kind](**SAID) == Deviation("mask", kind, "no mask", "https://example.org/1")
    assert str(declared) == "no mask (https://example.org/1)"
    assert copy.deepcopy(declared) == pickle.loads(pickle.dumps(declared)) == declared
    assert replace(declared, tensor="other").tensor == "other"


def test_a_kind_that_there_is_not_is_refused_with_all_there_are() -> None:
    with pytest.raises(ParityError, match=r"^known deviation of kind 'no_such': there is no such kind; there are none"):
        Deviation(kind="no_such", **SAID)
    with pytest.raises(ParityError, match=r"^AbsentMask of mask: it is of kind none_if_all_false, not lifted$"):
        AbsentMask(kind="lifted", **SAID)


@pytest.mark.parametrize("missing", ["reason", "link"])
def test_a_deviation_without_reason_or_link_is_refused(missing: str) -> None:
    with pytest.raises(ParityError, match=r"^AbsentMask of mask: a known deviation has a reason and a link$"):
        AbsentMask(**{**SAID, missing: ""})


# Stale ones


def results_of(run: Run, folder: Path, case: Case, stage: str) -> dict[str, TensorResult]:
    found = compare_tensors(run, StoredTensors(Record(folder)), case, stage=stage, mode="cascade", dtype="fp64")
    return {result.name: result for result in found}


def truth_of(folder: Path, stage: str) -> Run:
    """Return what a new engine without any error gives, masks included."""
    record = Record(folder)
    keys = list(record.keys(stage=stage, role="output", mode="cascade"))
    whole = {record.entries[key].name: record.tensor(key) for key in keys if record.entries[key].kind == "whole"}
    return Run(whole, produced={stage: tuple(whole)})


def test_a_mask_that_the_new_engine_gives_after_all_fails_the_stage(case: Case) -> None:
    folder = default_fixtures() / case.id / "unpadded"
    results = results_of(truth_of(folder, "encoder"), folder, case, "encoder")
    assert results["mask"].verdict is Verdict.EQUAL
    assert results["stale deviation of mask"].verdict is Verdict.MISSING
    stage = StageResult(case.id, "unpadded", "encoder", "cascade", "fp64", "cpu", 0.0, tuple(results.values()))
    assert not stage.verdict.passes
    (line,) = [line for line in failure_message([stage], rerun="").splitlines() if "stale" in line]
    assert line == (
        "  stale deviation of mask (scalar): missing; the engines agree where they are declared to differ: remove it"
        " from the case (mmdet 3.3 passes no mask at all for a batch without padding"
        " (https://github.com/open-mmlab/mmdetection/issues/10910))"
    )


def test_a_mask_is_not_stale_where_something_is_masked(case: Case, record_folder: Path) -> None:
    results = results_of(truth_of(record_folder, "encoder"), record_folder, case, "encoder")
    assert results["mask"].verdict is Verdict.EQUAL
    assert results["mask"].deviation == ""
    assert not [name for name in results if name.startswith("stale")]


def test_a_deviation_that_is_not_declared_is_not_stale(case: Case) -> None:
    folder = default_fixtures() / case.id / "unpadded"
    results = results_of(truth_of(folder, "encoder"), folder, replace(case, deviations=()), "encoder")
    assert not [name for name in results if name.startswith("stale")]


def test_padding_that_changes_no_shape_any_more_fails_the_stage(case: Case, record_folder: Path) -> None:
    declared = replace(case, deviations=(SQUARE_PADDING,))
    results = results_of(truth_of(record_folder, "preprocess"), record_folder, declared, "preprocess")
    assert "mmcv 2's Pad overwrites img_shape" in results["stale deviation of img_shape"].note


def test_padding_of_square_images_alone_has_no_chance_to_show() -> None:
    seen = Seen("preprocess", "img_shape", expected=torch.tensor([[64, 64], [32, 32]]))
    assert not SQUARE_PADDING.concerns(seen)
    assert PaddedToSquare(**SAID).concerns(replace(seen, expected=torch.tensor([[64, 64], [32, 30]])))


@dataclass(frozen=True)
class Doubled(Deviation):
    """What a user's case file may define: twice the legacy engine's numbers."""

    factor: float = 2.0

    def concerns(self, seen: Seen) -> bool:
        return seen.largest > 0.0

    def explains(self, seen: Seen) -> bool:
        return bool((seen.actual - self.factor * seen.expected).abs().max() <= 1e-12 * seen.largest)


def test_a_kind_of_the_users_own_explains_and_goes_stale(case: Case, record_folder: Path) -> None:
    declared = replace(case, deviations=(Doubled("p4", "in other units", "a/file.py:3"),))
    run = truth_of(record_folder, "neck")
    assert (
        "remove it from the case (in other units (a/file.py:3))"
        in results_of(run, record_folder, declared, "neck")["stale deviation of p4"].note
    )
    run.tensors["p4"] = 2.0 * run.tensors["p4"]
    explained = results_of(run, record_folder, declared, "neck")
    assert (explained["p4"].verdict, explained["p4"].deviation) == (Verdict.EQUAL, "in other units (a/file.py:3)")
    assert all(result.verdict.passes for result in explained.values())
    run.tensors["p4"] = 1.5 * run.tensors["p4"]
    assert not results_of(run, record_folder, declared, "neck")["p4"].verdict.passes


# Those that are committed


def chances(case: Case, deviation: Deviation) -> Iterator[str]:
    """Yield the records of a case in which a deviation has to show, by what they hold."""
    for folder in find_records(default_fixtures(), case=case.id):
        stored = StoredTensors(Record(folder))
        for key, entry in stored.record.entries.items():
            if entry.role == "output" and deviation.matches(entry.stage, entry.name):
                seen = Seen(entry.stage, entry.name, None, stored[key], entry.of_shape, entry.max, Run({}), stored)
                if deviation.concerns(seen):
                    yield folder.name
                    break


COMMITTED = [(case.id, deviation) for case in all_cases().values() for deviation in case.deviations]


@pytest.mark.parametrize(("case_id", "deviation"), COMMITTED, ids=lambda value: getattr(value, "kind", value))
def test_each_has_a_committed_record_in_which_it_has_to_show(case_id: str, deviation: Deviation) -> None:
    """There the suite of the case fails as soon as it explains nothing any more."""
    case = find_case(case_id)
    if not find_records(default_fixtures(), case=case_id):
        assert isinstance(deviation, Lifted)  # no record of that case is committed: tests/test_stock_live.py
        return
    assert list(chances(case, deviation))


def test_the_new_engine_itself_gives_no_mask_for_a_batch_without_padding(case: Case) -> None:
    checker = Checker(case)
    record = Record(default_fixtures() / case.id / "tiny")
    (found,) = checker.check(record, mode="isolated", dtype="fp64", stages=["encoder"])
    assert found.verdict.passes
    assert [tensor.deviation for tensor in found.tensors if tensor.name == "mask"] == [str(case.deviations[0])]
    assert f"mask: known deviation: {case.deviations[0]}" in found.notes
    assert str(case.deviations[0]) in checker.shown


def test_a_deviation_of_a_stage_that_is_not_checked_shows_nothing(case: Case) -> None:
    checker = Checker(case)
    record = Record(default_fixtures() / case.id / "tiny")
    list(checker.check(record, mode="isolated", dtype="fp64", stages=["preprocess"]))
    (note,) = without_effect(case, checker.shown)
    assert note.startswith(f"note: {case.id}: no record that was checked shows the known deviation of mask: ")


def test_a_case_of_which_no_record_shows_its_deviation_says_so(
    case: Case, record_folder: Path, tmp_path: Path, parity_command: Command
) -> None:
    (tmp_path / case.id).mkdir()
    (tmp_path / case.id / "padded").symlink_to(record_folder)
    status, out, err = parity_command("check", case.id, "--fixtures", tmp_path)
    assert status == 0, err
    note = f"note: {case.id}: no record that was checked shows the known deviation of mask: {case.deviations[0]}"
    assert note in out.splitlines()
    out = parity_command("check", case.id, "--fixtures", tmp_path, "--stage", "preprocess")[1]
    assert "no record that was checked shows" not in out


# Lifted ones


def nms_of(*boxes: list[float]) -> Seen:
    class Truth(dict[str, torch.Tensor]):
        record: Any = type("Stub", (), {"manifest": {"decisions": {"predict.nms.0": {"stage": "predict"}}}})

    return Seen("predict", truth=Truth({"predict.nms.0/boxes": torch.tensor(boxes)}))


def test_boxes_without_area_have_to_show_where_the_nms_meets_one() -> None:
    assert not DEGENERATE_BOXES.concerns(nms_of([0.0, 0.0, 2.0, 2.0]))
    assert DEGENERATE_BOXES.concerns(nms_of([0.0, 0.0, 2.0, 2.0], [1.0, 3.0, 4.0, 3.0]))
    assert not DEGENERATE_BOXES.concerns(replace(nms_of([1.0, 3.0, 4.0, 3.0]), stage="neck"))


class Shipped:
    """Stands for the new engine without the case's options."""

    def __init__(self, differs: bool) -> None:
        self.answer = differs

    def differs(self, *_: Any, **__: Any) -> bool:
        return self.answer


class Known(DegenerateBoxes):
    """As if the truth had a box without area."""

    def concerns(self, seen: Seen) -> bool:
        return True


@pytest.mark.parametrize(
    ("kind", "differs", "passes"), [(Known, True, True), (Known, False, False), (DegenerateBoxes, False, True)]
)
def test_a_lifted_deviation_that_is_not_there_without_the_option_fails_its_stage(
    kind: type[Lifted], differs: bool, passes: bool, case: Case, record: Record
) -> None:
    lifted = kind("neck", reason="boxes without area", link="a/file.py:3")
    checker = Checker(replace(case, deviations=(lifted,)))
    checker._as_shipped = Shipped(differs)  # type: ignore[assignment]
    (found,) = checker.check(record, mode="isolated", dtype="fp64", stages=["neck"])
    assert found.verdict.passes is passes
    assert f"known deviation, lifted here: {lifted}" in found.notes
    assert [tensor.name for tensor in found.tensors if not tensor.verdict.passes] == (
        [] if passes else ["stale deviation of neck"]
    )
    assert (str(lifted) in checker.shown) is differs
