"""mmdet's own tools train and test the ports, and get what the harness gets: bit for bit.

Both sides run the same code on the same bytes with one thread on the same machine, so nothing may differ. A
tolerance would hide small errors, and would have to say what to do about near equal scores that change places:
a second thread alone moves boxes by up to 7e-4 pixels.
"""

from __future__ import annotations

import contextlib
import math
import pickle
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from port_tools import COCO, SCALE, logged_steps, options_for, run_tool
from torch import Tensor

from parity.coco.synthesize import synthesize
from parity.compare.tensors import measure
from parity.engines.session import Session
from parity.weights import guarded

CASES = ("ddq_fcn_r50_12e", "ddq_fcn_r50_36e", "ddq_rcnn_r50_12e", "ddq_rcnn_r50_36e")
SEED = 5
DETECTIONS = 300  # of every image
SIZES = ((96, 128), (80, 128), (96, 120), (72, 112), (88, 128))  # height and width in pixels, each wider than high
Losses = list[dict[str, float]]


@dataclass
class Port:
    """One port: a session of the harness, synthetic weights, and a folder with a COCO where the tools run."""

    session: Session
    config: Path
    folder: Path
    weights: dict[str, Tensor]
    synthetic: Path

    @property
    def trained(self) -> Path:
        """Where the train tool leaves its checkpoint."""
        return self.folder / "train" / "epoch_1.pth"


@pytest.fixture(scope="module", params=CASES)
def port(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Port]:
    folder = tmp_path_factory.mktemp("port")
    synthesize(folder / COCO, images=5, val=3, sizes=SIZES)
    session = Session("mmdet3")
    session.load(request.param, "fp32")
    session.fill(SEED)
    session.configure(threads=1, onednn=True)
    weights = {name: tensor.clone() for name, tensor in session.model.state_dict().items()}
    torch.save({"meta": {}, "state_dict": weights}, folder / "synthetic.pth")
    config = Path(session.engine.config_path(session.case))
    yield Port(session, config, folder, weights, folder / "synthetic.pth")
    shutil.rmtree(folder)  # up to a gigabyte of checkpoints


@pytest.fixture(scope="module")
def training(port: Port) -> Losses:
    """Train for an epoch with mmdet's tool; return what it logged."""
    options = {**options_for(port.config), "load_from": port.synthetic.name}
    run_tool("train", port.config, folder=port.folder, options=options)
    return logged_steps(port.folder)


def trained_weights(port: Port) -> dict[str, Tensor]:
    return dict(guarded.load(port.trained)["state_dict"])


def differing(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the greatest error of every tensor that is not the same bit for bit."""
    assert actual.keys() == expected.keys()
    assert actual
    found = {name: measure(actual[name], expected[name]) for name in expected}
    return {name: each.max_abs for name, each in found.items() if each.max_abs != 0.0 or not each.finite}


def plain_training(port: Port) -> Losses:
    """Train the session's model for an epoch without mmengine's runner; return the losses of every step."""
    from mmengine.config import Config
    from mmengine.runner import Runner, set_random_seed

    config = Config.fromfile(port.config)
    config.merge_from_dict(options_for(port.config))
    port.session.load_state(port.weights)
    model = port.session.model.train()
    settings = config.optim_wrapper.optimizer
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay)
    set_random_seed(config.randomness.seed)  # flips, scales and crops come from numpy's global generator
    with contextlib.chdir(port.folder):
        loader = Runner.build_dataloader(config.train_dataloader, seed=config.randomness.seed)
        losses = [plain_step(model, optimizer, batch, config.optim_wrapper.get("clip_grad")) for batch in loader]
    optimizer.zero_grad()
    model.eval()
    return losses


def plain_step(model: Any, optimizer: torch.optim.Optimizer, batch: Any, clip: Any) -> dict[str, float]:
    data = model.data_preprocessor(batch, True)
    loss, named = model.parse_losses(model.loss(data["inputs"], data["data_samples"]))
    optimizer.zero_grad()
    loss.backward()
    if clip:
        torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], **clip)
    optimizer.step()
    return {name: value.item() for name, value in named.items()}


def predictions_of_the_tool(port: Port, checkpoint: Path) -> dict[str, Tensor]:
    """Test a checkpoint with mmdet's tool; return image file and field -> detections."""
    words = (port.config, checkpoint, "--out", "predictions.pkl")
    run_tool("test", *words, folder=port.folder, options=options_for(port.config))
    images = pickle.loads((port.folder / "predictions.pkl").read_bytes())
    return {
        f"{Path(image['img_path']).name} {field}": tensor
        for image in images
        for field, tensor in image["pred_instances"].items()
    }


def predictions_of_the_harness(port: Port, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the same from the session, one image at a time, as the config's test loader has them."""
    port.session.load_state(weights)
    found = {}
    for file in sorted((port.folder / COCO / "val2017").iterdir()):
        results = port.session.bare(port.session.preprocess([file.read_bytes()], SCALE).tensors)
        for field, name in (("bboxes", "boxes"), ("scores", "scores"), ("labels", "labels")):
            found[f"{file.name} {field}"] = results[f"{name}[0]"]
    return found


@pytest.mark.parametrize("wrong", [1.0 + 2.0**-23, math.nan])
def test_one_last_bit_counts_as_different(wrong: float) -> None:
    ones = {"a": torch.ones(3), "b": torch.ones(2)}
    assert differing(ones, ones) == {}
    assert list(differing({**ones, "b": torch.tensor([1.0, wrong])}, ones)) == ["b"]


def test_the_train_tool_moves_what_is_trainable_and_nothing_else(port: Port, training: Losses) -> None:
    """All of it, so distributed training needs no ``find_unused_parameters``."""
    assert len(training) == 2  # batches of two: of five images the one without objects is left out
    assert all(math.isfinite(value) for step in training for value in step.values())
    parameters = port.session.model.named_parameters()
    trainable = {name for name, parameter in parameters if parameter.requires_grad}
    moved = set(differing(trained_weights(port), port.weights))
    assert sorted(moved ^ trainable) == []


def test_the_train_tool_gives_the_losses_and_weights_of_a_plain_loop(port: Port, training: Losses) -> None:
    expected = plain_training(port)
    actual = [{name: step[name] for name in wanted} for step, wanted in zip(training, expected, strict=True)]
    assert actual == expected
    assert differing(trained_weights(port), port.session.model.state_dict()) == {}


def test_the_test_tool_predicts_what_the_harness_computes(port: Port) -> None:
    actual = predictions_of_the_tool(port, port.synthetic)
    assert {len(tensor) for tensor in actual.values()} == {DETECTIONS}
    assert differing(actual, predictions_of_the_harness(port, port.weights)) == {}


def test_the_test_tool_reads_what_the_train_tool_wrote(port: Port, training: Losses) -> None:
    with pytest.raises(pickle.UnpicklingError, match="weights_only"):
        torch.load(port.trained, weights_only=True)
    actual = predictions_of_the_tool(port, port.trained)
    assert differing(actual, predictions_of_the_harness(port, trained_weights(port))) == {}
