"""The initialisation stage: what is told of a parameter's law, which slips it catches, and how rarely it cries wolf."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from parity.cases.base import INITIALISATION, Case
from parity.check_recipe import check_recipe
from parity.compare import laws
from parity.compare.laws import Law, compare_laws, compare_texts, laws_of
from parity.compare.verdicts import Verdict
from parity.engines.base import Run
from parity.engines.initialisation import FIXED, RANDOM, gather, tables, text, without_pretrained
from parity.records.freeze_recipe import freeze_recipe
from parity.records.kinds import RECIPE
from parity.records.store import Record, write_record
from parity.report.messages import failure_message
from parity.report.results import StageResult, TensorResult

SEEDS = 8
Change = Callable[["Detector"], None]


class Detector(nn.Module):
    """What detectors are made of: towers, a prior, an attention with fixed offsets, copies, a shared layer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(256, 256)
        self.conv = nn.Conv2d(64, 64, 3)
        self.norm = nn.GroupNorm(8, 64)
        self.classes = nn.Conv2d(64, 80, 3)
        self.offsets = nn.Linear(64, 64)
        self.branches = nn.ModuleList(nn.Linear(32, 32) for _ in range(3))
        self.shared = nn.ModuleList([self.branches[2]])
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.normal_(self.conv.weight, std=0.01)
        nn.init.zeros_(self.conv.bias)
        nn.init.normal_(self.classes.weight, std=0.01)
        nn.init.constant_(self.classes.bias, -math.log(99.0))
        nn.init.zeros_(self.offsets.weight)
        with torch.no_grad():
            self.offsets.bias.copy_(torch.linspace(-2, 2, 64))
            self.branches[1].weight.copy_(self.branches[0].weight)


def observed(change: Change = lambda detector: None, *, first_seed: int = 0) -> dict[str, torch.Tensor]:
    def initialised() -> Detector:
        detector = Detector()
        with torch.no_grad():
            change(detector)
        return detector

    return tables(gather(initialised, range(first_seed, first_seed + SEEDS)))


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Draw as the stage does: more threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def truth(_one_thread: None) -> dict[str, Law]:
    """Return the laws as a record keeps them."""
    whole = observed()
    kept = laws.quantiles(laws_of(whole, seeds=SEEDS, sample="samples"))
    return laws_of({**whole, "quantiles": kept}, seeds=SEEDS, sample="quantiles")


def judge(truth: Mapping[str, Law], change: Change = lambda detector: None, *, first_seed: int = 1000) -> Any:
    """Return the results of the parameters that do not pass, by name."""
    whole = observed(change, first_seed=first_seed)
    results = compare_laws(laws_of(whole, seeds=SEEDS, sample="samples"), truth)
    return {result.name: result for result in results if not result.verdict.passes}


def only(results: Mapping[str, TensorResult]) -> TensorResult:
    (result,) = results.values()
    assert result.verdict is Verdict.DIVERGED
    return result


def test_the_same_laws_pass_and_every_parameter_is_counted(truth: dict[str, Law]) -> None:
    results = compare_laws(laws_of(observed(first_seed=1000), seeds=SEEDS, sample="samples"), truth)
    assert {result.name: result.count for result in results} == {
        "parameters: constant": 5,
        "parameters: the same for every seed": 1,
        "parameters: random": 12,
    }
    assert all(result.verdict.passes for result in results)
    assert sum(result.count for result in results) == len(truth)


def test_laws_are_told_in_words(truth: dict[str, Law]) -> None:
    assert str(truth["linear.weight"]).startswith("uniform of mean ")
    assert str(truth["conv.weight"]).startswith("normal of mean ")
    assert str(truth["classes.bias"]) == "constant -4.59512"
    assert truth["offsets.bias"].kind == FIXED
    assert truth["branches.1.weight"].same_as == "branches.0.weight"
    assert truth["shared.0.bias"].shared_with == "branches.2.bias"


def test_five_percent_of_deviation_are_seen(truth: dict[str, Law]) -> None:
    result = only(judge(truth, lambda d: d.conv.weight.mul_(1.05)))
    assert result.name == "conv.weight"
    assert "deviation 0.0105, expected normal of mean" in result.note
    assert "another deviation" in result.note


def test_a_uniform_law_of_the_same_deviation_is_no_normal_one(truth: dict[str, Law]) -> None:
    bound = 0.01 * math.sqrt(3.0)
    result = only(judge(truth, lambda d: d.conv.weight.uniform_(-bound, bound)))
    assert result.note.startswith("uniform of mean")
    assert "expected normal" in result.note
    assert "another shape of the distribution (evidence" in result.note


def test_a_mean_that_is_off_by_a_twentieth_of_the_deviation_is_seen(truth: dict[str, Law]) -> None:
    assert "another mean" in only(judge(truth, lambda d: d.conv.weight.add_(0.0005))).note


def test_a_rare_outlier_is_counted_and_spoils_no_moment(truth: dict[str, Law]) -> None:
    """As trunc_normal_ of both engines gives them: -2, whatever the deviation."""

    def spoil(detector: Detector) -> None:
        detector.conv.weight.view(-1)[0] = -2.0

    whole = observed(spoil, first_seed=1000)
    law = laws_of(whole, seeds=SEEDS, sample="samples")["conv.weight"]
    assert str(law).endswith("and 8 outliers")
    assert law.minimum == -2.0
    assert judge(truth, spoil) == {}


def test_frequent_outliers_are_another_law(truth: dict[str, Law]) -> None:
    def spoil(detector: Detector) -> None:
        detector.conv.weight.view(-1)[:8] = -2.0

    assert "and 64 outliers, expected normal" in only(judge(truth, spoil)).note
    assert "another frequency of outliers" in only(judge(truth, spoil)).note


def test_a_parameter_of_almost_one_value_is_no_error(truth: dict[str, Law]) -> None:
    def almost_zero(detector: Detector) -> None:
        value = detector.linear.weight.view(-1)[7].clone()
        nn.init.zeros_(detector.linear.weight).view(-1)[7] = value

    result = only(judge(truth, almost_zero))
    assert "expected uniform" in result.note


def test_kaiming_is_not_xavier(truth: dict[str, Law]) -> None:
    result = only(judge(truth, lambda d: nn.init.kaiming_uniform_(d.linear.weight)))
    assert result.name == "linear.weight"


def test_a_missing_prior_is_seen(truth: dict[str, Law]) -> None:
    result = only(judge(truth, lambda d: nn.init.zeros_(d.classes.bias)))
    assert result.note == "constant 0, expected constant -4.59512; greatest difference 4.6"


def test_a_forgotten_zero_is_seen(truth: dict[str, Law]) -> None:
    result = only(judge(truth, lambda d: nn.init.uniform_(d.conv.bias, -0.04, 0.04)))
    assert "expected constant 0" in result.note
    assert result.note.startswith("uniform of mean")


def test_missing_offsets_of_a_deformable_attention_are_seen(truth: dict[str, Law]) -> None:
    """As in DINO#197, which cost 1.1 AP: the directions of the sampling offsets were overwritten."""
    result = only(judge(truth, lambda d: nn.init.zeros_(d.offsets.bias)))
    assert result.note == "constant 0, expected the same values for every seed (mean 0, deviation 1.173)"
    other = only(judge(truth, lambda d: d.offsets.bias.copy_(d.offsets.bias.flip(0))))
    assert "greatest difference 4" in other.note  # the same moments in another order


def test_copies_that_are_drawn_anew_are_seen(truth: dict[str, Law]) -> None:
    result = only(judge(truth, lambda d: d.branches[1].reset_parameters()))
    assert result.note == "stands alone, expected: begins with the values of branches.0.weight"


def test_a_layer_that_is_no_longer_shared_is_seen(truth: dict[str, Law]) -> None:
    def part(detector: Detector) -> None:
        detector.shared[0] = nn.Linear(32, 32)

    results = judge(truth, part)
    assert set(results) == {"shared.0.weight", "shared.0.bias"}
    assert results["shared.0.bias"].note == "stands alone, expected: is the same tensor as branches.2.bias"


def test_missing_extra_and_misshapen_parameters_are_named(truth: dict[str, Law]) -> None:
    def change(detector: Detector) -> None:
        detector.norm = nn.GroupNorm(8, 32)
        detector.more = nn.Linear(2, 2, bias=False)
        del detector.offsets

    verdicts = {name: result.verdict for name, result in judge(truth, change).items()}
    assert verdicts == {
        "norm.weight": Verdict.SHAPE,
        "norm.bias": Verdict.SHAPE,
        "offsets.weight": Verdict.MISSING,
        "offsets.bias": Verdict.MISSING,
        "more.weight": Verdict.EXTRA,
    }


def test_the_tests_are_honest_about_chance(truth: dict[str, Law]) -> None:
    """The evidence is a bound: that it exceeds x has a chance of at most exp(-x), for each parameter and test."""
    evidence = []
    for first_seed in range(2000, 2000 + 10 * SEEDS, SEEDS):
        actual = laws_of(observed(first_seed=first_seed), seeds=SEEDS, sample="samples")
        evidence += [
            [test(actual[name], law) for test in laws.EVIDENCE.values()]
            for name, law in truth.items()
            if law.kind == RANDOM
        ]
    for found in torch.tensor(evidence).T:  # 120 values, of which 8 come from each other's copies
        for level in (0.5, 0.1, 0.05):
            share = float((found > -math.log(level)).double().mean())
            assert share <= level + 3.0 * math.sqrt(level / len(found))


class StubSession:
    """Answers like an engine's session, from given tables."""

    class engine:
        device = "cpu"

    def __init__(self, change: Change = lambda detector: None, *, checkpoint: str = "backbone: resnet50") -> None:
        self.change, self.checkpoint = change, checkpoint

    def fingerprint(self) -> dict[str, str]:
        return {"engine": "stub"}

    def configure(self, **asked: object) -> dict[str, object]:
        return asked

    def recipe(self, case_id: str, stage: str, *, seeds: list[int]) -> Run:
        assert len(seeds) == SEEDS
        found = observed(self.change, first_seed=seeds[0])
        return Run({**found, "pretrained": text(self.checkpoint)}, produced={stage: tuple(found)})


def checked(case: Case, folder: Path, session: Any) -> StageResult:
    case = replace(case, recipe_stages=(INITIALISATION,))
    legacy: Any = StubSession()
    write_record(folder / RECIPE, *freeze_recipe(case, legacy, progress=lambda text: None), force=True)
    (result,) = check_recipe(session, case, Record(folder / RECIPE), [INITIALISATION])
    return result


def test_a_record_of_laws_passes_with_other_seeds(case: Case, tmp_path: Path) -> None:
    result = checked(case, tmp_path, StubSession())
    assert result.verdict is Verdict.WITHIN_BUDGET
    assert result.tensors[0].note == "backbone: resnet50"


def test_the_message_names_the_parameter_and_how_its_law_differs(case: Case, tmp_path: Path) -> None:
    result = checked(case, tmp_path, StubSession(lambda d: nn.init.zeros_(d.classes.bias)))
    message = failure_message([result], rerun="x")
    assert "  classes.bias (80): diverged; constant 0, expected constant -4.59512" in message


def test_another_checkpoint_is_named(case: Case, tmp_path: Path) -> None:
    result = checked(case, tmp_path, StubSession(checkpoint="backbone: resnet101"))
    assert not result.verdict.passes
    assert "'backbone: resnet101', expected 'backbone: resnet50'" in failure_message([result], rerun="x")


def test_equal_texts_are_equal() -> None:
    assert compare_texts("pretrained", text("a"), text("a")).verdict is Verdict.EQUAL


def test_checkpoints_are_taken_out_of_a_config_wherever_they_are() -> None:
    config = {
        "backbone": {"init_cfg": {"type": "Pretrained", "checkpoint": "torchvision://resnet50"}},
        "neck": [{"init_cfg": {"type": "Xavier"}}, {"pretrained": "neck.pth"}],
        "pretrained": None,
    }
    assert without_pretrained(config) == ["model.backbone: torchvision://resnet50", "model.neck[1]: neck.pth"]
    assert config["backbone"] == {"init_cfg": None}
    assert config["neck"] == [{"init_cfg": {"type": "Xavier"}}, {"pretrained": None}]
