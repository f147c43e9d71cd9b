"""What may be changed of a published config from outside: where the data lie, and single keys. Runs everywhere."""

from __future__ import annotations

import ast
import os
from typing import Any, Dict, Sequence


def change(config: Any, *, data_root: str, options: Sequence[str]) -> Any:
    """Put ``data_root`` where the config has its own, unless it is empty, and then set the given keys; return it.

    Args:
        config: mmcv's or mmengine's; it is altered.
        data_root: the folder of COCO.
        options: ``KEY=VALUE`` words.
    """
    if data_root:
        _replace(config._cfg_dict, config.data_root, os.path.join(data_root, ""))
    config.merge_from_dict(options_of(options))
    return config


def options_of(words: Sequence[str]) -> Dict[str, Any]:
    """Return ``KEY=VALUE`` words as a dictionary; a value that is no Python literal is a string.

    >>> options_of(["model.backbone.init_cfg=None", "scale=(144, 88)", "load_from=start.pth"])
    {'model.backbone.init_cfg': None, 'scale': (144, 88), 'load_from': 'start.pth'}
    """
    found: Dict[str, Any] = {}
    for word in words:
        key, _, text = word.partition("=")
        try:
            found[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            found[key] = text
    return found


def _replace(value: Any, published: str, wanted: str) -> Any:
    """Return a value of a config in which every path that begins with ``published`` begins with ``wanted``."""
    if isinstance(value, dict):
        for key in value:
            value[key] = _replace(value[key], published, wanted)
        return value
    if isinstance(value, (list, tuple)):
        return type(value)(_replace(each, published, wanted) for each in value)
    return wanted + value[len(published) :] if isinstance(value, str) and value.startswith(published) else value
