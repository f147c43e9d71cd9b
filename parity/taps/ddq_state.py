"""What DDQ DETR hands from stage to stage in ``cache_dict``, outside of any argument."""

from __future__ import annotations

from typing import Any

import torch


def get_query_range(model: Any) -> torch.Tensor:
    """Return (first, count) of the distinct queries among all queries, int64 (2,)."""
    return torch.tensor(model.cache_dict["dis_query_info"])


def set_query_range(model: Any, value: torch.Tensor) -> None:
    model.cache_dict["dis_query_info"] = value.tolist()


def get_distinct(model: Any) -> torch.Tensor:
    """Return row 0 of each layer's mask, bool (layers - 1, B, Q): the only row that prediction reads.

    The masks themselves are (B * heads, Q, Q), the same for every head.
    """
    heads = model.cache_dict["num_heads"]
    return torch.stack([mask[::heads, 0] for mask in model.cache_dict["distinct_query_mask"]])


def set_distinct(model: Any, value: torch.Tensor) -> None:
    heads = model.cache_dict["num_heads"]
    model.cache_dict["distinct_query_mask"] = [
        rows[:, None, None].expand(-1, heads, 1, -1).flatten(0, 1) for rows in value
    ]


ACCESS = {"query_range": (get_query_range, set_query_range), "distinct": (get_distinct, set_distinct)}
