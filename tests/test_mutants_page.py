"""The page of outcomes, the usual ways to judge, and benign changes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from parity.cases.base import Case
from parity.cases.registry import all_cases, find_case
from parity.errors import ParityError
from parity.mutants import practice, quiet
from parity.mutants.bench import Bench, Catch
from parity.mutants.benign import BENIGN, Benign
from parity.mutants.command import up_to_date
from parity.mutants.effects import CUDA_ALONE, Operators, Watched, difference, effects, settings
from parity.mutants.outcomes import MutationReport, Outcome, read_quiet, to_json
from parity.mutants.page import page
from parity.mutants.plant import set_attribute, together
from parity.mutants.practice import BOXES, LOGITS, Judges, Practice, StoredOutputs, judged
from parity.mutants.survivors import EXPLAINED
from parity.records.kinds import INFERENCE
from parity.records.layout import StoredTensors
from parity.records.locate import default_fixtures, find_records
from parity.records.store import Record

Command = Callable[..., tuple[int, str, str]]
FCN = "ddq_fcn_r50_36e"
CLEAN = Practice(close=False, slices=True, ap=80.0, moved=0.0)
CATCH = Catch("tiny", "isolated", "fp64", "neck", "p3: diverged")


def image(boxes: list[list[float]], scores: list[float], labels: list[int]) -> dict[str, torch.Tensor]:
    return {"boxes": torch.tensor(boxes), "scores": torch.tensor(scores), "labels": torch.tensor(labels)}


def outcome(**changes: Any) -> Outcome:
    found = {"mutant": "m", "case": FCN, "stage": "neck", "why": "because", "catch": CATCH, "practice": CLEAN}
    return Outcome(**{**found, **changes})


ONE = image([[0, 0, 10, 10]], [0.9], [3])


def test_ap_of_what_is_wanted_is_full_and_of_another_class_none() -> None:
    assert practice.average_precision([ONE], [ONE]) == pytest.approx(100.0)
    assert practice.average_precision([{**ONE, "labels": torch.tensor([4])}], [ONE]) == pytest.approx(0.0)


def test_a_box_is_as_far_as_the_nearest_of_its_class() -> None:
    moved = image([[0, 0, 10, 10.5], [90, 90, 99, 99]], [0.9, 0.1], [3, 5])
    assert practice.moved(ONE, ONE) == 0.0
    assert practice.moved(ONE, moved) == math.inf  # nothing of class 5 before
    assert practice.moved(ONE, image([[0, 0, 10, 10.5]], [0.9], [3])) == pytest.approx(0.5)


def test_the_order_of_detections_is_no_movement() -> None:
    first = image([[0, 0, 1, 1], [5, 5, 9, 9]], [0.9, 0.8], [1, 1])
    second = image([[5, 5, 9, 9], [0, 0, 1, 1]], [0.9, 0.8], [1, 1])
    assert practice.moved(first, second) == 0.0


def test_the_usual_judges_tell_a_gross_bug_from_none() -> None:
    bench = Bench(find_case(FCN), default_fixtures(), smallest=1)
    judges = Judges(bench.checker, bench.records)
    assert judges.clean.slices
    assert judges.clean.moved == 0.0
    assert judges.clean.ap > 10.0
    with set_attribute("data_preprocessor", "_channel_conversion", False)():
        found = judges.judge(bench.checker)
    assert not found.slices
    assert found.moved > 0.1
    with set_attribute("neck.0.lateral_convs.0.conv", "padding_mode", "nonsense")():
        assert judges.judge(bench.checker).crashed
    assert judges.judge(bench.checker) == judges.clean


def test_the_page_counts_what_was_caught_and_by_whom() -> None:
    close = Practice(close=False, slices=True, ap=80.0, moved=1e-3)
    far = Practice(close=False, slices=False, ap=70.0, moved=math.inf)
    misplaced = Catch("tiny", "cascade", "fp32", "backbone", "c5: diverged")
    outcomes = [
        outcome(practice=close),
        outcome(mutant="n", practice=far, catch=misplaced),
        outcome(mutant="o", catch=None, explained="it is | equivalent"),
    ]
    text = page(MutationReport({}, outcomes, {FCN: CLEAN}), [])
    assert "| caught | 2 of 3 (66.7 %) |" in text
    assert "| right stage named first | 1 of 2 (50.0 %) |" in text
    assert "| the harness | 2 of 3 (66.7 %) | 0 of 1 |" in text
    # It finds fault with the unchanged engine, so that its word on the others is worth nothing.
    assert "| assert_close on final outputs | 0 of 3 (0.0 %) | 1 of 1 |" in text
    assert "| slices at 1e-4 | 1 of 3 (33.3 %) | 0 of 1 |" in text
    assert "| AP within 0.02 | 1 of 3 (33.3 %) | 0 of 1 |" in text
    assert "| that move no final box by 0.1 px | 2 |" in text
    assert "| that leave AP as it is | 2 |" in text
    assert "it is \\| equivalent" in text
    assert "another box" in text


def test_the_page_names_every_alarm() -> None:
    changes = [
        quiet.Quiet("threads", FCN, "sums", None, ("tiny",)),
        quiet.Quiet("other", FCN, "sums", CATCH, ("tiny",)),
    ]
    text = page(MutationReport({}, []), changes)
    assert "| false alarms of benign changes | 1 of 2 (50.0 %) |" in text
    assert "ddq_fcn_r50_36e: neck isolated fp64: p3: diverged" in text


def test_the_command_makes_the_page_of_what_was_written(tmp_path: Path, parity_command: Command) -> None:
    report = MutationReport({"parity": "1"}, [outcome(mutant="preprocess-bgr")], {FCN: CLEAN})
    changes = [quiet.Quiet("threads", FCN, "sums", None, ("tiny",))]
    (tmp_path / "a.json").write_text(to_json(report, changes))
    assert read_quiet([tmp_path / "a.json"]) == changes
    status, out, _ = parity_command("mutate", "--read", tmp_path / "a.json", "--page", tmp_path / "page.md")
    assert status == 0
    assert "caught 1 of 1" in out
    assert "0 false alarms in 1 benign changes" in out
    assert (tmp_path / "page.md").read_text() == page(report, changes)


def test_outcomes_of_mutants_that_are_gone_do_not_count_and_survivors_are_explained() -> None:
    (mutant, case), reason = next(iter(EXPLAINED.items()))
    report = MutationReport({}, [outcome(), outcome(mutant=mutant, case=case, catch=None)])
    (kept,) = up_to_date(report).outcomes
    assert (kept.mutant, kept.explained) == (mutant, reason)


def test_a_page_that_cannot_be_written_is_told(tmp_path: Path, parity_command: Command) -> None:
    (tmp_path / "a.json").write_text(to_json(MutationReport({}, [outcome()])))
    status, _, err = parity_command("mutate", "--read", tmp_path / "a.json", "--page", tmp_path / "none" / "page.md")
    assert status == 2
    assert "--page" in err


def test_there_are_thirty_benign_changes_for_every_case() -> None:
    from parity.cases.registry import all_cases

    assert len({change.id for change in BENIGN}) == len(BENIGN)
    for case in all_cases():
        assert sum(change.concerns(case) for change in BENIGN) >= 30


def test_a_benign_change_is_quiet_and_a_bug_is_not() -> None:
    bench = Bench(find_case(FCN), default_fixtures(), smallest=1)
    folded = next(change for change in BENIGN if change.id == "batch-norm-scale")
    bug = Benign("bug", set_attribute("backbone.bn1", "eps", 1e-3), "another eps", "it is none")
    elsewhere = Benign("elsewhere", together(), "nothing", "another case's", ("swin",))
    found = list(quiet.try_changes(bench, [folded, bug, elsewhere]))
    assert [change.change for change in found] == ["batch-norm-scale", "bug"]
    assert all(change.counts for change in found)
    assert found[0].alarm is None
    assert "other operators" in str(found[0].effect)
    assert found[1].alarm is not None
    assert found[1].alarm.stage == "backbone"


def refused(*_: object, **__: object) -> Any:
    raise ParityError("it goes no further")


@pytest.mark.parametrize("where", ["parity.mutants.effects.watch", "parity.mutants.quiet.first_divergence"])
def test_a_change_that_ends_a_run_is_an_alarm_and_the_next_one_follows(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    @contextmanager
    def ends() -> Iterator[None]:
        with monkeypatch.context() as patched, set_attribute("backbone.bn1", "eps", 1e-3)():
            patched.setattr(where, refused)
            yield

    bench = Bench(find_case(FCN), default_fixtures(), smallest=1)
    folded = next(change for change in BENIGN if change.id == "batch-norm-scale")
    found = list(quiet.try_changes(bench, [Benign("ends", ends, "all", "none"), folded]))
    assert [change.change for change in found] == ["ends", "batch-norm-scale"]
    assert found[0].counts
    assert found[0].alarm is not None
    assert found[0].alarm.how == "it cannot be checked: it goes no further"
    assert found[1].alarm is None


WITHOUT_EFFECT = (
    *("autocast-off", "tf32-allowed", "fast-path-off"),
    *("no-garbage-collection", "random-seed", "train-and-back"),
)
SEEN = {
    "deterministic": "setting deterministic_algorithms: warn for False",
    "flush-denormals": "setting flush_denormal: True for False",
    "inference-mode": "setting inference_mode: True for False",
    "onednn-deterministic": "setting onednn_deterministic: True for False",
    "copied": "another state of the model's parameters",
    "frozen": "another state of the model's parameters",
    "channels-last-weights": "tensors laid out otherwise",
    "hooks": "another state of the model's modules",
    "not-in-place": "other operators: ",
    "run-twice": "other operators: ",
}


def test_a_change_that_changes_nothing_where_it_runs_does_not_count() -> None:
    bench = Bench(find_case(FCN), default_fixtures(), smallest=1)
    nothing = Benign("nothing", together(), "nothing", "nothing is changed")
    wanted = [change for change in BENIGN if change.id in (*WITHOUT_EFFECT, *SEEN)]
    # Its linear layers: there are none in this case. After a change that leaves the weights in another place.
    linear = next(change for change in BENIGN if change.id == "linear-matmul")
    found = {change.id: seen for change, seen in effects(bench, [*wanted, nothing, linear])}
    assert {name for name, seen in found.items() if not seen} == {*WITHOUT_EFFECT, "nothing", "linear-matmul"}
    for name, words in SEEN.items():
        assert words in found[name]
    assert "setting onednn:" not in found["onednn-deterministic"]


def test_a_setting_of_cuda_is_none_of_a_cpu() -> None:
    assert not set(CUDA_ALONE) & settings("cpu").keys()
    assert set(CUDA_ALONE) <= settings("cuda").keys()


@pytest.mark.parametrize(("best_first", "same"), [(True, True), (False, False)])
def test_a_switch_of_an_operator_is_seen(best_first: bool, same: bool) -> None:
    runs = []
    for ordered in (True, best_first):
        runs.append(Watched())
        with Operators(runs[-1]):
            torch.arange(5.0).topk(2, sorted=ordered)
    assert (difference(runs[1], runs[0]) == "") is same


def test_what_is_not_repeatable_is_no_evidence() -> None:
    clean = Watched({"threads": 1}, bits={"p3": "a"})
    assert difference(Watched({"threads": 1}, operators=["aten.relu"], bits={"p3": "a", "p4": "b"}), clean) == ""
    moved = Watched({"threads": 2}, bits={"p3": "b"})
    assert difference(moved, clean) == "setting threads: 2 for 1; bits of 1 of 1 tensors"


def test_a_change_without_effect_is_neither_counted_nor_checked(tmp_path: Path, parity_command: Command) -> None:
    idle = quiet.Quiet("tf32-allowed", FCN, "only CUDA reads it", None, (), "", "TF32 allowed")
    changes = [quiet.Quiet("threads-2", FCN, "sums", None, ("tiny",), "setting threads: 2 for 1", "two threads"), idle]
    text = page(MutationReport({}, []), changes)
    assert "| false alarms of benign changes | 0 of 1 (0.0 %) |" in text
    assert "| benign changes without effect here, not counted | 1 |" in text
    (row,) = [line for line in text.splitlines() if line.startswith("| `tf32-allowed`")]
    assert row.endswith("| without effect here | 0 of 1 |  |")
    (tmp_path / "a.json").write_text(to_json(MutationReport({}, []), changes))
    assert read_quiet([tmp_path / "a.json"]) == changes
    out = parity_command("mutate", "--read", tmp_path / "a.json", "--page", tmp_path / "page.md")[1]
    assert "0 false alarms in 1 benign changes" in out
    assert f"without effect here, not counted: tf32-allowed in {FCN}" in out


def test_benign_changes_of_an_earlier_version_are_read_and_count(tmp_path: Path) -> None:
    plain = {"change": "threads-1", "case": FCN, "why": "sums", "alarm": None, "records": ["tiny"]}
    (tmp_path / "a.json").write_text(json.dumps({"benign": [plain]}))
    (found,) = read_quiet([tmp_path / "a.json"])
    assert found == quiet.Quiet("threads-1", FCN, "sums", None, ("tiny",))
    assert found.counts


def test_each_benign_change_says_what_it_changes_and_why_nothing_may_follow() -> None:
    assert all(change.changes and change.why for change in BENIGN)


def test_an_unknown_benign_change_is_refused() -> None:
    with pytest.raises(ParityError, match="--mutant thread: no such benign change"):
        quiet.chosen(BENIGN, "thread")


RECORDED = [case for case in all_cases().values() if find_records(default_fixtures(), case=case.id)]


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: case.id)
def test_people_judge_by_the_records_that_hold_all_they_look_at(case: Case) -> None:
    records = [Record(folder) for folder in find_records(default_fixtures(), case=case.id)]
    inference = [record for record in records if record.kind == INFERENCE]
    names = {record.id for record in judged(inference, case)}
    assert {"limits", "odd-images"} <= {record.id for record in inference} - names
    assert "tiny" in names or "padded" in names
    for record in inference:
        held = StoredOutputs(StoredTensors(record))
        whole = any(name in held for name in LOGITS) and any(name in held for name in BOXES) and "boxes[0]" in held
        assert whole == (record.id in names)
