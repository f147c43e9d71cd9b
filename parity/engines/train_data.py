"""The training data of a published config: its own data set, pipeline and batches, of mmdet 2 and of mmdet 3.

Only where the data lie is replaced. Runs in both interpreters.
"""

from __future__ import annotations

import os
from typing import Any, Dict, Iterator, List, Sequence

import numpy as np
import torch

Tensors = Dict[str, torch.Tensor]
ANNOTATIONS, IMAGES = "annotations.json", "images"  # in the folder of the data


class _Order(torch.utils.data.Sampler):  # type: ignore[type-arg]
    """A sampler that gives the indices that it is given."""

    def __init__(self, dataset: Any, indices: List[int]) -> None:
        self.dataset, self._indices = dataset, indices

    def __iter__(self) -> Iterator[int]:
        return iter(self._indices)


class Mmdet3TrainData:
    """What the training dataloader of an mmdet 3 config gives.

    Args:
        config: the whole config.
        folder: holds the annotations and the images.
    """

    def __init__(self, config: Any, folder: str) -> None:
        from mmdet.registry import DATASETS, MODELS
        from mmdet.utils import register_all_modules

        register_all_modules(init_default_scope=True)
        settings = config.train_dataloader.dataset
        settings.data_root, settings.ann_file = folder, ANNOTATIONS
        settings.data_prefix = {"img": IMAGES + "/"}
        self.data_set = DATASETS.build(settings)
        self._batch_sampler = config.train_dataloader.batch_sampler
        self.batch_size = int(config.train_dataloader.batch_size)
        self._preprocessor = MODELS.build(config.model.data_preprocessor)

    def __len__(self) -> int:
        return len(self.data_set)

    def parsed(self, index: int) -> Tensors:
        """Return an image's id, and what the data set makes of its annotations: boxes in pixels xyxy."""
        info = self.data_set.get_data_info(index)
        used = [thing for thing in info["instances"] if not thing["ignore_flag"]]
        ignored = [thing for thing in info["instances"] if thing["ignore_flag"]]
        return {
            "image_id": torch.tensor(info["img_id"]),
            "parsed_boxes": _in_float32([thing["bbox"] for thing in used]),
            "parsed_labels": torch.tensor([thing["bbox_label"] for thing in used], dtype=torch.int64),
            "parsed_ignored_boxes": _in_float32([thing["bbox"] for thing in ignored]),
        }

    def batched_with(self, other: int) -> torch.Tensor:
        """Return (I,) bool: whether the batch sampler puts an image into a batch with another one, if it can."""
        from mmdet.registry import DATA_SAMPLERS

        found = []
        for index in range(len(self)):
            order = _Order(self.data_set, [index, other, other])
            batches = DATA_SAMPLERS.build(dict(self._batch_sampler, sampler=order, batch_size=2))
            found.append(index in next(iter(batches)))
        return torch.tensor(found)

    def example(self, index: int) -> Any:
        """Run the pipeline on an image."""
        return self.data_set[index]

    def described(self, example: Any) -> Tensors:
        """Return what the pipeline gave: pixels (3, H, W) uint8 BGR, boxes in pixels xyxy, labels."""
        sample = example["data_samples"]
        return {
            "pixels": example["inputs"],
            "img_shape": torch.tensor(sample.img_shape[:2]),
            "flip": torch.tensor(bool(sample.flip)),
            "boxes": _boxes(sample.gt_instances.bboxes),
            "labels": sample.gt_instances.labels,
            "ignored_boxes": _boxes(sample.ignored_instances.bboxes),
        }

    def batch(self, examples: Sequence[Any]) -> torch.Tensor:
        """Return examples as the detector is given them: (B, 3, H, W), normalised RGB, padded."""
        from mmengine.dataset import pseudo_collate

        image: torch.Tensor = self._preprocessor(pseudo_collate(list(examples)), True)["inputs"]
        return image


class Mmdet2TrainData:
    """What the training data of an mmdet 2 config give; the same words as ``Mmdet3TrainData``.

    Args:
        config: the whole config.
        folder: holds the annotations and the images.
        step: makes a pipeline's step of its settings: the normalisation is made in float64 by it.
    """

    def __init__(self, config: Any, folder: str, *, step: Any) -> None:
        from mmdet.datasets import build_dataset

        settings = config.data.train
        settings.ann_file, settings.img_prefix = os.path.join(folder, ANNOTATIONS), os.path.join(folder, IMAGES)
        pipeline = []
        for each in settings.pipeline:
            if each["type"] == "Normalize":  # in mmdet 3 the detector does that, from here on
                pipeline.append(self._note)
            pipeline.append(step(each))
        settings.pipeline = pipeline
        self.data_set = build_dataset(settings)
        self.batch_size = int(config.data.samples_per_gpu)
        self._noted: Dict[str, Any] = {}

    def _note(self, results: Dict[str, Any]) -> Dict[str, Any]:
        """Stand in the pipeline before the normalisation and note what comes by."""
        kept = {key: results[key] for key in ("img_shape", "flip", "gt_bboxes", "gt_labels", "gt_bboxes_ignore")}
        self._noted = {**kept, "img": results["img"].copy()}
        return results

    def __len__(self) -> int:
        return len(self.data_set)

    def parsed(self, index: int) -> Tensors:
        """Return an image's id, and what the data set makes of its annotations: boxes in pixels xyxy."""
        found = self.data_set.get_ann_info(index)
        return {
            "image_id": torch.tensor(self.data_set.data_infos[index]["id"]),
            "parsed_boxes": _boxes(found["bboxes"]),
            "parsed_labels": torch.from_numpy(found["labels"]),
            "parsed_ignored_boxes": _boxes(found["bboxes_ignore"]),
        }

    def batched_with(self, other: int) -> torch.Tensor:
        """Return (I,) bool: whether the sampler puts an image into a batch with another one, if it can."""
        groups = torch.from_numpy(np.asarray(self.data_set.flag))
        return groups == groups[other]

    def example(self, index: int) -> Any:
        """Run the pipeline on an image; return what it gives, and what it was before the normalisation."""
        return self.data_set[index], self._noted

    def described(self, example: Any) -> Tensors:
        """Return what the pipeline gave: pixels (3, H, W) uint8 BGR, boxes in pixels xyxy, labels."""
        packed, noted = example
        return {
            "pixels": torch.from_numpy(noted["img"]).permute(2, 0, 1).contiguous(),
            "img_shape": torch.tensor(noted["img_shape"][:2]),
            "flip": torch.tensor(bool(noted["flip"])),
            "boxes": _boxes(packed["gt_bboxes"].data),
            "labels": packed["gt_labels"].data,
            "ignored_boxes": _boxes(noted["gt_bboxes_ignore"]),
        }

    def batch(self, examples: Sequence[Any]) -> torch.Tensor:
        """Return examples as the detector is given them: (B, 3, H, W), normalised RGB, padded."""
        from mmcv.parallel import collate

        data = collate([packed for packed, _ in examples], samples_per_gpu=len(examples))
        image: torch.Tensor = data["img"].data[0]
        return image


def _boxes(boxes: Any) -> torch.Tensor:
    """Return boxes (N, 4) in float64: the very numbers, whether they were an array, a tensor or mmdet's box type."""
    plain = getattr(boxes, "tensor", boxes)
    if not isinstance(plain, torch.Tensor):
        plain = torch.from_numpy(np.asarray(plain, dtype=np.float64))
    return plain.double().reshape(-1, 4)


def _in_float32(boxes: List[List[float]]) -> torch.Tensor:
    """Return boxes as ``_boxes`` does, rounded to float32: mmdet 3 does so in its pipeline, mmdet 2 here."""
    return _boxes(np.asarray(boxes, dtype=np.float32))
