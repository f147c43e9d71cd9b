"""DDQ FCN and DDQ R-CNN as their authors published them: mmdet 2.22.0, with ``projects/`` from the user's checkout."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np
import torch

from parity.cases.base import Case
from parity.cases.patterns import item
from parity.engines.base import Engine, Metas
from parity.engines.legacy import make_cuda_calls_harmless, require_project_file


class DdqMmdet2Engine(Engine):
    name = "ddq_mmdet2"
    packages = ("numpy", "mmcv", "mmdet", "cv2")

    def __init__(self, root: str = "", device: str = "cpu") -> None:
        super().__init__(root, device)
        require_project_file(root, "projects/models/ddq_fcn_head.py", branch="main")
        # Last, not first: the checkout also holds a copy of mmdet, and the registry's is the one that is pinned.
        sys.path.append(root)
        if device == "cpu":
            make_cuda_calls_harmless()

    def config(self, case: Case) -> Any:
        from mmcv import Config

        importlib.import_module("projects")  # registers the detectors
        return Config.fromfile(os.path.join(self.root, case.configs[self.name]))

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

    def predict(self, model: Any, image: torch.Tensor, metas: Metas) -> Any:
        return model.simple_test(image, self.meta_dicts(metas), rescale=True)

    def final_tensors(self, results: Any) -> Metas:
        """Return what it gives in the end: an array (N, 5) of boxes and scores for each class, joined."""
        return {item("detections", i): torch.from_numpy(np.concatenate(result)) for i, result in enumerate(results)}

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
