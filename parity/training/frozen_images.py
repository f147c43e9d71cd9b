"""Frozen batches for mmdet 2, image by image: its loader puts those of a batch together again.

Runs in the legacy interpreter only.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Dict

from parity.cases.patterns import item
from parity.errors import ParityError
from parity.training.frozen_batches import FrozenBatches, Tensors

DATA_SET = "FrozenImages"


class FrozenImages:
    """A data set of mmdet 2 whose images are padded to their batch, normalised, and come batch after batch.

    Args:
        folder: what ``parity freeze CASE --batches N`` wrote.

    Raises:
        ParityError: there are no batches, or not all have the same number of images.
    """

    PALETTE = None

    def __init__(self, folder: str) -> None:
        from mmdet.datasets import CocoDataset

        self.CLASSES = CocoDataset.CLASSES
        self._batches = FrozenBatches(folder)
        sizes = {len(batch["objects"]) for batch in self._batches.manifest["batches"]}
        if len(sizes) != 1:
            raise ParityError(f"{folder}: batches of {sorted(sizes)} images; mmdet 2 is fed batches of one size only")
        (self.batch_size,) = sizes
        self._read: Dict[int, Tensors] = {}

    def __len__(self) -> int:
        return len(self._batches) * self.batch_size

    def __getitem__(self, index: int) -> Dict[str, Any]:
        from mmcv.parallel import DataContainer

        batch, place = divmod(index, self.batch_size)
        if batch not in self._read:
            self._read = {batch: self._batches.tensors(batch)}
        tensors = self._read[batch]
        return {
            "img": DataContainer(tensors["image"][place], stack=True),
            "img_metas": DataContainer(_meta(tensors, place), cpu_only=True),
            "gt_bboxes": DataContainer(tensors[item("gt_boxes", place)]),
            "gt_labels": DataContainer(tensors[item("gt_labels", place)]),
        }


def _meta(tensors: Tensors, place: int) -> Dict[str, Any]:
    whole = (*tensors["batch_input_shape"].tolist(), 3)
    return {
        "img_shape": (*tensors["img_shape"][place].tolist(), 3),
        "ori_shape": (*tensors["ori_shape"][place].tolist(), 3),
        "pad_shape": whole,
        "batch_input_shape": whole[:2],
        "scale_factor": tensors["scale_factor"][place].repeat(2).numpy(),
        "flip": bool(tensors["flip"][place]),
    }


def feed(config: Any, folder: str) -> Any:
    """Let a config of mmdet 2 train on frozen batches, in their order, on one GPU or the CPU; return it."""
    import mmdet.apis.train
    from mmdet.datasets import DATASETS, build_dataloader

    mmdet.apis.train.build_dataloader = partial(build_dataloader, shuffle=False)  # no config can ask for that
    DATASETS.register_module(name=DATA_SET, module=FrozenImages, force=True)
    config.data.samples_per_gpu, config.data.workers_per_gpu = FrozenImages(folder).batch_size, 0
    config.data.train = {"type": DATA_SET, "folder": folder}
    return config
