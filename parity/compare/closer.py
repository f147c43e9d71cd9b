"""Choose which comparisons of a stage get a closer look, and take it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from parity.compare.detail import detail
from parity.engines.base import Run
from parity.records.digest import sample_indices
from parity.records.layout import StoredTensors, recorded_part
from parity.records.locate import BLOCK
from parity.records.store import Entry
from parity.report.results import WITHOUT_FIGURES, TensorResult

FAILED = 8  # tensors of a stage that did not pass, worst first
SIDE_FAILED, SIDE_PASSED = 64, 32  # bins of a map


def look_closer(
    results: Sequence[TensorResult], keys: Mapping[int, str], run: Run, stored: StoredTensors
) -> list[TensorResult]:
    """Return the results, those that are worth it with a detail: the worst that failed, and the worst that passed.

    Args:
        keys: place among the results -> the record's key of what was compared there.
    """
    looked = list(results)
    order = sorted(
        (place for place in keys if results[place].verdict not in WITHOUT_FIGURES and results[place].count),
        key=lambda place: results[place].severity,
        reverse=True,
    )
    failed = [place for place in order if not results[place].verdict.passes][:FAILED]
    passed = [place for place in order if results[place].verdict.passes and results[place].max_abs][:1]
    for place in (*failed, *passed):
        key, entry = keys[place], stored.record.entries[keys[place]]
        actual = recorded_part(entry, key, run, stored)
        assert actual is not None
        flat, shape = places_of(entry)
        side = SIDE_FAILED if place in failed else SIDE_PASSED
        looked[place] = replace(
            results[place], detail=detail(actual, stored[key], of_shape=shape, places=flat, side=side)
        )
    return looked


def places_of(entry: Entry) -> tuple[Tensor | None, tuple[int, ...]]:
    """Return the flat place of each kept value in its tensor, and that tensor's shape; of a sketch no places."""
    if entry.kind == "samples":
        return sample_indices(entry.name, math.prod(entry.of_shape)), entry.of_shape
    if entry.kind == "projections":
        return BLOCK * torch.arange(math.prod(entry.shape)), entry.of_shape
    return (torch.arange(math.prod(entry.shape)), entry.shape) if entry.kind == "whole" else (None, entry.shape)
