"""The ports where it is uncomfortable: no objects, hardly any candidates, half precision, CUDA."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from parity.engines.session import Session

CASES = ("ddq_fcn_r50_12e", "ddq_rcnn_r50_12e")
SIDE = 64


@functools.cache
def model_of(case: str) -> Any:
    session = Session("mmdet3")
    session.load(case, "fp32")
    session.fill(3)
    return session.model


def image(side: int = SIDE) -> torch.Tensor:
    return torch.linspace(-2.0, 2.0, 3 * side * side).sin().view(1, 3, side, side)


def sample(*, side: int = SIDE, boxes: list[list[float]]) -> Any:
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    meta = {"img_shape": (side, side), "batch_input_shape": (side, side), "scale_factor": (1.0, 1.0)}
    found = DetDataSample(metainfo={**meta, "ori_shape": (side, side), "pad_shape": (side, side)})
    labels = torch.arange(len(boxes)) * 7
    found.gt_instances = InstanceData(bboxes=torch.tensor(boxes).reshape(-1, 4), labels=labels)
    return found


def total_loss(model: Any, samples: list[Any]) -> torch.Tensor:
    losses = model.loss(image().expand(len(samples), -1, -1, -1), samples)
    terms = [value for name, value in losses.items() if "loss" in name]
    flat = [term for value in terms for term in (value if isinstance(value, list) else [value])]
    return torch.stack([term.float().sum() for term in flat]).sum()


TWO = [[4.0, 4.0, 40.0, 50.0], [20.0, 8.0, 60.0, 30.0]]


@pytest.mark.parametrize("case", CASES)
def test_one_image_without_objects_beside_one_with_trains(case: str) -> None:
    model = model_of(case).train()
    try:
        loss = total_loss(model, [sample(boxes=[]), sample(boxes=TWO)])
        model.zero_grad()
        loss.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        assert loss.isfinite()
        assert loss.detach() > 0.0
        assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    finally:
        model.eval()


@pytest.mark.parametrize("case", CASES)
def test_the_loss_keys_do_not_depend_on_whether_there_are_objects(case: str) -> None:
    """They must not: distributed training waits for the missing ones for ever."""
    model = model_of(case).train()
    try:
        with_objects = model.loss(image(), [sample(boxes=TWO)])
        without = model.loss(image(), [sample(boxes=[])])
        assert with_objects.keys() == without.keys()
    finally:
        model.eval()


@pytest.mark.parametrize("case", CASES)
def test_an_image_with_fewer_candidates_than_queries_is_predicted(case: str) -> None:
    """32 pixels square leave 16 + 4 + 1 + 1 + 1 positions, of 300 queries."""
    with torch.no_grad():
        (result,) = model_of(case)(image(32), [sample(side=32, boxes=[])], mode="predict")
    found = result.pred_instances
    assert 0 < len(found) <= 300
    assert found.bboxes.isfinite().all()
    assert ((found.scores >= 0.0) & (found.scores <= 1.0)).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", CASES)
def test_autocast_predicts_and_has_a_finite_loss(case: str, dtype: torch.dtype) -> None:
    model = model_of(case)
    with torch.autocast("cpu", dtype=dtype):
        with torch.no_grad():
            (result,) = model(image(), [sample(boxes=TWO)], mode="predict")
        assert result.pred_instances.bboxes.isfinite().all()
        assert result.pred_instances.scores.max() > 0.0
        model.train()
        try:
            assert total_loss(model, [sample(boxes=TWO)]).isfinite()
        finally:
            model.eval()


@pytest.mark.cuda
@pytest.mark.parametrize("case", CASES)
def test_cuda_predicts_what_the_cpu_predicts(case: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here: run on a machine with one, with mmcv built there")
    with torch.no_grad():
        (expected,) = model_of(case)(image(), [sample(boxes=[])], mode="predict")
    session = Session("mmdet3", device="cuda")
    session.load(case, "fp32")
    session.fill(3)
    with torch.no_grad():
        (actual,) = session.model(image().cuda(), [sample(boxes=[])], mode="predict")
    best = actual.pred_instances.scores.max().cpu() - expected.pred_instances.scores.max()
    assert abs(float(best)) < 1e-5
