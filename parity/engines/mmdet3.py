"""mmdet 3.x: the new engine, and the base of the legacy one that is built on it."""

from __future__ import annotations

import copy
import os
import tempfile
from typing import Any, Callable, Dict, Iterator, List, Mapping, Sequence, Tuple

import torch

from parity.cases.base import Case
from parity.cases.patterns import item
from parity.engines.base import NORM, VALUE, Engine, Metas, Updater
from parity.engines.initialisation import without_pretrained
from parity.taps import ddq_state


class Mmdet3Engine(Engine):
    """mmdet 3.3.0 with mmcv 2.1.0."""

    name = "mmdet3"
    dialect = "mmdet3"
    runs_here = True
    packages = ("numpy", "mmcv", "mmengine", "mmdet", "cv2")

    def __init__(self, root: str = "", device: str = "cpu") -> None:
        super().__init__(root, device)
        self._configs: Dict[Tuple[str, str], Any] = {}  # a case may be asked for without its options

    def config(self, case: Case) -> Any:
        """Return a copy of the case's config; building and pipelines may alter it."""
        key = (case.id, repr(case.options))
        if key not in self._configs:
            self._configs[key] = self._read_config(case)
        return copy.deepcopy(self._configs[key])

    def _read_config(self, case: Case) -> Any:
        from mmengine.config import Config
        from mmengine.registry import init_default_scope

        path = self.config_path(case)
        init_default_scope("mmdet")
        return self.with_options(case, Config.fromfile(path))

    def build(self, case: Case, dtype: torch.dtype) -> Any:
        from mmdet.registry import MODELS
        from mmdet.utils import register_all_modules

        config = self.config(case)
        register_all_modules(init_default_scope=True)
        return MODELS.build(config.model).to(dtype).to(self.device).eval()

    def preprocess(self, case: Case, model: Any, files: Sequence[bytes], scale: Tuple[int, int]) -> Metas:
        from mmengine.dataset import Compose, pseudo_collate

        with tempfile.TemporaryDirectory() as folder:
            paths = [os.path.join(folder, str(index)) for index in range(len(files))]
            for path, content in zip(paths, files):
                with open(path, "wb") as file:
                    file.write(content)
            pipeline = Compose(self._test_pipeline(case, scale))
            data = pseudo_collate([pipeline({"img_path": path, "img_id": i}) for i, path in enumerate(paths)])
        data = model.data_preprocessor(data, False)
        samples = data["data_samples"]
        metas = {
            name: torch.tensor([list(getattr(sample, name)[:2]) for sample in samples])
            for name in ("img_shape", "ori_shape")
        }
        factors = [list(getattr(sample, "scale_factor", (1.0, 1.0))) for sample in samples]
        metas["scale_factor"] = torch.tensor(factors, dtype=torch.get_default_dtype())
        metas["batch_input_shape"] = torch.tensor(list(samples[0].batch_input_shape))
        # Without a normalisation the data preprocessor gives float32, whatever the run's dtype: whole numbers, exact.
        return {"image": data["inputs"].to(torch.get_default_dtype()), **metas}

    def _test_pipeline(self, case: Case, scale: Tuple[int, int]) -> List[Dict[str, Any]]:
        """Return the config's own test pipeline without annotations, resizing into ``scale`` or by 1."""
        steps = []
        for step in self.config(case).test_dataloader.dataset.pipeline:
            if step.type == "Resize":
                size = {"scale_factor": 1.0} if scale == (0, 0) else {"scale": scale}
                step = {**{key: value for key, value in step.items() if key != "scale"}, **size}
            if step["type"] != "LoadAnnotations":
                steps.append(step)
        return steps

    def predict(self, model: Any, image: torch.Tensor, metas: Metas) -> Any:
        return model(image, self.samples(metas), mode="predict")

    def losses(self, model: Any, batch: Metas) -> Mapping[str, Any]:
        from mmengine.structures import InstanceData

        samples = self.samples(batch)
        for i, sample in enumerate(samples):
            sample.gt_instances = InstanceData(bboxes=batch[item("gt_boxes", i)], labels=batch[item("gt_labels", i)])
        losses: Mapping[str, Any] = model(batch["image"], samples, mode="loss")
        return losses

    def updater(self, case: Case, model: Any) -> Updater:
        from mmengine.logging import MMLogger
        from mmengine.optim import build_optim_wrapper

        MMLogger.get_current_instance().setLevel("ERROR")  # it tells every parameter's group
        wrapper = build_optim_wrapper(model, self.config(case).optim_wrapper)
        by_value = getattr(wrapper, "clip_func", None) is torch.nn.utils.clip_grad_value_
        return Updater(wrapper.optimizer, wrapper.clip_grad_kwargs or {}, VALUE if by_value else NORM)

    def final_tensors(self, results: Any) -> Metas:
        fields = (("bboxes", "boxes"), ("scores", "scores"), ("labels", "labels"))
        return {
            item(name, i): getattr(result.pred_instances, attribute)
            for i, result in enumerate(results)
            for attribute, name in fields
        }

    def test_pipeline(self, case: Case) -> Callable[[str], Any]:
        from mmengine.dataset import Compose

        steps = self.config(case).test_dataloader.dataset.pipeline
        pipeline = Compose([step for step in steps if step.type != "LoadAnnotations"])
        return lambda path: pipeline({"img_path": path, "img_id": 0})

    def detect(self, model: Any, loaded: Any) -> Metas:
        from mmengine.dataset import pseudo_collate

        found = model.test_step(pseudo_collate([loaded]))[0].pred_instances
        return {"boxes": found.bboxes, "scores": found.scores, "labels": found.labels}

    def samples(self, metas: Metas) -> List[Any]:
        from mmdet.structures import DetDataSample

        return [DetDataSample(metainfo=meta) for meta in self.meta_dicts(metas)]

    def instances(self, attributes: Mapping[str, torch.Tensor]) -> Any:
        from mmengine.structures import InstanceData

        return InstanceData(**attributes)

    def meta_dicts(self, metas: Metas) -> List[Dict[str, Any]]:
        batch_input_shape = tuple(metas["batch_input_shape"].tolist())
        return [
            {
                "img_shape": tuple(metas["img_shape"][i].tolist()),
                "ori_shape": tuple(metas["ori_shape"][i].tolist()),
                "scale_factor": tuple(metas["scale_factor"][i].tolist()),
                "batch_input_shape": batch_input_shape,
                "pad_shape": batch_input_shape,
            }
            for i in range(len(metas["img_shape"]))
        ]

    def schedule(self, case: Case) -> Metas:
        from parity.engines.schedules import mmengine_rates

        return mmengine_rates(self.config(case), self.build(case, torch.float32))

    def initialiser(self, case: Case) -> Tuple[Callable[[], Any], List[str]]:
        from mmdet.registry import MODELS
        from mmdet.utils import register_all_modules

        model = self.config(case).model
        checkpoints = without_pretrained(model)
        register_all_modules(init_default_scope=True)

        def make() -> Any:
            detector = MODELS.build(copy.deepcopy(model))
            detector.init_weights()
            return detector

        return make, checkpoints

    def train_data(self, case: Case, folder: str) -> Any:
        from parity.engines.train_data import Mmdet3TrainData

        return Mmdet3TrainData(self.config(case), folder)

    def training_in_force(self, case: Case, folder: str) -> Dict[str, Any]:
        from parity.engines.training_setup import mmengine_in_force

        return mmengine_in_force(self.config(case), folder)

    def batches(self, case: Case, *, data_root: str, seed: int, options: Sequence[str]) -> Iterator[Metas]:
        from parity.engines.loaders import mmengine_batches
        from parity.engines.published import change

        return mmengine_batches(change(self.config(case), data_root=data_root, options=options), seed)

    def state(self) -> Dict[str, Tuple[Any, Any]]:
        return ddq_state.ACCESS
