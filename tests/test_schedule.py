"""The schedule stage: the engines' own schedulers, what is kept of their rates, and how a difference is told."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from parity.cases.base import SCHEDULE, Case
from parity.check_recipe import check_recipe
from parity.compare.schedule import differences, iterations_that_matter
from parity.compare.verdicts import Verdict
from parity.engines import schedules
from parity.engines.base import Run
from parity.errors import ParityError
from parity.records.freeze_recipe import freeze_recipe
from parity.records.kinds import RECIPE
from parity.records.store import Record, write_record
from parity.report.results import StageResult


def rates(*, warm_up: int = 5, milestone: int = 40, epochs: int = 3, length: int = 20) -> dict[str, Tensor]:
    """Return a schedule of two base rates: linear warm-up, and a tenth from the milestone on."""
    step = torch.arange(epochs * length, dtype=torch.float64)
    factor = (0.1 + 0.9 * step / warm_up).clamp(max=1.0) * (1.0 - 0.9 * (step >= milestone).double())
    return {
        "epoch_length": torch.tensor([length]),
        "learning_rate": factor[:, None] * torch.tensor([2e-4, 2e-5], dtype=torch.float64),
        "momentum": torch.tensor([[0.9, 0.9]], dtype=torch.float64),
    }


class StubSession:
    """Answers like an engine's session, from given rates."""

    class engine:
        device = "cpu"

    def __init__(self, given: dict[str, Tensor]) -> None:
        self.given = given

    def fingerprint(self) -> dict[str, str]:
        return {"engine": "stub"}

    def configure(self, **asked: object) -> dict[str, object]:
        return asked

    def recipe(self, case_id: str, stage: str) -> Run:
        assert stage == SCHEDULE
        return Run(dict(self.given), produced={SCHEDULE: tuple(self.given)})


@pytest.fixture
def judged(case: Case, tmp_path: Path) -> Callable[[dict[str, Tensor]], StageResult]:
    """Return a function that judges rates against a record frozen from ``rates()``."""
    case = replace(case, recipe_stages=(SCHEDULE,))
    legacy: Any = StubSession(rates())
    write_record(tmp_path / RECIPE, *freeze_recipe(case, legacy, progress=lambda text: None), force=False)

    def judge(given: dict[str, Tensor]) -> StageResult:
        session: Any = StubSession(given)
        (result,) = check_recipe(session, case, Record(tmp_path / RECIPE), [SCHEDULE])
        return result

    return judge


def test_the_iterations_that_matter_are_the_changes_and_the_ends_of_epochs() -> None:
    kept = iterations_that_matter(rates()["learning_rate"], 20).tolist()
    # The warm-up from its first rate to two past its last change, both sides of each epoch's end.
    assert kept == [*range(8), *range(17, 23), *range(37, 43), 57, 58, 59]


def test_the_same_rates_are_equal(judged: Callable[[dict[str, Tensor]], StageResult]) -> None:
    result = judged(rates())
    assert result.verdict is Verdict.EQUAL
    assert {t.name for t in result.tensors} == {"epoch_length", "learning_rate", "learning_rate_at", "momentum"}
    assert result.notes == ()


def test_a_warm_up_that_ends_an_iteration_early_is_named(
    judged: Callable[[dict[str, Tensor]], StageResult],
) -> None:
    result = judged(rates(warm_up=4))
    assert result.verdict is Verdict.DIVERGED
    (note,) = result.notes
    assert re.search(r"at iterations 1 to 4: at 1 actual 6\.5e-05 and 6\.5e-06, expected 5\.6e-05", note)


def test_a_milestone_an_iteration_late_is_named(judged: Callable[[dict[str, Tensor]], StageResult]) -> None:
    result = judged(rates(milestone=41))
    (note,) = result.notes
    assert "at iteration 40: actual 0.0002 and 2e-05, expected 2e-05 and 2e-06" in note


def test_a_change_where_nothing_was_kept_is_seen_in_the_whole_schedule(case: Case, tmp_path: Path) -> None:
    """Of a long schedule only block sums are kept between the ends of epochs."""
    case = replace(case, recipe_stages=(SCHEDULE,))
    legacy: Any = StubSession(rates(length=5000))
    write_record(tmp_path / RECIPE, *freeze_recipe(case, legacy, progress=lambda text: None), force=False)
    altered = rates(length=5000)
    altered["learning_rate"][2500, 0] *= 1.001
    session: Any = StubSession(altered)
    (result,) = check_recipe(session, case, Record(tmp_path / RECIPE), [SCHEDULE])
    assert [t.name for t in result.tensors if not t.verdict.passes] == ["learning_rate#projections"]


def test_a_schedule_of_another_length_says_so(judged: Callable[[dict[str, Tensor]], StageResult]) -> None:
    result = judged(rates(epochs=2))
    assert result.verdict is Verdict.SHAPE
    assert "40 iterations, expected 60" in result.notes[0]


def test_a_group_less_says_so(judged: Callable[[dict[str, Tensor]], StageResult]) -> None:
    one = {name: value[:, :1] if value.dim() == 2 else value for name, value in rates().items()}
    result = judged(one)
    assert not result.verdict.passes
    assert "1 base rates, expected 2" in result.notes[0]


def test_rounding_is_no_difference() -> None:
    given, at = rates()["learning_rate"], torch.arange(60)
    assert differences(given * (1 + 1e-15), given, at, allowance=1e-16) == ()


def test_many_ranges_are_counted() -> None:
    given, at = rates()["learning_rate"], torch.arange(60)
    altered = given.clone()
    altered[::4] += 1e-5
    notes = differences(altered, given, at, allowance=1e-16)
    assert len(notes) == 6
    assert notes[-1] == "… and in 10 more ranges of iterations"


def test_a_stage_that_nothing_freezes_is_refused(case: Case) -> None:
    legacy: Any = StubSession(rates())
    with pytest.raises(ParityError, match="its recipe has a stage 'augmentation', there are schedule"):
        freeze_recipe(replace(case, recipe_stages=("augmentation",)), legacy, progress=lambda text: None)


def mmengine_schedule(end: int) -> Tensor:
    """Return the rates of mmengine's own loop over two epochs of ten iterations."""
    from mmengine.config import Config

    config = Config(
        {
            "optim_wrapper": {"type": "OptimWrapper", "optimizer": {"type": "AdamW", "lr": 1e-3}},
            "param_scheduler": [
                {"type": "LinearLR", "start_factor": 0.1, "by_epoch": False, "begin": 0, "end": end},
                {"type": "MultiStepLR", "by_epoch": True, "milestones": [1], "gamma": 0.1},
            ],
            "train_cfg": {"type": "EpochBasedTrainLoop", "max_epochs": 2, "val_interval": 1},
            "train_dataloader": {"batch_size": 2, "dataset": {}},
        }
    )
    return schedules.mmengine_rates(config, torch.nn.Linear(1, 1))["learning_rate"][:, 0]


def test_mmengine_reaches_the_full_rate_one_iteration_before_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why the ports say ``end=501``: mmcv 1.x reaches it at iteration 500 of a warm-up of 500."""
    monkeypatch.setattr(schedules, "epoch_length", lambda images, only_with_objects: 10)
    found = mmengine_schedule(end=6)
    closed = 1e-3 * (1 - (1 - torch.arange(5) / 5) * 0.9)  # mmcv's linear warm-up of 5
    torch.testing.assert_close(found[:5], closed.double(), rtol=1e-6, atol=0.0)
    assert found[5:].tolist() == pytest.approx([1e-3] * 5 + [1e-4] * 10, rel=1e-12)
    assert float(mmengine_schedule(end=5)[4]) == pytest.approx(1e-3, rel=1e-12)


def test_an_epoch_is_as_long_as_the_images_that_are_kept() -> None:
    assert schedules.epoch_length(2, only_with_objects=True) == 7330
    assert schedules.epoch_length(2, only_with_objects=False) == 7393
