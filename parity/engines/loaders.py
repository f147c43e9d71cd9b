"""The batches that an engine's own training loader gives, as plain tensors. Runs in both interpreters.

Everything is the published config's: data set, pipeline, sampler, collation, normalisation and padding.
"""

from __future__ import annotations

from typing import Any, Dict, Iterator, List

import numpy as np
import torch

from parity.cases.patterns import item

Tensors = Dict[str, torch.Tensor]


def mmengine_batches(config: Any, seed: int) -> Iterator[Tensors]:
    """Yield the batches of an mmdet 3 config, epoch after epoch.

    Yields:
        ``image`` (B, 3, H, W) float32, normalised RGB, padded; ``gt_boxes[i]`` (N, 4) float32, pixels xyxy;
        ``gt_labels[i]`` (N,) int64; ``ignored_boxes[i]``; ``img_shape``, ``ori_shape``, ``scale_factor`` (B, 2),
        ``batch_input_shape`` (2,) and ``flip`` (B,).
    """
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules
    from mmengine.runner import Runner, set_random_seed

    register_all_modules(init_default_scope=True)
    settings = config.train_dataloader
    settings.num_workers, settings.persistent_workers = 0, False
    set_random_seed(seed)
    loader = Runner.build_dataloader(settings, seed=seed)
    preprocessor = MODELS.build(config.model.data_preprocessor)
    while True:
        for data in loader:
            batch = preprocessor(data, True)
            yield _mmengine_tensors(batch["inputs"], batch["data_samples"])


def _mmengine_tensors(image: torch.Tensor, samples: List[Any]) -> Tensors:
    found = {
        "image": image,
        "batch_input_shape": torch.tensor(samples[0].batch_input_shape),
        "img_shape": torch.tensor([sample.img_shape[:2] for sample in samples]),
        "ori_shape": torch.tensor([sample.ori_shape[:2] for sample in samples]),
        "scale_factor": torch.tensor([sample.get("scale_factor", (1.0, 1.0))[:2] for sample in samples]),
        "flip": torch.tensor([bool(sample.flip) for sample in samples]),
    }
    for index, sample in enumerate(samples):
        found[item("gt_boxes", index)] = sample.gt_instances.bboxes
        found[item("gt_labels", index)] = sample.gt_instances.labels
        found[item("ignored_boxes", index)] = sample.ignored_instances.bboxes
    return found


def mmcv_batches(config: Any, seed: int) -> Iterator[Tensors]:
    """Yield the batches of an mmdet 2 config, epoch after epoch: as ``mmengine_batches``, but for ignored boxes,
    which mmdet 2 does not hand on."""
    from mmdet.apis import set_random_seed
    from mmdet.datasets import build_dataloader, build_dataset

    set_random_seed(seed)
    settings = {"workers_per_gpu": 0, "num_gpus": 1, "dist": False, "seed": seed}
    loader = build_dataloader(build_dataset(config.data.train), config.data.samples_per_gpu, **settings)
    while True:
        for data in loader:
            (image,), (metas,) = data["img"].data, data["img_metas"].data
            (boxes,), (labels,) = data["gt_bboxes"].data, data["gt_labels"].data
            yield _mmcv_tensors(image, metas, boxes, labels)


def _mmcv_tensors(image: torch.Tensor, metas: List[Any], boxes: List[Any], labels: List[Any]) -> Tensors:
    found = {
        "image": image,
        "batch_input_shape": torch.tensor(image.shape[-2:]),
        "img_shape": torch.tensor([meta["img_shape"][:2] for meta in metas]),
        "ori_shape": torch.tensor([meta["ori_shape"][:2] for meta in metas]),
        "scale_factor": torch.from_numpy(np.stack([meta["scale_factor"][:2] for meta in metas])),
        "flip": torch.tensor([bool(meta["flip"]) for meta in metas]),
    }
    for index in range(len(metas)):
        found[item("gt_boxes", index)], found[item("gt_labels", index)] = boxes[index], labels[index]
    return found
