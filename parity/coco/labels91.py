"""COCO with 91 labels for mmdet 3.x: for models whose outputs are counted by COCO's own ids, such as DETR's.

A config asks for it with::

    custom_imports = dict(imports=["parity.coco.labels91"], allow_failed_imports=False)
    train_dataloader = dict(dataset=dict(type="Coco91Dataset"))
    val_dataloader = dict(dataset=dict(type="Coco91Dataset"))
    val_evaluator = dict(type="Coco91Metric")
    model = dict(bbox_head=dict(num_classes=91))

Annotation files stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from mmdet.datasets import CocoDataset
from mmdet.evaluation import CocoMetric
from mmdet.registry import DATASETS, METRICS

from parity.coco.categories import COUNT_91, LABELS, NAMES_91

_COLOURS = CocoDataset.METAINFO["palette"]


@DATASETS.register_module()
class Coco91Dataset(CocoDataset):  # type: ignore[misc]
    """COCO whose labels are the category ids of its files: 1 to 90 with gaps, of 91 classes."""

    METAINFO: ClassVar[dict[str, Any]] = {
        "classes": NAMES_91,
        "palette": [_COLOURS[LABELS[number]] if number in LABELS else (0, 0, 0) for number in range(COUNT_91)],
    }

    def parse_data_info(self, raw_data_info: dict[str, Any]) -> Any:
        """Return what mmdet makes of an image, with other labels."""
        parsed = super().parse_data_info(raw_data_info)
        for instance in parsed["instances"]:
            instance["bbox_label"] = self.cat_ids[instance["bbox_label"]]
        return parsed


@METRICS.register_module()
class Coco91Metric(CocoMetric):  # type: ignore[misc]
    """COCO's metric for predictions whose labels are category ids; those of an id not in use are dropped."""

    def results2json(self, results: Sequence[dict[str, Any]], outfile_prefix: str) -> Any:
        """Write the predictions as mmdet does, from the labels that it expects."""
        if len(self.cat_ids) == COUNT_91:  # without an annotation file mmdet counts the metainfo's classes itself
            return super().results2json(results, outfile_prefix)
        places = {number: place for place, number in enumerate(self.cat_ids)}
        return super().results2json([_relabelled(result, places) for result in results], outfile_prefix)


def _relabelled(result: dict[str, Any], places: dict[int, int]) -> dict[str, Any]:
    """Return an image's predictions without those of unused ids, labels as places in the list of ids."""
    used = [index for index, label in enumerate(result["labels"]) if int(label) in places]
    kept = {
        key: [value[index] for index in used] if isinstance(value, list) else value[used]
        for key, value in result.items()
        if key in ("labels", "bboxes", "scores", "masks", "mask_scores")
    }
    kept["labels"] = np.array([places[int(label)] for label in kept["labels"]], dtype=np.int64)
    return {**result, **kept}
