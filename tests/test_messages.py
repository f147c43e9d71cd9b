"""The messages, word for word."""

from __future__ import annotations

from typing import Any

from parity.compare.verdicts import Verdict
from parity.report.messages import SHOWN, failure_message, stage_line
from parity.report.results import DecisionResult, StageResult, TensorResult

DIVERGED = TensorResult(
    "p4",
    Verdict.DIVERGED,
    (2, 256, 8, 10),
    max_abs=0.5,
    rms=0.0025,
    rel_rms=0.0025,
    budget=8.0,
    minimum_budget=4e6,
    worst_index=(0, 1, 2, 3),
    count=40960,
    over=1,
    floor_max=1.25e-7,
    unit="activation",
    actual=1.5,
    expected=1.0,
)
EQUAL = TensorResult("p3", Verdict.EQUAL, (2, 256))


def stage(name: str = "neck", *tensors: TensorResult, **changed: Any) -> StageResult:
    return StageResult("a_case", "padded", name, "isolated", "fp32", "cpu", 0.1, tensors, **changed)


def message(*results: StageResult) -> str:
    return failure_message(results, rerun="parity check a_case --stage neck")


def test_the_whole_message_of_a_diverged_tensor() -> None:
    assert message(stage("neck", EQUAL, DIVERGED)) == "\n".join(
        [
            "stage 'neck' is not the same: diverged (a_case, record padded, isolated, fp32, cpu)",
            "  p4 (2x256x8x10, activation): diverged, 1 / 40960 elements over budget (0.00244%)",
            "    greatest error 0.5 at [0, 1, 2, 3], allowed 1e-06 (actual 1.5, expected 1)",
            "    RMS error 0.0025, 0.0025 of the truth's RMS; budget 8 x noise floor, would pass with 4e+06",
            "to reproduce: parity check a_case --stage neck",
        ]
    )


def test_the_first_diverging_stage_is_on_top_and_the_others_are_named() -> None:
    text = message(stage("backbone", EQUAL), stage("neck", DIVERGED), stage("encoder", DIVERGED))
    assert text.startswith("stage 'neck' is not the same")
    assert "first of 2 diverging stages: neck, encoder\n" in text
    assert "backbone" not in text


def test_nothing_compared_is_said_to_be_a_failure() -> None:
    assert message() == "nothing was compared: that is a failure"
    assert "stage 'neck' is not the same: missing" in message(stage())
    assert "  no tensor was compared\n" in message(stage())


def test_all_well_has_no_message() -> None:
    assert message(stage("neck", EQUAL)) == ""


def test_what_has_no_values_tells_its_note_alone() -> None:
    wrong = TensorResult("mask", Verdict.SHAPE, (2, 426), unit="bool", note="shape (1, 426), expected (2, 426)")
    gone = TensorResult("p6", Verdict.MISSING)
    text = message(stage("neck", wrong, gone))
    assert "  mask (2x426, bool): shape; shape (1, 426), expected (2, 426)\n" in text
    assert "  p6 (scalar): missing\n" in text


def test_a_long_list_of_tensors_is_cut_and_counted() -> None:
    many = [TensorResult(f"t{i}", Verdict.MISSING) for i in range(SHOWN + 3)]
    text = message(stage("neck", *many))
    assert text.count(": missing\n") == SHOWN
    assert "  … and 3 more tensors\n" in text


def test_a_flip_beyond_noise_tells_what_it_would_need() -> None:
    flip = DecisionResult(
        "nms", "decoder.nms.3", Verdict.DIVERGED, count=380, flips=4, uncertified=2, needed=0.01, noise=2e-6
    )
    text = message(stage("decoder", EQUAL, decisions=(flip,)))
    assert "  decision decoder.nms.3 (nms, 380 chosen): diverged, 4 flips, 2 of them beyond noise\n" in text
    assert "    needs a score tolerance of 0.01, noise is 2e-06\n" in text


def test_a_decision_that_is_missing_tells_why() -> None:
    gone = DecisionResult("topk", "predict.topk.0", Verdict.MISSING, count=300, note="no such decision")
    text = message(stage("predict", EQUAL, decisions=(gone,)))
    assert "  decision predict.topk.0 (topk, 300 chosen): missing; no such decision\n" in text


def test_notes_are_shown() -> None:
    assert "  note: float32 islands differ\n" in message(stage("neck", DIVERGED, notes=("float32 islands differ",)))


def test_the_line_of_a_stage_tells_how_much_of_the_budget_was_used() -> None:
    used = TensorResult("p5", Verdict.WITHIN_BUDGET, budget=8.0, minimum_budget=1.25)
    assert stage_line(stage("neck", EQUAL, used)) == (
        "within_budget neck             isolated fp32  budget used 1.25 of 8 (p5)"
    )


def test_the_line_of_an_exact_stage_says_so() -> None:
    assert stage_line(stage("neck", EQUAL)).endswith("isolated fp32  budget used exact")


def test_the_line_of_a_stage_counts_flips() -> None:
    tie = DecisionResult("nms", "n", Verdict.CERTIFIED, flips=3, certified=2)
    assert stage_line(stage("neck", EQUAL, decisions=(tie,))).endswith(", 3 flips, 2 certified")
