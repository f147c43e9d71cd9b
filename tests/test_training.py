"""The training step's own pieces: loss terms, what is not finite, the settings' table, trajectories."""

import math
from typing import Any

import pytest
import torch
from altered_engine import Altered

from parity.cases.registry import find_case
from parity.compare.trajectory import departure, in_order
from parity.compare.verdicts import Verdict
from parity.engines.training import SETTINGS, finite, images_of_step, loss_terms, settings, total_loss
from parity.records.kinds import checks_of
from parity.report.results import TensorResult


def test_loss_terms_have_their_legacy_names_and_lists_one_term_each() -> None:
    losses = {"s0.loss_cls": torch.tensor(2.0), "loss_bbox": [torch.tensor([1.0, 3.0]), torch.tensor(4.0)], "acc": 9.0}
    terms = loss_terms(losses, {"s0.": "stage0_"})
    assert {name: float(term) for name, term in terms.items()} == {
        "stage0_loss_cls": 2.0,
        "loss_bbox[0]": 2.0,
        "loss_bbox[1]": 4.0,
        "acc": 9.0,
    }
    assert float(total_loss(terms)) == 8.0  # an accuracy is no loss


def test_what_is_not_finite_is_told_apart() -> None:
    split = finite(
        {"loss": torch.tensor([1.0, math.nan, math.inf, -math.inf]), "count": torch.tensor(3)}, torch.float64
    )
    assert split["loss"].tolist() == [1.0, 0.0, 0.0, 0.0]
    assert split["loss.nonfinite"].tolist() == [0, 1, 2, 3]
    assert split["loss"].dtype is torch.float64
    assert set(split) == {"loss", "loss.nonfinite", "count"}


def test_settings_say_what_each_parameter_is_trained_with() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model[1].bias.requires_grad_(False)
    groups = [
        {"params": [model[0].weight], "lr": 0.1},
        {"params": [model[0].bias, model[1].bias], "weight_decay": 0.0},
    ]
    table = settings(model, torch.optim.AdamW(groups, lr=0.01, weight_decay=0.5))
    columns = ("trained", *SETTINGS)
    told = [dict(zip(columns, row.tolist(), strict=True)) for row in table]
    assert (told[0]["trained"], told[0]["lr"], told[0]["weight_decay"], told[0]["beta2"]) == (1.0, 0.1, 0.5, 0.999)
    assert (told[1]["lr"], told[1]["weight_decay"]) == (0.01, 0.0)
    assert set(told[2].values()) == {0.0}  # in no group
    assert set(told[3].values()) == {0.0}  # frozen, whatever group it sits in


@pytest.mark.parametrize(
    ("clip_grad", "clipped"),
    [
        ({"max_norm": 1.0}, [0.6, 0.8]),
        ({"type": "value", "clip_value": 3.5}, [3.0, 3.5]),
        (None, [3.0, 4.0]),
    ],
)
def test_gradients_are_clipped_by_the_kind_that_the_config_asks_for(
    clip_grad: dict[str, Any] | None, clipped: list[float]
) -> None:
    def change(config: Any) -> None:
        config.optim_wrapper["clip_grad"] = clip_grad

    model = torch.nn.Linear(2, 1, bias=False)
    model.weight.grad = torch.tensor([[3.0, 4.0]])
    Altered(change).updater(find_case("ddq_fcn_r50_36e"), model).clip_gradients([model.weight])
    assert model.weight.grad.flatten().tolist() == pytest.approx(clipped, rel=1e-5)


def test_a_trajectory_takes_the_next_images_each_step() -> None:
    batch = {
        "image": torch.arange(3.0).reshape(3, 1),
        "img_shape": torch.arange(6).reshape(3, 2),
        "batch_input_shape": torch.tensor([64, 64]),
        **{f"gt_boxes[{i}]": torch.full((1, 4), float(i)) for i in range(3)},
        **{f"gt_labels[{i}]": torch.tensor([i]) for i in range(3)},
    }
    part = images_of_step(batch, 1, 2)
    assert part["image"].flatten().tolist() == [2.0, 0.0]
    assert [int(part[f"gt_labels[{i}]"]) for i in range(2)] == [2, 0]
    assert part["batch_input_shape"].tolist() == [64, 64]


def result(name: str, verdict: Verdict = Verdict.EQUAL, kind: str = "whole") -> TensorResult:
    return TensorResult(name, verdict, kind=kind)


def test_a_trajectory_is_told_in_the_order_in_which_it_happens() -> None:
    names = ["step[1].backbone.c3", "step[0].optimizer_step.parameters", "step[0].loss.total", "step[0].decoder.x"]
    ordered = in_order([result(name) for name in names], find_case("ddq_detr_4scale_r50_12e"))
    assert [r.name for r in ordered] == [names[3], names[2], names[1], names[0]]


def test_the_first_departure_is_named_by_its_parameter() -> None:
    results = [
        result("step[0].loss.total"),
        result("step[1].gradients.gradients", Verdict.DIVERGED, "table"),
        result("step[1].gradients.gradients[neck.bias]", Verdict.DIVERGED, "row"),
        result("step[2].loss.total", Verdict.DIVERGED),
    ]
    assert departure(results) == ("the trajectory departs at step 1, in stage gradients, at gradients[neck.bias]",)
    assert departure(results[:1]) == ()


@pytest.mark.parametrize(
    "record, stages, modes, dtypes",
    [
        ("padded", 8, 2, 2),
        ("train-two-sizes", 9, 1, 2),
        ("trajectory", 1, 1, 1),
    ],
)
def test_a_records_name_says_which_checks_it_is_for(record: str, stages: int, modes: int, dtypes: int) -> None:
    checks = checks_of(find_case("ddq_detr_4scale_r50_12e"), record)
    assert (len(checks.stages), len(checks.modes), len(checks.dtypes)) == (stages, modes, dtypes)
