"""Planted bugs: how they are planted and taken back, what is refused, and that a check notices them."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from parity.cases.base import Case
from parity.cases.registry import find_case
from parity.errors import ParityError
from parity.mutants import Mutant
from parity.mutants.bench import Bench, Catch
from parity.mutants.edits import changed, constant, keyword, name, operator, recompiled, swapped_elements, without_call
from parity.mutants.families.training_mode import dropped
from parity.mutants.outcomes import MutationReport, Outcome, read_outcomes, to_json
from parity.mutants.plant import edited, output_of, result_of, set_attribute, swap, together, wrapped
from parity.mutants.registry import built_in, checked, chosen, from_file
from parity.mutants.selections import CI, select
from parity.records.kinds import INFERENCE, TRAINING
from parity.records.locate import default_fixtures

Command = Callable[..., tuple[int, str, str]]
FCN = "ddq_fcn_r50_36e"
KINDS = (INFERENCE, TRAINING)
THIS = "test_mutants"


class Base:
    def value(self) -> int:
        return 1


class Derived(Base):
    def value(self) -> int:
        return super().value() + 2

    @staticmethod
    def twice(x: int) -> int:
        return 2 * x


def ten() -> int:
    return 10


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench(find_case(FCN), default_fixtures(), smallest=1)


def outcome(**changes: Any) -> Outcome:
    return Outcome(**{"mutant": "m", "case": FCN, "stage": "neck", "why": "because", "catch": None, **changes})


def test_a_change_that_finds_no_place_is_refused() -> None:
    with pytest.raises(ParityError, match=r"source: 0 places with the constant 3, expected one"):
        changed("def f(x): return x + 1", constant(3, 4))


def test_a_change_that_finds_two_places_asks_which() -> None:
    with pytest.raises(ParityError, match=r"2 places with the operator \+, expected one; nth=... chooses"):
        changed("def f(x): return x + 1 + 2", operator("+", "-"))
    assert changed("def f(x): return x + 1 + 2", operator("+", "-", 0)).endswith("return x + 1 - 2")
    with pytest.raises(ParityError, match="only 2 places with the operator"):
        changed("def f(x): return x + 1 + 2", operator("+", "-", 2))


def test_changes_that_cancel_each_other_out_are_refused() -> None:
    with pytest.raises(ParityError, match="the changes cancel each other out"):
        recompiled(ten, (constant(10, 11), constant(11, 10)), "ten")  # type: ignore[arg-type]


def test_a_declared_type_is_no_place_for_a_change() -> None:
    changed_source = changed("def f(x) -> dict[str, int]:\n    return (x, 1)", swapped_elements(0, 1))
    assert changed_source == "def f(x) -> dict[str, int]:\n    return (1, x)"
    with pytest.raises(ParityError, match="0 places with a list or tuple"):
        changed("def f(x: dict[str, int]) -> None:\n    found: tuple[str, int] = x", swapped_elements(0, 1))


def test_a_literal_is_not_mistaken_for_an_equal_one_of_another_type() -> None:
    assert changed("def f(x): return x[1] * True", constant(1, 2)).endswith("return x[2] * True")


def test_a_function_is_left_away_as_method_and_as_function() -> None:
    source = "def f(self, x): return self.norm(x).exp() + torch.log(x)"
    edits = (without_call("norm"), without_call("exp"), without_call("log"))
    assert changed(source, *edits).endswith("return x + x")


def test_arguments_and_elements() -> None:
    assert changed("def f(x): return g(x)", keyword("g", "eps", 1e-3)).endswith("g(x, eps=0.001)")
    assert changed("def f(h, w): return [h, w]", swapped_elements(0, 1)).endswith("[w, h]")
    assert changed("def f(h, w): return h / h", name("h", "w", 1)).endswith("h / w")


def test_a_recompiled_method_still_finds_its_class() -> None:
    with edited(f"{THIS}:Derived.value", constant(2, 20))():
        assert Derived().value() == 21
    assert Derived().value() == 3


def test_a_static_method_stays_one() -> None:
    with edited(f"{THIS}:Derived.twice", constant(2, 3))():
        assert Derived.twice(5) == Derived().twice(5) == 15
    assert Derived.twice(5) == 10


def test_a_function_is_replaced_wherever_it_was_imported_to() -> None:
    from parity import check
    from parity.weights import conversion

    original = conversion.convert
    with wrapped("parity.weights.conversion:convert", lambda _: ten)():
        assert conversion.convert is ten  # type: ignore[comparison-overlap]
        assert check.convert is ten  # type: ignore[attr-defined]
    assert conversion.convert is check.convert is original  # type: ignore[attr-defined]


def test_what_is_imported_while_a_bug_is_planted_does_not_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that is first imported inside of the block takes the changed function by name."""
    from parity.weights import conversion

    original, late = conversion.convert, ModuleType("parity.imported_late")
    with wrapped("parity.weights.conversion:convert", lambda _: ten)():
        monkeypatch.setitem(sys.modules, late.__name__, late)
        exec("from parity.weights.conversion import convert", vars(late))
        assert late.convert is ten
    assert late.convert is original
    assert conversion.convert is original


def test_a_bug_is_taken_back_after_an_error() -> None:
    with pytest.raises(ValueError, match="in the block"), edited(f"{THIS}:Derived.value", constant(2, 20))():
        raise ValueError("in the block")
    assert Derived().value() == 3


def test_several_bugs_need_a_new_detector_if_one_does() -> None:
    assert not together(set_attribute("*", "eps", 0.0)).rebuild
    assert together(set_attribute("*", "eps", 0.0), lambda: None).rebuild  # type: ignore[arg-type, return-value]


def test_every_built_in_mutant_can_be_planted_and_taken_back() -> None:
    """Whether its changes fit the engine's source; what it does to a model is measured elsewhere."""
    for mutant in built_in():
        with mutant.apply():
            pass


def test_there_are_mutants_of_every_case_and_stage() -> None:
    from parity.cases.registry import all_cases

    mutants = built_in()
    assert len(mutants) >= 150
    for case in all_cases().values():
        mine = [mutant for mutant in mutants if mutant.concerns(case.id)]
        if case.id.startswith("ddq_") and case.stages:
            assert {"preprocess", "neck", "predict"} & {mutant.stage for mutant in mine}
    stages = {stage for case in all_cases().values() if case.id.startswith("ddq_") for stage in case.stage_names()}
    assert stages <= {mutant.stage for mutant in mutants}


def test_the_selection_of_ci_holds_thirty_different_mutants() -> None:
    assert len(set(CI)) == 30
    assert [mutant.id for mutant in select(built_in(), "ci")] == list(CI)


def test_an_unknown_selection_is_refused() -> None:
    with pytest.raises(ParityError, match="--select cl: there is ci"):
        select(built_in(), "cl")
    with pytest.raises(ParityError, match="--select ci names preprocess-bgr, which is not among these"):
        select(built_in()[:0], "ci")


def test_an_unknown_mutant_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ParityError, match=r"--mutant dense-cornrs: no such mutant: did you mean 'dense-corners'\?"):
        chosen(built_in(), "dense-cornrs")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("MUTANTS = []", "declares no MUTANTS"),
        ("", "declares no MUTANTS"),
        ("MUTANTS = [1]", "1 is no parity.mutants.Mutant"),
        ("1 / 0", "ZeroDivisionError"),
        ("import nothing_of_that_name", "ModuleNotFoundError"),
    ],
)
def test_a_file_that_declares_no_mutants_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(content)
    with pytest.raises(ParityError, match=message):
        from_file(tmp_path / "mine.py")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"none.py: FileNotFoundError"):
        from_file(tmp_path / "none.py")
    with pytest.raises(ParityError, match="not a Python file"):
        from_file(tmp_path / "mine.txt")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cases": ("nobody",)}, "mutant m concerns no case: nobody"),
        ({"stage": "nek"}, r"ddq_fcn_r50_36e has no stage 'nek': did you mean 'neck'\?"),
        ({"stage": "rpn_head", "cases": ("ddq_*", FCN)}, "ddq_fcn_r50_36e has no stage 'rpn_head'"),
    ],
)
def test_a_mutant_of_no_case_or_stage_is_refused(changes: dict[str, Any], message: str) -> None:
    mutant = Mutant(**{"id": "m", "stage": "neck", "cases": (FCN,), "apply": together(), "why": "", **changes})
    with pytest.raises(ParityError, match=message):
        checked([mutant], "here")


def test_a_pattern_of_cases_may_match_one_that_lacks_the_stage() -> None:
    mutant = Mutant(id="decoder-eps", stage="decoder", cases=("ddq_detr_*",), apply=together(), why="")
    assert checked([mutant], "here") == (mutant,)
    assert mutant.concerns("ddq_detr_small")
    assert "decoder" not in find_case("ddq_detr_small").all_stage_names()


def test_two_mutants_of_one_id_are_refused() -> None:
    mutant = Mutant("m", "neck", (FCN,), together(), "")
    with pytest.raises(ParityError, match="two mutants have the id 'm'"):
        checked([mutant, mutant], "here")


@pytest.mark.parametrize(
    ("plant", "stage", "how"),
    [
        (set_attribute("backbone.layer4.2.bn3", "eps", 1.1e-5), "backbone", "c5.*: diverged"),
        (swap("bbox_head.scales.0.scale", "bbox_head.scales.1.scale"), "fcn_head", "distances.*: diverged"),
        (
            result_of("parity.ports.queries:_survivors", lambda keep: keep[1:]),
            "query_selection",
            "query_boxes.*: shape",
        ),
        (result_of("parity.ports.fcn_head:DDQFCNHead._best_pairs", lambda _: 1 / 0), "predict", "ZeroDivisionError"),
        (output_of("neck.0.lateral_convs.0", dropped), "neck", "draw.unrecorded.neck.torch: extra"),
    ],
)
def test_a_bug_is_caught_in_the_stage_that_holds_it(bench: Bench, plant: Any, stage: str, how: str) -> None:
    with plant():
        catch = bench.judge(bench.checker)
    assert catch is not None
    assert (catch.stage, catch.mode, catch.dtype) == (stage, "isolated", "fp64")
    assert re.match(how, catch.how)


def test_a_bug_of_training_in_a_stage_of_inference_is_looked_for_in_records_of_training() -> None:
    whole = Bench(find_case(FCN), default_fixtures())
    names = {kind: {record.id for record in whole.records_with("backbone", kind)} for kind in ("", *KINDS)}
    assert names[""] == names[INFERENCE] == {"tiny", "photos", "limits"}
    assert {name.split("-")[0] for name in names[TRAINING]} == {"train"}
    assert not whole.shows("predict", TRAINING)
    with pytest.raises(ParityError, match="no record of training with the stage predict"):
        whole.records_with("predict", TRAINING)


def test_a_kind_that_there_is_not_is_refused() -> None:
    mutant = Mutant("m", "neck", (FCN,), together(), "", kind="inferrence")
    with pytest.raises(ParityError, match="mutant m: kind 'inferrence' is neither inference nor training"):
        checked([mutant], "here")


def test_the_detector_is_what_it_was_after_a_mutant(bench: Bench) -> None:
    with set_attribute("neck.0.lateral_convs.0.conv", "padding_mode", "nonsense")():
        assert bench.judge(bench.checker) is not None
    bench.verify("isolated", "fp64")


def test_a_change_of_nothing_survives(bench: Bench) -> None:
    with together()():
        assert bench.judge(bench.checker) is None


def test_an_unknown_module_attribute_or_parameter_is_no_catch(bench: Bench) -> None:
    with set_attribute("neck.nowhere", "eps", 1.0)(), pytest.raises(ParityError, match=r"no module 'neck\.nowhere'"):
        bench.judge(bench.checker)
    with swap("a", "b")(), pytest.raises(ParityError, match="no parameter 'a'"):
        bench.judge(bench.checker)


def test_a_case_that_diverges_by_itself_is_refused(bench: Bench) -> None:
    fresh = Bench(find_case(FCN), default_fixtures(), smallest=1)
    with (
        set_attribute("backbone.bn1", "eps", 1.0)(),
        pytest.raises(
            ParityError, match="ddq_fcn_r50_36e diverges before anything is planted: backbone of record tiny"
        ),
    ):
        fresh.verify("isolated", "fp64")


def test_a_case_without_records_is_refused(tmp_path: Path, case: Case) -> None:
    with pytest.raises(ParityError, match="holds no record of ddq_detr_4scale_r50_12e: `parity freeze"):
        Bench(case, tmp_path)


MINE = """
from contextlib import contextmanager

from parity.mutants import Mutant
from parity.records.kinds import INFERENCE, TRAINING
from parity.ports import fcn_head


@contextmanager
def tilted():
    before = fcn_head.DDQFCNHead._best_pairs

    def moved(*args):
        found = before(*args)
        found.bboxes = found.bboxes + {amount}
        return found

    fcn_head.DDQFCNHead._best_pairs = moved
    try:
        yield
    finally:
        fcn_head.DDQFCNHead._best_pairs = before


MUTANTS = [Mutant(id="mine", stage="predict", cases=("ddq_fcn_*_36e",), apply=tilted, why="a test")]
"""


def test_a_users_own_mutant_is_caught(tmp_path: Path, parity_command: Command) -> None:
    (tmp_path / "mine.py").write_text(MINE.format(amount=1e-4))
    status, out, _ = parity_command(
        "mutate", FCN, "--from", tmp_path / "mine.py", "--harness-only", "--json", tmp_path / "out.json"
    )
    assert status == 0
    assert "caught 1 of 1, the right stage first in 1 (100.0%)" in out
    (found,) = json.loads((tmp_path / "out.json").read_text())["outcomes"]
    assert found["right_stage"] is True
    assert (found["catch"]["stage"], found["catch"]["dtype"]) == ("predict", "fp64")


def test_a_users_own_mutant_that_survives_is_told_whatever_process_plants_it(
    tmp_path: Path, parity_command: Command
) -> None:
    (tmp_path / "mine.py").write_text(MINE.format(amount=0))
    status, out, _ = parity_command("mutate", FCN, "--from", tmp_path / "mine.py", "--harness-only", "--jobs", 2)
    assert status == 1
    assert "caught 0 of 1" in out
    assert f"survived: mine in {FCN}: not explained" in out


BROKEN = """
from parity.mutants.plant import set_attribute

MUTANTS += [
    Mutant(id="broken", stage="neck", cases=("ddq_fcn_*_36e",), apply=set_attribute("no.such", "eps", 1), why="a slip"),
]
MUTANTS.reverse()
"""


def test_a_mutant_that_cannot_be_judged_does_not_end_the_run(tmp_path: Path, parity_command: Command) -> None:
    (tmp_path / "mine.py").write_text(MINE.format(amount=1e-4) + BROKEN)
    words = ("mutate", FCN, "--from", tmp_path / "mine.py", "--harness-only", "--json", tmp_path / "out.json")
    status, out, _ = parity_command(*words)
    assert status == 1
    assert f"not judged: broken in {FCN}: the model has no module 'no.such'" in out
    report = read_outcomes([tmp_path / "out.json"])
    assert [bool(it.error) for it in report.outcomes] == [True, False]
    assert (len(report.unjudged), len(report.survivors)) == (1, 0)
    assert report.outcomes[1].right_stage


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--from", "nowhere.py"), "nowhere.py: FileNotFoundError"),
        (("--select", "all"), "--select all: there is ci"),
        (("--mutant", "nothing"), "--mutant nothing: no such mutant"),
        (("ddq_fcn_r50_12e", "--mutant", "swin-*"), "none of these mutants concerns ddq_fcn_r50_12e"),
        (("--benign", "--mutant", "nothing"), "--mutant nothing: no such benign change"),
        (("--read", "nowhere.json"), "nowhere.json holds no outcomes"),
        (("--json", "no/such/folder.json"), "--json no/such/folder.json: no/such is no folder that can be written to"),
        (("nobody",), "unknown case 'nobody'"),
        (("ddq_fcn_r50_12e", "--jobs", "0"), "--jobs 0: at least 1"),
    ],
)
def test_a_wrong_call_is_one_line(parity_command: Command, words: tuple[str, ...], message: str) -> None:
    status, _, err = parity_command("mutate", *words)
    assert status == 2
    assert message in err
    assert "Traceback" not in err


def test_outcomes_are_read_as_they_were_written(tmp_path: Path) -> None:
    catch = Catch("tiny", "isolated", "fp64", "neck", "p3: diverged")
    report = MutationReport(
        {"parity": "1"}, [outcome(catch=catch), outcome(mutant="n", explained="it is none")], {}, 1.5
    )
    (tmp_path / "a.json").write_text(to_json(report))
    assert read_outcomes([tmp_path / "a.json"]) == report
    newer = MutationReport({}, [outcome(mutant="n", catch=catch)])
    (tmp_path / "b.json").write_text(to_json(newer))
    read = read_outcomes([tmp_path / "a.json", tmp_path / "b.json"])
    assert [it.catch for it in read.outcomes] == [catch, catch]


def test_survivors_and_misplaced_are_told_apart() -> None:
    elsewhere = Catch("tiny", "isolated", "fp64", "backbone", "c5: diverged")
    report = MutationReport({}, [outcome(), outcome(explained="equivalent"), outcome(catch=elsewhere)])
    assert (len(report.survivors), len(report.unexplained), len(report.misplaced())) == (2, 1, 1)


def test_processes_of_jobs_end_with_the_command(tmp_path: Path) -> None:
    """Killed in the middle, it leaves nothing behind that goes on for minutes."""
    (tmp_path / "mine.py").write_text(MINE.format(amount=1e-4))
    words = ["mutate", FCN, "--from", str(tmp_path / "mine.py"), "--jobs", "2"]
    command = subprocess.Popen([sys.executable, "-m", "parity", *words], stdout=subprocess.DEVNULL)
    until = time.monotonic() + 300
    while not (children := _spawned_by(command.pid)) and time.monotonic() < until:
        time.sleep(0.05)
    command.kill()
    command.wait()
    assert children
    while any(map(_runs, children)):
        assert time.monotonic() < until, "a process outlived the command"
        time.sleep(0.05)


def _spawned_by(parent: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            words = status.read_text().rpartition(")")[2].split()
            command = (status.parent / "cmdline").read_bytes()
            if int(words[1]) == parent and b"spawn_main" in command:
                found.append(int(status.parent.name))
    return found


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
