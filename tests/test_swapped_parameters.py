"""Two parameters in each other's place: on a model of two stages that is checked without records, and on DDQ FCN."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from parity.cases.registry import find_case
from parity.compare.verdicts import Verdict
from parity.errors import ParityError
from parity.records.locate import default_fixtures
from parity.records.store import Record
from parity.report.results import StageResult, TensorResult
from parity.weights import perturb


class _Tiny(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.aux, self.aux2 = (torch.nn.Linear(2, 2, bias=False) for _ in range(4))
        self.ignored = torch.nn.Parameter(torch.ones(2, 2))
        self.register_buffer("num_batches_tracked", torch.tensor(7))
        for number, tensor in enumerate(self.parameters()):
            torch.nn.init.constant_(tensor, number + 1.0)

    def first(self) -> torch.Tensor:
        return self.a(torch.ones(1, 2)) + 0.0 * self.ignored.sum()

    def second(self) -> torch.Tensor:
        return self.b(torch.ones(1, 2)) + self.a.weight.sum()


class _TinyChecker:
    """Stands for a ``Checker`` whose record holds what ``_Tiny`` gave at first."""

    def __init__(self, case: object, pair: perturb.Pair | None = None, *, device: str) -> None:
        self.model = _Tiny()
        self.pair = pair
        self.truth = {stage: getattr(self.model, stage)().detach().clone() for stage in ("first", "second")}
        self.checked: list[str] = []

    def prepared(self, record: object, dtype: str) -> tuple[object, dict[str, torch.Tensor]]:
        return SimpleNamespace(model=self.model), {}

    def check(self, record: object, *, mode: str, dtype: str, stages: list[str]) -> list[StageResult]:
        (stage,) = stages
        self.checked.append(stage)
        with torch.no_grad():
            error = float((getattr(self.model, stage)() - self.truth[stage]).abs().max())
        verdict = Verdict.EQUAL if error == 0.0 else Verdict.DIVERGED
        return [StageResult("c", "r", stage, mode, dtype, "cpu", 0.0, (TensorResult(f"{stage}_out", verdict),))]


@pytest.fixture
def swaps(monkeypatch: pytest.MonkeyPatch) -> perturb.Swaps:
    monkeypatch.setattr(perturb, "_QuickChecker", _TinyChecker)
    return perturb.Swaps(SimpleNamespace(id="tiny", stage_names=lambda: ("first", "second")), None)  # type: ignore[arg-type]


def test_which_stage_uses_which_parameter_is_observed(swaps: perturb.Swaps) -> None:
    assert swaps.uses["a.weight"] == ("first", "second")
    assert swaps.uses["b.weight"] == ("second",)
    assert swaps.unused() == ["aux.weight", "aux2.weight"]
    assert swaps.unused_are_inert


def test_a_swap_is_caught_by_the_earliest_stage(swaps: perturb.Swaps) -> None:
    swaps.checker.checked.clear()  # type: ignore[attr-defined]
    swap = swaps.try_pair(("a.weight", "b.weight"))
    assert (swap.caught, swap.stage, swap.how, swap.reason) == (True, "first", "first_out", "")
    assert swaps.checker.checked == ["first"]  # type: ignore[attr-defined]
    assert swaps.try_pair(("aux.weight", "b.weight")).stage == "second"


def test_a_swap_is_undone(swaps: perturb.Swaps) -> None:
    swaps.try_pair(("a.weight", "b.weight"))
    assert swaps.tensors["a.weight"].unique().tolist() == [2.0]
    assert swaps.tensors["b.weight"].unique().tolist() == [3.0]


def test_a_swap_of_unused_parameters_survives_with_its_reason(swaps: perturb.Swaps) -> None:
    swap = swaps.try_pair(("aux.weight", "aux2.weight"))
    assert not swap.caught
    assert "no stage uses either of them" in swap.reason


def test_a_swap_that_ought_to_be_caught_is_unexplained(swaps: perturb.Swaps) -> None:
    swap = swaps.try_pair(("ignored", "aux.weight"))
    assert not swap.caught
    assert swap.reason.startswith("unexplained: ignored is used by first")


class _TinyTraining(_TinyChecker):
    """Stands for a checker of training, where ``aux`` has a term of the loss."""

    def check(self, record: object, *, mode: str, dtype: str) -> Iterator[StageResult]:
        swapped = self.pair is not None and "aux.weight" in self.pair
        for stage, verdict in (("loss", Verdict.DIVERGED if swapped else Verdict.EQUAL), ("gradients", Verdict.EQUAL)):
            yield StageResult("c", "r", stage, mode, dtype, "cpu", 0.0, (TensorResult(f"{stage}_out", verdict),))


def test_what_serves_training_only_is_caught_by_training(swaps: perturb.Swaps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perturb, "_SwappedChecker", _TinyTraining)
    swaps.training = SimpleNamespace(id="train-tiny")  # type: ignore[assignment]
    swap = swaps.try_pair(("aux.weight", "aux2.weight"))
    assert (swap.stage, swap.how, swap.reason) == ("loss", "loss_out", "")
    assert swaps.try_pair(("ignored", "aux2.weight")).reason.startswith("unexplained: a training step")


def test_training_that_diverges_before_any_swap_proves_nothing(
    swaps: perturb.Swaps, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(_TinyTraining):
        def check(self, *words: object, **options: object) -> Iterator[StageResult]:
            raise RuntimeError("no gradient")

    monkeypatch.setattr(perturb, "_SwappedChecker", Broken)
    swaps.training = SimpleNamespace(id="train-tiny")  # type: ignore[assignment]
    with pytest.raises(ParityError, match="of train-tiny diverges before anything is swapped: RuntimeError: no grad"):
        swaps.try_pair(("aux.weight", "aux2.weight"))


@pytest.mark.parametrize(
    ("other", "explained"), [("layer4.0.downsample.1.bias", True), ("layer3.0.downsample.1.bias", False)]
)
def test_two_shifts_of_one_sum_are_exchangeable(other: str, explained: bool) -> None:
    pair = ("layer4.0.bn3.bias", other)
    swap = perturb.Swap(pair, "", "", dict.fromkeys(pair, ("backbone",)))
    assert swap.reason.startswith("both shifts are added to one sum" if explained else "unexplained")


def test_an_engine_that_refuses_swapped_weights_caught_them(
    swaps: perturb.Swaps, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise RuntimeError("negative width")

    monkeypatch.setattr(swaps.model, "first", refuse)
    assert swaps.try_pair(("a.weight", "b.weight")).how == "RuntimeError: negative width"


def test_pairs_are_seeded_different_and_of_one_shape(swaps: perturb.Swaps) -> None:
    pairs = swaps.pairs(100, seed=1)
    assert len(pairs) == len(set(pairs)) == 10  # all pairs of five
    assert all(first < second for first, second in pairs)
    assert swaps.pairs(4, seed=1) == pairs[:4]
    assert "num_batches_tracked" not in {name for pair in pairs for name in pair}


def test_weights_that_diverge_before_any_swap_prove_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(_TinyChecker):
        def prepared(self, record: object, dtype: str) -> tuple[object, dict[str, torch.Tensor]]:
            torch.nn.init.zeros_(self.model.b.weight)
            return super().prepared(record, dtype)

    monkeypatch.setattr(perturb, "_QuickChecker", Broken)
    with pytest.raises(ParityError, match="tiny: second diverges before anything is swapped: second_out"):
        perturb.Swaps(SimpleNamespace(id="tiny", stage_names=lambda: ("first", "second")), None)  # type: ignore[arg-type]


def test_training_notices_what_inference_cannot_on_a_real_case() -> None:
    """DDQ FCN's auxiliary branch: no inference stage uses it, and two of its tensors in each other's place are seen."""
    folder = default_fixtures() / "ddq_fcn_r50_12e"
    case = find_case("ddq_fcn_r50_12e")
    swaps = perturb.Swaps(case, Record(folder / "tiny"), training=Record(folder / "train-one-object"))
    shapes: dict[tuple[int, ...], list[str]] = {}
    for name in swaps.unused():
        shapes.setdefault(tuple(swaps.tensors[name].shape), []).append(name)
    first, second = next(names for names in shapes.values() if len(names) > 1)[:2]
    swap = swaps.try_pair((first, second))
    assert swap.trained
    assert swap.stage in case.training_stage_names()
