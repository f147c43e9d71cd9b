"""Batches dumped from one engine's loader, fed to the other's training loop in place of its data pipeline.

``feed`` puts them into a config of mmdet 3. Runs in every interpreter.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any, Dict, List, Tuple

import torch

from parity.cases.patterns import item
from parity.engines.wire import unpack
from parity.errors import DAMAGE, ParityError

SCHEMA = 1
MANIFEST = "manifest.json"
DATA_SET, COLLATE, PREPROCESSOR = "FrozenBatches", "parity_only_batch", "FrozenDetDataPreprocessor"
Tensors = Dict[str, torch.Tensor]


class FrozenBatches:
    """A data set whose every item is a whole batch, as mmengine's training loop hands it to the detector.

    Args:
        folder: what ``parity freeze CASE --batches N`` wrote.

    Raises:
        ParityError: the folder holds no batches, or a file of it is damaged.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.manifest = read_manifest(folder)
        self.metainfo: Dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.manifest["batches"])

    def tensors(self, index: int) -> Tensors:
        """Return one batch as plain tensors (see ``engines.loaders``)."""
        described = self.manifest["batches"][index]
        path = os.path.join(self.folder, described["file"])
        try:
            with open(path, "rb") as file:
                content = file.read()
        except OSError as error:
            raise ParityError(f"{path}: {error.strerror}; freeze the batches again") from None
        if hashlib.sha256(content).hexdigest() != described["sha256"]:
            raise ParityError(f"{path} does not have the SHA-256 of the manifest: freeze the batches again")
        return unpack(content)

    def __getitem__(self, index: int) -> Dict[str, Any]:
        tensors = self.tensors(index)
        count = len(tensors["image"])
        return {"inputs": tensors["image"], "data_samples": [_sample(tensors, place) for place in range(count)]}


def read_manifest(folder: str) -> Dict[str, Any]:
    """Return what a folder of frozen batches says of itself."""
    path = os.path.join(folder, MANIFEST)
    try:
        with open(path, encoding="utf-8") as file:
            manifest = json.load(file)
        good = manifest["schema"] == SCHEMA and all(
            os.path.basename(batch["file"]) == batch["file"] and batch["sha256"] for batch in manifest["batches"]
        )
    except DAMAGE as error:
        raise ParityError(f"{path} is no manifest of frozen batches ({error}): `parity freeze --batches`") from None
    if not good or not manifest["batches"]:
        raise ParityError(f"{path} is of another schema, empty, or names a file outside of its folder: refused")
    return dict(manifest)


def _sample(tensors: Tensors, place: int) -> Any:
    """Return one image's annotations and metas as mmdet 3 has them after its preprocessing."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    whole = _pair(tensors["batch_input_shape"])
    sample = DetDataSample(
        metainfo={
            "img_shape": _pair(tensors["img_shape"][place]),
            "ori_shape": _pair(tensors["ori_shape"][place]),
            "scale_factor": _pair(tensors["scale_factor"][place]),
            "flip": bool(tensors["flip"][place]),
            "batch_input_shape": whole,
            "pad_shape": whole,
        }
    )
    boxes, labels = tensors[item("gt_boxes", place)], tensors[item("gt_labels", place)]
    sample.gt_instances = InstanceData(bboxes=boxes, labels=labels)
    ignored = tensors.get(item("ignored_boxes", place), boxes[:0])
    sample.ignored_instances = InstanceData(bboxes=ignored, labels=labels.new_zeros(len(ignored)))
    return sample


def _pair(tensor: torch.Tensor) -> Tuple[Any, ...]:
    return tuple(tensor.tolist())


def only_batch(items: List[Any]) -> Any:
    """Return the one item of a list: the loader takes one frozen batch at a time."""
    (batch,) = items
    return batch


def register() -> None:
    """Tell mmdet 3's registries of the data set, of how its items are collated, and of a preprocessor that leaves
    batches that are ready alone."""
    from mmdet.models import DetDataPreprocessor
    from mmdet.registry import DATASETS, MODELS
    from mmengine.registry import FUNCTIONS

    def forward(self: Any, data: Any, training: bool = False) -> Any:
        if isinstance(data["inputs"], torch.Tensor):
            return self.cast_data(data)
        return DetDataPreprocessor.forward(self, data, training)

    preprocessor = type(PREPROCESSOR, (DetDataPreprocessor,), {"forward": forward})
    DATASETS.register_module(name=DATA_SET, module=FrozenBatches, force=True)
    FUNCTIONS.register_module(name=COLLATE, module=only_batch, force=True)
    MODELS.register_module(name=PREPROCESSOR, module=preprocessor, force=True)


def feed(config: Any, folder: str) -> Any:
    """Let a config of mmdet 3 train on frozen batches, in their order; validation stays as it is. Return it.

    Every GPU takes every so-many-th batch; an epoch is once through all of them.
    """
    register()
    config.train_dataloader = {
        "batch_size": 1,
        "num_workers": 0,
        "dataset": {"type": DATA_SET, "folder": folder},
        "sampler": {"type": "DefaultSampler", "shuffle": False},
        "collate_fn": {"type": COLLATE},
    }
    config.model.data_preprocessor.type = PREPROCESSOR
    return config
