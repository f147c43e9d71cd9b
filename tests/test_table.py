"""Tables: every row judged by itself, the worst one named."""

from typing import Any

import pytest
import torch

from parity.compare.table import Table, compare_table
from parity.compare.verdicts import Verdict

ROWS = [f"layers.{i}.weight" for i in range(8)]


def values() -> torch.Tensor:
    return torch.randn(8, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def compare(actual: torch.Tensor, rows: list[str] = ROWS, *, dtype: str = "fp64", noise: Any = None) -> list[Any]:
    truth = Table("gradients", ROWS, values(), noise)
    return compare_table(actual, rows, truth, dtype=dtype, mode="cascade", stage="gradients")


def test_equal_tables_pass_and_their_order_does_not_matter() -> None:
    summary, *rows = compare(values().flip(0), ROWS[::-1])
    assert summary.verdict is Verdict.EQUAL
    assert (summary.count, summary.over) == (8, 0)
    assert all(row.verdict is Verdict.EQUAL for row in rows)


def test_one_bad_row_is_named_with_its_figures() -> None:
    actual = values()
    actual[5] *= 1.0 + 1e-10
    summary, row = compare(actual)
    assert summary.verdict is Verdict.DIVERGED
    assert summary.over == 1
    assert "gradients[layers.5.weight]" in summary.note
    assert row.name == "gradients[layers.5.weight]"
    assert row.rel_rms == pytest.approx(1e-10, rel=1e-3)


def test_rounding_passes_in_float64() -> None:
    assert compare(values() * (1.0 + 1e-15))[0].verdict is Verdict.WITHIN_BUDGET


def test_a_row_that_only_one_engine_has_fails() -> None:
    missing = compare(values()[:7], ROWS[:7])
    assert [r.verdict for r in missing] == [Verdict.MISSING, Verdict.MISSING]
    extra = compare(torch.cat([values(), values()[:1]]), [*ROWS, "neck.bias"])
    assert [r.name for r in extra if r.verdict is Verdict.EXTRA] == ["gradients", "gradients[neck.bias]"]


def test_a_table_without_rows_compares_nothing_and_fails() -> None:
    truth = Table("gradients", [], torch.zeros(0, 64), None)
    (summary,) = compare_table(torch.zeros(0, 64), [], truth, dtype="fp64", mode="cascade", stage="gradients")
    assert summary.verdict is Verdict.MISSING


def test_float32_is_allowed_the_noise_of_the_rows_family() -> None:
    noise = torch.zeros(8, 2, dtype=torch.float64)
    size = values()[2]
    noise[2] = torch.stack([size.abs().max(), size.square().mean().sqrt()]) * 1e-3
    moved = values() * (1.0 + 6e-3)
    assert compare(moved, dtype="fp32", noise=noise)[0].verdict is Verdict.WITHIN_BUDGET  # 6 of 8, for every layer
    assert compare(values() * (1.0 + 3e-2), dtype="fp32", noise=noise)[0].verdict is Verdict.DIVERGED


def test_a_nan_fails() -> None:
    actual = values()
    actual[0, 3] = float("nan")
    assert compare(actual)[0].verdict is Verdict.NONFINITE
