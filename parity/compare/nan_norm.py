"""A gradient norm that is NaN: what clipping by it does depends on the torch, and that can be a known deviation."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from parity.cases.base import GRADIENTS, OPTIMIZER_STEP, Case
from parity.engines.base import Run
from parity.records.layout import StoredTensors

KIND = "nan_norm"
NAN = 1  # in a tensor ``name.nonfinite``, see ``engines.training.finite``


def without_spread(run: Run, stored: StoredTensors, case: Case, *, stage: str) -> tuple[Run, dict[str, str]]:
    """Return the run with the truth's numbers where the case's known deviation explains a NaN, and its note by tensor.

    It explains just this: both engines' gradient norm is NaN, and the new one's step has made a NaN of every number of
    every trained parameter. All else, frozen parameters and buffers and what the legacy engine made a NaN of, too, is
    left to be compared.
    """
    known = next((deviation for deviation in case.deviations if deviation.kind == KIND), None)
    if known is None or stage != OPTIMIZER_STEP or not _norms_are_nan(run, stored):
        return run, {}
    table, key = known.tensor, f"{OPTIMIZER_STEP}/{known.tensor}"
    marks, values = run.tensors.get(f"{table}.nonfinite"), run.tensors.get(table)
    expected, expected_marks = stored[key], stored[f"{key}.nonfinite"]
    rows = run.rows.get(table, ())
    if marks is None or values is None or list(rows) != stored.record.rows(key) or marks.shape != expected.shape:
        return run, {}
    stepped = set(run.rows.get(GRADIENTS, ()))
    trained = torch.tensor([row in stepped for row in rows])[:, None]
    if not _all_nan(marks, trained & ((expected != 0.0) | (expected_marks != 0))):
        return run, {}
    spread = trained & (marks == NAN) & (expected_marks == 0)
    tensors = {
        table: torch.where(spread, expected.to(values.dtype), values),
        f"{table}.nonfinite": torch.where(spread, 0, marks),
    }
    note = f"known deviation: {known.reason} ({known.link})"
    return replace(run, tensors={**run.tensors, **tensors}), {f"{table}.nonfinite": note}


def _norms_are_nan(run: Run, stored: StoredTensors) -> bool:
    name = "norm.nonfinite"
    key = f"{GRADIENTS}/{name}"
    if key not in stored.record.entries or name not in run.tensors:
        return False
    return int(stored[key]) == int(run.tensors[name]) == NAN


def _all_nan(marks: Tensor, where: Tensor) -> bool:
    return bool(where.any()) and bool((marks[where] == NAN).all())
