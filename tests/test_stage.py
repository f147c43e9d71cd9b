"""Judging a stage against a record: each way of being wrong has its own verdict, at its own tensor."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from parity.cases.base import Case
from parity.cases.common import SQUARE_PADDING
from parity.check import Checker
from parity.compare.closer import places_of
from parity.compare.decisions import iou_with_slack
from parity.compare.stage import compare_decisions, compare_tensors
from parity.compare.swaps import frame_of, image_of, picture_of
from parity.compare.verdicts import Verdict
from parity.engines.base import Run
from parity.errors import ParityError
from parity.records.layout import StoredTensors
from parity.records.locate import default_fixtures
from parity.records.store import Entry, Record
from parity.report.results import DecisionResult, StageResult, TensorResult
from parity.taps.decisions import Decision

NECK = ("p3", "p4", "p5", "p6")


@pytest.fixture
def stored(record: Record) -> StoredTensors:
    return StoredTensors(record)


@pytest.fixture
def neck(stored: StoredTensors) -> Run:
    """Return what a new engine without any error gives as the neck's output."""
    return Run({name: stored[f"neck/{name}"].clone() for name in NECK}, produced={"neck": NECK})


def judged(run: Run, stored: StoredTensors, case: Case, *, dtype: str = "fp64") -> dict[str, TensorResult]:
    found = compare_tensors(run, stored, case, stage="neck", mode="isolated", dtype=dtype)
    return {result.name: result for result in found}


def verdicts(results: Iterable[TensorResult]) -> dict[str, str]:
    return {result.name: result.verdict.value for result in results if not result.verdict.passes}


def test_the_truth_itself_is_equal(neck: Run, stored: StoredTensors, case: Case) -> None:
    results = judged(neck, stored, case)
    assert set(results) == set(NECK)
    assert {result.verdict for result in results.values()} == {Verdict.EQUAL}


def test_an_error_below_the_budget_passes(neck: Run, stored: StoredTensors, case: Case) -> None:
    neck.tensors["p4"] *= 1 + 1e-14
    result = judged(neck, stored, case)["p4"]
    assert result.verdict is Verdict.WITHIN_BUDGET
    assert 0.0 < result.minimum_budget < result.budget


def test_a_tensor_that_is_altered_diverges_there(neck: Run, stored: StoredTensors, case: Case) -> None:
    neck.tensors["p4"][1, 2, 3, 4] += 1e-6
    results = judged(neck, stored, case)
    assert verdicts(results.values()) == {"p4": "diverged"}
    found = results["p4"]
    assert (found.worst_index, found.over, found.count) == ((1, 2, 3, 4), 1, 2 * 256 * 8 * 10)
    assert found.minimum_budget > found.budget
    assert found.actual is not None
    assert found.expected is not None
    assert found.actual - found.expected == pytest.approx(1e-6, rel=1e-6)


def test_many_small_errors_exhaust_the_rms_budget(neck: Run, stored: StoredTensors, case: Case) -> None:
    """Each alone lies within the greatest error that is allowed; all together they are a bias."""
    entry = stored.record.entries["neck/p4"]
    neck.tensors["p4"] += 1.5 * 9000 * 2.0**-53 * entry.rms
    found = judged(neck, stored, case)["p4"]
    assert found.over == 0
    assert found.verdict is Verdict.DIVERGED


def squares(sides: Sequence[int]) -> Run:
    return Run({"img_shape": torch.tensor([[side, side] for side in sides])}, produced={"preprocess": ("img_shape",)})


@pytest.mark.parametrize(("sides", "verdict"), [((160, 150), "equal"), ((160, 160), "diverged")])
def test_padding_to_a_square_is_a_known_deviation_where_it_is_just_that(
    sides: tuple[int, int], verdict: str, stored: StoredTensors, case: Case
) -> None:
    run = squares(sides)
    for deviations, wanted in (((SQUARE_PADDING,), verdict), ((), "diverged")):
        declared = replace(case, deviations=deviations)
        found = compare_tensors(run, stored, declared, stage="preprocess", mode="isolated", dtype="fp64")
        assert {result.name: result.verdict.value for result in found}["img_shape"] == wanted


def test_a_wrong_dtype_is_told_before_values(neck: Run, stored: StoredTensors, case: Case) -> None:
    neck.tensors["p4"] = neck.tensors["p4"].float() + 9.0
    found = judged(neck, stored, case)["p4"]
    assert found.verdict is Verdict.DTYPE
    assert found.note == "dtype torch.float32, expected torch.float64"


def test_a_float32_run_has_to_be_float32(neck: Run, stored: StoredTensors, case: Case) -> None:
    neck.tensors = {name: tensor.float() for name, tensor in neck.tensors.items()}
    assert verdicts(judged(neck, stored, case, dtype="fp32").values()) == {}
    neck.tensors["p5"] = neck.tensors["p5"].double()
    assert verdicts(judged(neck, stored, case, dtype="fp32").values()) == {"p5": "dtype"}


def test_a_wrong_shape_is_told_before_the_dtype(neck: Run, stored: StoredTensors, case: Case) -> None:
    neck.tensors["p4"] = neck.tensors["p4"].float()[:1]
    found = judged(neck, stored, case)["p4"]
    assert found.verdict is Verdict.SHAPE
    assert found.note == "shape (1, 256, 8, 10), expected (2, 256, 8, 10)"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_told_with_its_place(
    neck: Run, stored: StoredTensors, case: Case, value: float
) -> None:
    neck.tensors["p4"][0, 1, 2, 3] = value
    found = judged(neck, stored, case)["p4"]
    assert (found.verdict, found.worst_index) == (Verdict.NONFINITE, (0, 1, 2, 3))


def test_a_missing_tensor_is_a_failure(neck: Run, stored: StoredTensors, case: Case) -> None:
    del neck.tensors["p4"]
    found = judged(neck, stored, case)["p4"]
    assert (found.verdict, found.note) == (Verdict.MISSING, "the new engine gave no such tensor")


def test_an_extra_tensor_is_a_failure(neck: Run, stored: StoredTensors, case: Case) -> None:
    neck.tensors["p7"] = torch.zeros(2)
    neck.produced["neck"] = (*NECK, "p7")
    assert verdicts(judged(neck, stored, case).values()) == {"p7": "extra"}


def test_an_index_that_is_off_by_one_diverges(stored: StoredTensors, case: Case) -> None:
    shape = stored["preprocess/img_shape"].clone()
    shape[0, 0] += 1
    run = Run({"img_shape": shape}, produced={"preprocess": ("img_shape",)})
    results = compare_tensors(run, stored, case, stage="preprocess", mode="cascade", dtype="fp32")
    found = next(result for result in results if result.name == "img_shape")
    assert (found.verdict, found.budget, found.max_abs) == (Verdict.DIVERGED, 0.0, 1.0)


def test_a_record_that_holds_nothing_of_a_stage_is_a_failure(stored: StoredTensors, case: Case) -> None:
    assert compare_tensors(Run({}), stored, case, stage="no_stage", mode="cascade", dtype="fp64") == ()
    result = StageResult(case.id, "padded", "no_stage", "cascade", "fp64", "cpu", 0.0, ())
    assert result.verdict is Verdict.MISSING


def masks(folder: Path, case: Case) -> TensorResult:
    results = compare_tensors(
        Run({}), StoredTensors(Record(folder)), case, stage="encoder", mode="cascade", dtype="fp64"
    )
    return next(result for result in results if result.name == "mask")


def test_an_absent_mask_is_a_known_deviation_where_nothing_is_masked(case: Case) -> None:
    found = masks(default_fixtures() / case.id / "unpadded", case)
    assert found.verdict is Verdict.EQUAL
    assert "mmdet 3.3 passes no mask at all" in found.deviation
    assert "https://github.com/open-mmlab/mmdetection/issues/10910" in found.deviation
    assert found.note == ""


def test_an_absent_mask_is_missing_where_something_is_masked(record_folder: Path, case: Case) -> None:
    assert masks(record_folder, case).verdict is Verdict.MISSING


def test_an_absent_mask_is_missing_where_no_deviation_is_declared(case: Case) -> None:
    plain = replace(case, deviations=())
    assert masks(default_fixtures() / case.id / "unpadded", plain).verdict is Verdict.MISSING


# Decisions

NMS = "decoder.nms.0"


@pytest.fixture
def choice(stored: StoredTensors) -> Decision:
    """Return the truth's own NMS as a new engine without any error makes it."""
    described = stored.record.manifest["decisions"][NMS]
    parts: dict[str, Tensor] = {part: stored[f"{NMS}/{part}"].clone() for part in ("scores", "chosen", "boxes")}
    return Decision("nms", settings=dict(described["settings"]), **parts)


def judge_nms(decision: Decision | None, stored: StoredTensors, case: Case, *, dtype: str = "fp64") -> DecisionResult:
    run = Run({}, decisions={} if decision is None else {NMS: decision})
    results = compare_decisions(run, stored, case, stage="decoder", mode="isolated", dtype=dtype)
    return next(result for result in results if result.name == NMS)


def test_the_truths_choice_is_equal(choice: Decision, stored: StoredTensors, case: Case) -> None:
    found = judge_nms(choice, stored, case)
    assert (found.verdict, found.flips, found.count) == (Verdict.EQUAL, 0, len(choice.chosen))
    assert "cliff: row 0 of the mask is read" in found.note


def test_a_choice_without_its_best_box_diverges(choice: Decision, stored: StoredTensors, case: Case) -> None:
    choice.chosen = choice.chosen[1:]
    found = judge_nms(choice, stored, case, dtype="fp32")
    assert found.verdict is Verdict.DIVERGED
    assert found.uncertified > 0


def test_a_choice_that_keeps_what_is_suppressed_diverges(choice: Decision, stored: StoredTensors, case: Case) -> None:
    assert choice.boxes is not None
    overlap, _ = iou_with_slack(choice.boxes[choice.chosen], choice.boxes, 0.0)
    overlap[:, choice.chosen] = 0.0
    choice.chosen = torch.cat([choice.chosen, overlap.max(0).values.argmax()[None]])
    assert judge_nms(choice, stored, case, dtype="fp32").verdict is Verdict.DIVERGED


def test_a_choice_of_nothing_diverges(choice: Decision, stored: StoredTensors, case: Case) -> None:
    choice.chosen = choice.chosen[:0]
    assert judge_nms(choice, stored, case).verdict is Verdict.DIVERGED


def test_a_decision_that_was_not_made_is_missing(stored: StoredTensors, case: Case) -> None:
    found = judge_nms(None, stored, case)
    assert (found.verdict, found.note) == (Verdict.MISSING, "the new engine made no such decision")


def test_a_decision_too_many_is_a_failure(choice: Decision, stored: StoredTensors, case: Case) -> None:
    run = Run({}, decisions={"decoder.nms.99": choice, "predict.nms.0": choice})
    results = compare_decisions(run, stored, case, stage="decoder", mode="isolated", dtype="fp64")
    assert [result.name for result in results if result.verdict is Verdict.EXTRA] == ["decoder.nms.99"]


def test_a_decision_of_other_settings_is_told(choice: Decision, stored: StoredTensors, case: Case) -> None:
    choice.settings = {"iou_threshold": 0.7}
    found = judge_nms(choice, stored, case)
    assert found.verdict is Verdict.SHAPE
    assert found.note == "other settings: iou_threshold 0.7, expected 0.8"


ALL_SETTINGS = {
    **{"iou_threshold": 0.8, "score_threshold": 0.0, "max_num": -1.0, "offset": 0.0},
    **{"split_thr": 10000.0, "class_agnostic": 0.0},
}


@pytest.mark.parametrize("changed", [*ALL_SETTINGS, "a_setting_of_its_own"])
def test_each_setting_of_a_suppression_is_compared(
    choice: Decision, stored: StoredTensors, case: Case, changed: str
) -> None:
    stored.record.manifest["decisions"][NMS]["settings"] = dict(ALL_SETTINGS)
    choice.settings = dict(ALL_SETTINGS)
    assert judge_nms(choice, stored, case).verdict is Verdict.EQUAL
    choice.settings[changed] = 7.0
    found = judge_nms(choice, stored, case)
    expected = f"{ALL_SETTINGS[changed]:g}" if changed in ALL_SETTINGS else "not set"
    assert (found.verdict, found.note) == (Verdict.SHAPE, f"other settings: {changed} 7, expected {expected}")


def test_an_early_record_is_read_by_the_one_setting_that_it_holds(
    choice: Decision, stored: StoredTensors, case: Case
) -> None:
    assert stored.record.manifest["decisions"][NMS]["settings"] == {"iou_threshold": 0.8}
    choice.settings = dict(ALL_SETTINGS)
    assert judge_nms(choice, stored, case).verdict is Verdict.EQUAL
    choice.settings["shifted"] = 1.0
    assert judge_nms(choice, stored, case).note == "other settings: shifted 1, expected not set"


def test_another_number_to_choose_from_is_told(choice: Decision, stored: StoredTensors, case: Case) -> None:
    choice.scores = choice.scores[:-1]
    found = judge_nms(choice, stored, case)
    assert (found.verdict, found.note) == (Verdict.SHAPE, "899 to choose from, expected 900")


@pytest.mark.parametrize(("legacy", "new", "passes"), [(1, 1, 1), (0, 0, 1), (0, 1, 1), (1, 0, 0)])
def test_an_order_that_the_legacy_engine_makes_has_to_be_made(
    choice: Decision, stored: StoredTensors, case: Case, legacy: int, new: int, passes: int
) -> None:
    stored.record.manifest["decisions"][NMS]["ordered"] = bool(legacy)
    choice.ordered = bool(new)
    found = judge_nms(choice, stored, case)
    assert found.verdict is (Verdict.EQUAL if passes else Verdict.SHAPE)
    assert passes or found.note == "the legacy engine sorts what it chooses, the new one does not"


def test_a_choice_that_could_not_be_forced_is_told(choice: Decision, stored: StoredTensors, case: Case) -> None:
    choice.refused = "the frozen choice picks index 899 of only 300"
    found = judge_nms(choice, stored, case)
    assert (found.verdict, found.note) == (Verdict.SHAPE, choice.refused)


# The whole check, with a truth that is altered in memory


@pytest.fixture(scope="module")
def checker(case: Case) -> Checker:
    return Checker(case)


def altered(record: Record, monkeypatch: pytest.MonkeyPatch, *keys: str) -> None:
    original = record.tensor

    def tensor(key: str) -> Tensor:
        value = original(key)
        return value + 0.5 if key in keys else value

    monkeypatch.setattr(record, "tensor", tensor)


def test_a_check_names_the_stages_whose_truth_is_altered(
    checker: Checker, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    altered(record, monkeypatch, "neck/p5", "preprocess/scale_factor")
    results = list(checker.check(record, mode="isolated", dtype="fp32", stages=["preprocess", "neck"]))
    assert [(result.stage, result.verdict.value) for result in results] == [
        ("preprocess", "diverged"),
        ("neck", "diverged"),
    ]
    assert [list(verdicts(result.tensors)) for result in results] == [["scale_factor"], ["p5"]]


def test_a_check_of_the_untouched_record_passes(checker: Checker, record: Record) -> None:
    (result,) = checker.check(record, mode="isolated", dtype="fp32", stages=["neck"])
    assert result.verdict.passes
    assert result.id == f"{record.case}-padded-neck-isolated-fp32-cpu"


def test_weights_that_come_out_different_are_refused(copied_record: Path, case: Case) -> None:
    path = copied_record / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["weights"]["seed"] += 1
    path.write_text(json.dumps(manifest))
    with pytest.raises(ParityError, match="the weights come out different from those it was frozen with"):
        list(Checker(case).check(Record(copied_record), mode="isolated", dtype="fp32", stages=["neck"]))


def test_a_record_without_an_input_is_refused(checker: Checker, record: Record) -> None:
    del record.entries["neck/p5"]
    with pytest.raises(ParityError, match="holds no p5, which stage encoder reads: freeze it again"):
        list(checker.check(record, mode="isolated", dtype="fp32", stages=["encoder"]))


def test_an_early_record_holds_no_thresholds_so_that_none_is_extra(
    neck: Run, stored: StoredTensors, case: Case
) -> None:
    from parity.taps.decisions import Decision

    neck.decisions["neck.threshold.0"] = Decision("threshold", torch.zeros(2), torch.zeros(0, dtype=torch.int64))

    def extra() -> list[str]:
        found = compare_decisions(neck, stored, case, stage="neck", mode="isolated", dtype="fp64")
        return [result.name for result in found if result.verdict.value == "extra"]

    assert extra() == []
    stored.record.manifest["thresholds"] = True
    assert extra() == ["neck.threshold.0"]


def test_what_fails_and_the_worst_that_passes_get_a_closer_look(neck: Run, stored: StoredTensors, case: Case) -> None:
    neck.tensors["p4"][1, 2, 3, 4] += 1e-6
    neck.tensors["p5"][0, 1, 2, 3] *= 1 + 1e-14
    neck.tensors["p6"][0, 0, 0, 0] *= 1 + 1e-15
    results = judged(neck, stored, case)
    assert {name for name, result in results.items() if result.detail} == {"p4", "p5"}
    found = results["p4"].detail
    assert found is not None
    assert [each.index for each in found.worst] == [(1, 2, 3, 4)]
    assert found.map is not None
    assert (found.map.rows, found.map.columns) == (64, 64)  # 256 channels, 8 x 10 places
    assert found.histogram.exact == results["p4"].count - 1


@pytest.mark.parametrize(("kind", "of_shape"), [("samples", (2, 900, 256)), ("projections", (2, 900, 256))])
def test_what_is_kept_of_a_large_tensor_knows_its_place_in_it(kind: str, of_shape: tuple[int, ...]) -> None:
    entry = Entry("x", "s", "output", kind, (), "f", (7200,), of_shape, "float64", "", "", "", 1.0, 1.0)
    places, shape = places_of(entry)
    assert places is not None
    assert shape == of_shape
    assert int(places.max()) < math.prod(of_shape)
    if kind == "projections":
        assert (int(places[0]), int(places[1]), len(places)) == (0, 64, 7200)


def test_images_take_turns_in_the_calls_of_a_decision(stored: StoredTensors) -> None:
    assert [image_of(f"decoder.nms.{number}", stored) for number in range(4)] == [0, 1, 0, 1]
    assert frame_of("decoder.nms.0", stored) == (160.0, 128.0)
    assert frame_of("decoder.nms.1", stored) == (150.0, 96.0)
    assert picture_of("decoder.nms.1", stored).startswith("data:image/jpeg;base64,")
    assert image_of("nothing.nms.x", stored) is None
    assert picture_of("nothing.nms.x", stored) == ""
