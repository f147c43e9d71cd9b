"""COCO's 91 ids and 80 contiguous classes: annotations, results, checkpoints, and mmdet's own loop."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from parity.coco.categories import IDS, NAMES, NAMES_91
from parity.coco.heads import NEVER, map_head
from parity.coco.synthesize import synthesize
from parity.compare.tensors import measure

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize(tmp_path_factory.mktemp("drawn") / "coco", images=4, val=6, sizes=((64, 64),))


@pytest.fixture(scope="module")
def instances(root: Path) -> Path:
    return root / "annotations" / "instances_val2017.json"


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def same(actual: torch.Tensor, expected: torch.Tensor) -> bool:
    assert actual.shape == expected.shape
    return measure(actual, expected).max_abs == 0.0


def test_annotations_are_mapped_and_come_back(parity_command: Command, instances: Path, tmp_path: Path) -> None:
    few, back = tmp_path / "80.json", tmp_path / "91.json"
    assert parity_command("coco", "labels", instances, few, "--80")[0] == 0
    assert parity_command("coco", "labels", few, back, "--91")[0] == 0
    whole, mapped = read(instances), read(few)
    assert read(back) == whole
    assert [category["id"] for category in mapped["categories"]] == list(range(80))
    assert [category["name"] for category in mapped["categories"]] == list(NAMES)
    pairs = {
        (old["category_id"], new["category_id"])
        for old, new in zip(whole["annotations"], mapped["annotations"], strict=True)
    }
    assert pairs == {(number, IDS.index(number)) for number, _ in pairs}
    assert len(pairs) > 3
    assert [dict(entry, category_id=0) for entry in mapped["annotations"]] == [
        dict(entry, category_id=0) for entry in whole["annotations"]
    ]


def test_results_are_mapped(parity_command: Command, tmp_path: Path) -> None:
    source = tmp_path / "results.json"
    source.write_text('[{"image_id": 1, "category_id": 79, "bbox": [1, 2, 3, 4.0], "score": 1e-3}]')
    status, out, _ = parity_command("coco", "labels", source, tmp_path / "91.json", "--91")
    assert (status, out) == (0, f"{tmp_path / '91.json'}: 1 results\n")
    assert read(tmp_path / "91.json") == [{"image_id": 1, "category_id": 90, "bbox": [1, 2, 3, 4.0], "score": 1e-3}]


@pytest.mark.parametrize(
    ("content", "to", "text"),
    [
        ([{"category_id": 12}], "--80", "results[0]: category 12 is none of COCO's own ids, 1 to 90"),
        ([{"category_id": 80}], "--91", "results[0]: category 80 is none of contiguous labels, 0 to 79"),
        ([{"category_id": 1}, {"score": 1}], "--80", "results[1] has no category_id"),
        ([{"category_id": "1"}], "--80", "results[0]: category_id is not in COCO's format: Expected `int`, got `str`"),
        ([5], "--80", "results[0] is not in COCO's format"),
    ],
)
def test_results_of_other_labels_are_one_line(
    parity_command: Command, tmp_path: Path, content: Any, to: str, text: str
) -> None:
    (tmp_path / "in.json").write_text(json.dumps(content))
    status, _, err = parity_command("coco", "labels", tmp_path / "in.json", tmp_path / "out.json", to)
    assert (status, err.count("\n")) == (2, 1)
    assert text in err
    assert not (tmp_path / "out.json").exists()


def test_annotations_counted_otherwise_are_one_line(parity_command: Command, instances: Path, tmp_path: Path) -> None:
    err = parity_command("coco", "labels", instances, tmp_path / "out.json", "--91")[2]
    assert "category 1 is 'person', but to map it to 91 it has to be counted by contiguous labels" in err
    assert "there 1 is bicycle" in err


def test_a_panoptic_file_is_one_line(parity_command: Command, tmp_path: Path) -> None:
    content = {"images": [], "annotations": [{"image_id": 1, "segments_info": []}], "categories": []}
    (tmp_path / "in.json").write_text(json.dumps(content))
    status, _, err = parity_command("coco", "labels", tmp_path / "in.json", tmp_path / "out.json", "--80")
    assert status == 2
    assert "is a panoptic file" in err


def head(rows: int) -> dict[str, torch.Tensor]:
    """Return a state dict with a head of so many classes, every row of which is another."""
    generator = torch.Generator().manual_seed(0)
    return {
        "bbox_head.cls_branches.0.weight": torch.randn(rows, 4, generator=generator),
        "bbox_head.cls_branches.0.bias": torch.randn(rows, generator=generator),
        "dn_query_generator.label_embedding.weight": torch.randn(rows + 1, 3, generator=generator),
        "backbone.conv1.weight": torch.randn(rows, 2, generator=generator),
        "neck.bias": torch.randn(5, generator=generator),
    }


def test_a_head_of_91_keeps_the_rows_in_use() -> None:
    state = head(91)
    done = map_head(state, to=80)
    for name in done.changed[:2]:
        assert same(done.state[name], state[name][list(IDS)])
    embedding = state["dn_query_generator.label_embedding.weight"]
    assert same(done.state[done.changed[2]], embedding[[*IDS, 91]])
    assert done.suspects == ("backbone.conv1.weight",)
    assert all(done.state[name] is state[name] for name in ("backbone.conv1.weight", "neck.bias"))


def test_a_head_of_80_comes_back_bit_for_bit_and_new_rows_never_win() -> None:
    state = head(80)
    wide = map_head(state, to=91)
    assert all(same(map_head(wide.state, to=80).state[name], value) for name, value in state.items())
    unused = [number for number in range(91) if number not in IDS]
    assert set(wide.state["bbox_head.cls_branches.0.bias"][unused].tolist()) == {NEVER}
    features = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
    weight, bias = (wide.state[f"bbox_head.cls_branches.0.{name}"] for name in ("weight", "bias"))
    assert (features @ weight.T + bias).sigmoid()[:, unused].max() < 1e-40


def test_a_head_is_named_by_a_pattern() -> None:
    done = map_head(head(91), to=80, pattern="backbone.*")
    assert done.changed == ("backbone.conv1.weight",)


@pytest.mark.parametrize(
    ("rows", "to", "pattern", "text"),
    [
        (80, "--80", "", "no parameter has 91 rows, or 92 with no-object"),
        (91, "--91", "", "no parameter has 80 rows, or 81 with no-object"),
        (91, "--80", "*.no", "no parameter has a name like *.no and 91 rows, or 92 with no-object; bbox_head.cls_b"),
    ],
)
def test_a_checkpoint_without_such_a_head_is_one_line(
    parity_command: Command, tmp_path: Path, rows: int, to: str, pattern: str, text: str
) -> None:
    torch.save({"state_dict": head(rows)}, tmp_path / "in.pth")
    words = ("coco", "labels", tmp_path / "in.pth", tmp_path / "out.pth", to, *(("--head", pattern) if pattern else ()))
    status, _, err = parity_command(*words)
    assert (status, err.count("\n")) == (2, 1)
    assert f"in.pth: {text}" in err
    assert not (tmp_path / "out.pth").exists()


def test_a_checkpoint_is_mapped(parity_command: Command, tmp_path: Path) -> None:
    torch.save({"state_dict": head(91), "meta": {}}, tmp_path / "in.pth")
    status, out, _ = parity_command("coco", "labels", tmp_path / "in.pth", tmp_path / "out.pth", "--80")
    assert status == 0
    assert "3 parameters mapped to 80 classes" in out
    assert "  bbox_head.cls_branches.0.weight: 91 -> 80 rows" in out
    assert "  left alone: backbone.conv1.weight, 91 rows" in out
    content = torch.load(tmp_path / "out.pth", weights_only=True)
    assert content["meta"]["dataset_meta"]["classes"] == NAMES
    assert all(same(content["state_dict"][name], value) for name, value in map_head(head(91), to=80).state.items())


def test_a_checkpoint_is_not_written_over(parity_command: Command, tmp_path: Path) -> None:
    torch.save({"state_dict": head(91)}, tmp_path / "in.pth")
    status, _, err = parity_command("coco", "labels", tmp_path / "in.pth", tmp_path / "in.pth", "--80")
    assert status == 2
    assert "is the input itself" in err


def data(root: Path, kind: str, part: str) -> dict[str, Any]:
    """Return a data set's configuration."""
    return {
        "type": kind,
        "data_root": f"{root}/",
        "ann_file": f"annotations/instances_{part}2017.json",
        "data_prefix": {"img": f"{part}2017/"},
        "pipeline": [
            {"type": "LoadImageFromFile"},
            {"type": "LoadAnnotations", "with_bbox": True},
            {"type": "Resize", "scale": (64, 64), "keep_ratio": True},
            {"type": "PackDetInputs", "meta_keys": ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")},
        ],
    }


def perfect(dataset: Any) -> list[dict[str, Any]]:
    """Return what a detector would predict that sees everything: the annotations themselves."""
    return [
        {
            "img_id": image["img_id"],
            "ori_shape": (image["height"], image["width"]),
            "pred_instances": {
                "bboxes": torch.tensor([each["bbox"] for each in image["instances"]]).reshape(-1, 4),
                "scores": torch.ones(len(image["instances"])),
                "labels": torch.tensor([each["bbox_label"] for each in image["instances"]], dtype=torch.int64),
            },
        }
        for image in (dataset.get_data_info(index) for index in range(len(dataset)))
    ]


def score(samples: list[dict[str, Any]], kind: str, root: Path, classes: tuple[str, ...]) -> float:
    from mmdet.registry import METRICS

    ann_file = str(root / "annotations" / "instances_val2017.json")
    metric = METRICS.build({"type": kind, "ann_file": ann_file, "metric": "bbox"})
    metric.dataset_meta = {"classes": classes}
    metric.process({}, samples)
    return float(metric.evaluate(len(samples))["coco/bbox_mAP"])


def test_mmdets_data_set_and_metric_count_by_ids(root: Path) -> None:
    from mmdet.registry import DATASETS
    from mmdet.utils import register_all_modules

    import parity.coco.labels91  # noqa: F401  registers them

    register_all_modules()
    dataset = DATASETS.build(data(root, "Coco91Dataset", "val"))
    samples = perfect(dataset)
    labels = np.concatenate([sample["pred_instances"]["labels"] for sample in samples])
    annotated = read(root / "annotations" / "instances_val2017.json")["annotations"]
    assert set(labels.tolist()) == {entry["category_id"] for entry in annotated}
    assert dataset.metainfo["classes"] == NAMES_91
    assert score(samples, "Coco91Metric", root, NAMES_91) == 1.0
    for sample in samples:  # an unused id wins: dropped, and harmless below the score of the true ones
        found = sample["pred_instances"]
        found["bboxes"] = torch.cat([found["bboxes"], torch.tensor([[0.0, 0.0, 9.0, 9.0]])])
        found["scores"] = torch.cat([found["scores"], torch.tensor([1.0])])
        found["labels"] = torch.cat([found["labels"], torch.tensor([12])])
    assert score(samples, "Coco91Metric", root, NAMES_91) == 1.0


def test_labels_counted_otherwise_are_not_perfect(root: Path) -> None:
    from mmdet.registry import DATASETS
    from mmdet.utils import register_all_modules

    import parity.coco.labels91  # noqa: F401  registers them

    register_all_modules()
    samples = perfect(DATASETS.build(data(root, "CocoDataset", "val")))
    assert score(samples, "CocoMetric", root, NAMES) == 1.0
    assert score(samples, "Coco91Metric", root, NAMES_91) < 0.5


def small_detector() -> dict[str, Any]:
    """Return mmdet's FCOS, shrunk, with 91 outputs."""
    return {
        "type": "FCOS",
        "data_preprocessor": {"type": "DetDataPreprocessor", "pad_size_divisor": 32},
        "backbone": {"type": "ResNet", "depth": 18, "base_channels": 4, "stem_channels": 4, "norm_eval": False},
        "neck": {"type": "FPN", "in_channels": [4, 8, 16, 32], "out_channels": 8, "num_outs": 5},
        "bbox_head": {"type": "FCOSHead", "num_classes": 91, "in_channels": 8, "stacked_convs": 1, "feat_channels": 8,
                      "norm_cfg": None, "strides": [4, 8, 16, 32, 64]},
        "test_cfg": {"nms_pre": 100, "score_thr": 0.0, "nms": {"type": "nms", "iou_threshold": 0.6}, "max_per_img": 50},
    }  # fmt: skip


def test_a_model_with_91_outputs_trains_and_evaluates_in_mmdets_own_loop(root: Path, tmp_path: Path) -> None:
    from mmdet.utils import register_all_modules
    from mmengine.config import Config
    from mmengine.runner import Runner

    register_all_modules()
    loader = {"batch_size": 2, "num_workers": 0, "sampler": {"type": "DefaultSampler", "shuffle": False}}
    ann_file = str(root / "annotations" / "instances_val2017.json")
    config = Config(
        {
            "custom_imports": {"imports": ["parity.coco.labels91"], "allow_failed_imports": False},
            "default_scope": "mmdet",
            "work_dir": str(tmp_path),
            "experiment_name": "labels91",
            "log_level": "WARNING",
            "model": small_detector(),
            "train_dataloader": {**loader, "dataset": data(root, "Coco91Dataset", "train")},
            "val_dataloader": {**loader, "dataset": {**data(root, "Coco91Dataset", "val"), "test_mode": True}},
            "val_evaluator": {"type": "Coco91Metric", "ann_file": ann_file, "metric": "bbox", "classwise": True},
            "train_cfg": {"type": "EpochBasedTrainLoop", "max_epochs": 1},
            "val_cfg": {"type": "ValLoop"},
            "optim_wrapper": {"type": "OptimWrapper", "optimizer": {"type": "SGD", "lr": 1e-4}},
            "default_hooks": {"checkpoint": None},
        }
    )
    runner = Runner.from_cfg(config)
    before = runner.model.bbox_head.conv_cls.weight.detach().clone()
    runner.train()
    assert len(before) == 91
    assert not same(runner.model.bbox_head.conv_cls.weight.detach(), before)
    scores = runner.message_hub.get_scalar("val/coco/bbox_mAP").current()
    assert 0.0 <= scores <= 1.0
