"""Which numbers of a config are limits: a top-k, a threshold, an upper bound. Runs everywhere."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any, Dict, Iterator, Tuple

# How mmdet and the projects around it call them. Below TEST every number is one, whatever it is called.
NAMES = (
    *("num_queries", "num_*_queries", "*topk*", "*top_k*", "nms_pre", "nms_post", "max_per_img", "max_num"),
    *("score_thr", "*_thr", "*_thrs", "*_threshold", "min_bbox_size", "min_pos_iou", "pos_fraction", "neg_pos_ub"),
)
TEST = "test_cfg"


def limits_of(config: Any) -> Dict[str, float]:
    """Return dotted key -> number of every limit in the model of a config of mmcv or mmengine.

    >>> limits_of({"model": {"head": {"strides": (8, 16), "num_queries": 900, "nms": [{"iou_thr": 0.5}]}}})
    {'model.head.num_queries': 900.0, 'model.head.nms.0.iou_thr': 0.5}
    >>> limits_of({"model": {"test_cfg": {"keep": 3, "flip": True}, "train_cfg": {"max_epochs": 12}}})
    {'model.test_cfg.keep': 3.0}
    """
    return {
        ".".join(path): float(value)
        for path, value in _numbers(config["model"], ("model",))
        if TEST in path or any(fnmatchcase(path[-1], name) for name in NAMES)
    }


def _numbers(value: Any, path: Tuple[str, ...]) -> Iterator[Tuple[Tuple[str, ...], float]]:
    """Yield path and number of every number below a value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, (*path, str(key)))
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from _numbers(inner, (*path, str(index)))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield path, value
