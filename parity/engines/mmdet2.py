"""mmdet 2.x as its own package installs it: stock detectors, and users' own configs."""

from __future__ import annotations

import copy
import os
import sys
import tempfile
from typing import Any, Callable, Dict, Iterator, List, Mapping, Sequence, Tuple

import numpy as np
import torch

from parity.cases.base import Case
from parity.cases.patterns import item
from parity.engines.base import Engine, Metas, Updater
from parity.engines.initialisation import without_pretrained
from parity.engines.legacy import make_cuda_calls_harmless


class Mmdet2Engine(Engine):
    """mmdet 2.22.0 with mmcv-full 1.4.7.

    ``root`` may name a folder that the user's configs import from, and that relative configs are below;
    stock detectors need none.
    """

    name = "mmdet2"
    dialect = "mmdet2"
    packages = ("numpy", "mmcv", "mmdet", "cv2")

    def __init__(self, root: str = "", device: str = "cpu") -> None:
        super().__init__(root, device)
        if root:
            # Last, not first: a checkout may hold a copy of mmdet, and the registry's is the one that is pinned.
            sys.path.append(root)
        if device == "cpu":
            make_cuda_calls_harmless()

    def config(self, case: Case) -> Any:
        from mmcv import Config

        return self.with_options(case, Config.fromfile(self.config_path(case)))

    def build(self, case: Case, dtype: torch.dtype) -> Any:
        from mmdet.models import build_detector

        config = self.config(case)
        model = build_detector(config.model, train_cfg=config.get("train_cfg"), test_cfg=config.get("test_cfg"))
        return model.to(dtype).to(self.device).eval()

    def preprocess(self, case: Case, model: Any, files: Sequence[bytes], scale: Tuple[int, int]) -> Metas:
        from mmcv.parallel import collate
        from mmdet.datasets.pipelines import Compose

        pipeline = Compose(self._test_pipeline(case, scale))
        with tempfile.TemporaryDirectory() as folder:
            loaded = []
            for index, content in enumerate(files):
                path = os.path.join(folder, str(index))
                with open(path, "wb") as file:
                    file.write(content)
                loaded.append(pipeline({"img_info": {"filename": path}, "img_prefix": None}))
        data = collate(loaded, samples_per_gpu=len(files))
        image, metas = data["img"][0].data[0], data["img_metas"][0].data[0]
        return {
            "image": image.to(torch.get_default_dtype()),
            "img_shape": torch.tensor([meta["img_shape"][:2] for meta in metas]),
            "ori_shape": torch.tensor([meta["ori_shape"][:2] for meta in metas]),
            "scale_factor": torch.tensor([_scale_factor(meta) for meta in metas], dtype=torch.get_default_dtype()),
            "batch_input_shape": torch.tensor(image.shape[-2:]),
        }

    def _test_pipeline(self, case: Case, scale: Tuple[int, int]) -> List[Any]:
        """Return the config's own test pipeline, resizing into ``scale`` or by 1; in a float64 run in float64."""
        from mmdet.datasets import replace_ImageToTensor

        steps = []
        for step in replace_ImageToTensor(self.config(case).data.test.pipeline):  # as mmdet does for batches
            if step["type"] == "MultiScaleFlipAug":
                size = {"scale_factor": 1.0} if scale == (0, 0) else {"img_scale": scale}
                transforms = [_in_float64(inner) for inner in step["transforms"]]
                step = {**{k: v for k, v in step.items() if k != "img_scale"}, **size, "transforms": transforms}
            steps.append(step)
        return steps

    def losses(self, model: Any, batch: Metas) -> Mapping[str, Any]:
        images = range(len(batch["img_shape"]))
        losses: Mapping[str, Any] = model.forward_train(
            batch["image"],
            self.meta_dicts(batch),
            gt_bboxes=[batch[item("gt_boxes", i)] for i in images],
            gt_labels=[batch[item("gt_labels", i)] for i in images],
        )
        return losses

    def updater(self, case: Case, model: Any) -> Updater:
        from mmcv.runner import build_optimizer

        config = self.config(case)
        return Updater(build_optimizer(model, config.optimizer), config.optimizer_config.get("grad_clip") or {})

    def predict(self, model: Any, image: torch.Tensor, metas: Metas) -> Any:
        return model.simple_test(image, self.meta_dicts(metas), rescale=True)

    def final_tensors(self, results: Any) -> Metas:
        """Return what it gives in the end: an array (N, 5) of boxes and scores for each class, joined."""
        return {item("detections", i): torch.from_numpy(np.concatenate(result)) for i, result in enumerate(results)}

    def test_pipeline(self, case: Case) -> Callable[[str], Any]:
        from mmdet.datasets.pipelines import Compose

        pipeline = Compose(self.config(case).data.test.pipeline)
        return lambda path: pipeline({"img_info": {"filename": path}, "img_prefix": None})

    def detect(self, model: Any, loaded: Any) -> Metas:
        from mmcv.parallel import collate

        batch = collate([loaded], samples_per_gpu=1)
        images = [image.to(self.device) for image in batch["img"]]  # one for each test-time augmentation: one
        metas = [meta.data[0] for meta in batch["img_metas"]]
        (found,) = model(return_loss=False, rescale=True, img=images, img_metas=metas)
        counts = torch.tensor([len(rows) for rows in found])
        rows = torch.from_numpy(np.concatenate(found))
        labels = torch.arange(len(found)).repeat_interleave(counts)
        return {"boxes": rows[:, :4], "scores": rows[:, 4], "labels": labels}

    def schedule(self, case: Case) -> Metas:
        from parity.engines.schedules import mmcv_rates

        return mmcv_rates(self.config(case), self.build(case, torch.float32))

    def initialiser(self, case: Case) -> Tuple[Callable[[], Any], List[str]]:
        from mmdet.models import build_detector

        config = self.config(case)
        checkpoints = without_pretrained(config.model)

        def make() -> Any:
            detector = build_detector(
                copy.deepcopy(config.model), train_cfg=config.get("train_cfg"), test_cfg=config.get("test_cfg")
            )
            detector.init_weights()
            return detector

        return make, checkpoints

    def train_data(self, case: Case, folder: str) -> Any:
        from parity.engines.train_data import Mmdet2TrainData

        return Mmdet2TrainData(self.config(case), folder, step=_in_float64)

    def training_in_force(self, case: Case, folder: str) -> Dict[str, Any]:
        from parity.engines.training_setup import mmcv_in_force

        return mmcv_in_force(self.config(case), folder)

    def batches(self, case: Case, *, data_root: str, seed: int, options: Sequence[str]) -> Iterator[Metas]:
        from parity.engines.loaders import mmcv_batches
        from parity.engines.published import change

        return mmcv_batches(change(self.config(case), data_root=data_root, options=options), seed)

    def samples(self, metas: Metas) -> List[Any]:
        return []

    def meta_dicts(self, metas: Metas) -> List[Dict[str, Any]]:
        batch_input_shape = tuple(metas["batch_input_shape"].tolist())
        return [
            {
                "img_shape": (*metas["img_shape"][i].tolist(), 3),
                "ori_shape": (*metas["ori_shape"][i].tolist(), 3),
                "pad_shape": (*batch_input_shape, 3),
                "batch_input_shape": batch_input_shape,
                "scale_factor": metas["scale_factor"][i].repeat(2).cpu().numpy(),
                "flip": False,
            }
            for i in range(len(metas["img_shape"]))
        ]


def _scale_factor(meta: Dict[str, Any]) -> List[float]:
    """Return the resize factors of width and height.

    mmdet 2 keeps them as float32. In a float64 run that is an island like any other, outside of the model:
    they are computed again from the shapes.
    """
    if torch.get_default_dtype() is torch.float32:
        return [float(factor) for factor in meta["scale_factor"][:2]]
    (height, width), (full_height, full_width) = meta["img_shape"][:2], meta["ori_shape"][:2]
    return [width / full_width, height / full_height]


def _in_float64(step: Any) -> Any:
    """Return a pipeline step; in a float64 run the normalisation is replaced by the same in float64."""
    if step["type"] != "Normalize" or torch.get_default_dtype() is torch.float32:
        return step
    mean, std = np.array(step["mean"]), np.array(step["std"])

    def normalize(results: Dict[str, Any]) -> Dict[str, Any]:
        image = results["img"].astype(np.float64)
        if step["to_rgb"]:
            image = image[..., ::-1]
        results["img"] = np.ascontiguousarray((image - mean) / std)
        results["img_norm_cfg"] = {"mean": mean, "std": std, "to_rgb": step["to_rgb"]}
        return results

    return normalize
