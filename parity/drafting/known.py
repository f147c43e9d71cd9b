"""Differences between mmdet 2 and mmdet 3 that every detector of a kind shows, and how to lift them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from parity.cases.base import Deviation
from parity.cases.common import DEGENERATE_BOXES, KEEP_DEGENERATE, SQUARE_PADDING


@dataclass(frozen=True)
class Known:
    """A known difference: what it is, and the options of the new engine's config that take it away, if any do."""

    deviation: Deviation
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"known difference{', lifted' if self.options else ''}: {self.deviation.reason}"


def known_differences(kind: str, config: Any) -> Iterator[Known]:
    """Yield what is known to differ for a detector of this kind with this config of mmdet 3."""
    test_cfg = config.model.get("test_cfg") or {}
    if kind == "one-stage" and test_cfg.get("min_bbox_size", -1) >= 0:
        yield Known(DEGENERATE_BOXES, KEEP_DEGENERATE)
    if any(step.get("pad_to_square") for step in config.test_dataloader.dataset.pipeline):
        yield Known(SQUARE_PADDING)
