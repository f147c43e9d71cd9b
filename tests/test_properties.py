"""Properties that hold for whatever is drawn: ties, nothing at all, strides, dtypes."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from torch import Tensor

from parity.cases.base import Case
from parity.compare.decisions import Choice, Tolerance, flipped_indices, judge
from parity.compare.stage import StoredTensors, compare_tensors
from parity.compare.table import Table, compare_table
from parity.compare.tensors import measure
from parity.compare.verdicts import Verdict
from parity.engines.base import Run
from parity.errors import NoTruthError, ParityError
from parity.records.digest import kept
from parity.records.draft import Draft, as_choice
from parity.records.store import Entry, Record, sha256, write_record
from parity.taps.decisions import Decision

DTYPES = (torch.float64, torch.float32, torch.int64, torch.int32, torch.bool, torch.uint8)
HALF = (torch.float16, torch.bfloat16)
EXACT = Tolerance(score=0.0)
MANIFEST = {
    **{"case": "c", "record": "r", "engines": {}, "decisions": {}, "islands": []},
    "batch": {"scale": [0, 0]},
    "weights": {"sha256": "0" * 64, "seed": 0, "shapes": {}},
}


def seeds() -> st.SearchStrategy[int]:
    return st.integers(0, 2**31 - 1)


def ranked(scores: Tensor, count: int, kind: str = "topk") -> Choice:
    """Return the truth's choice of the ``count`` best."""
    chosen = scores.argsort(descending=True, stable=True)[:count]
    return Choice(kind, scores, chosen, {"largest": 1.0}, len(scores))


def tied(count: int, levels: int, seed: int) -> Tensor:
    """Return (count,) scores of which many are equal."""
    return torch.randint(levels, (count,), generator=torch.Generator().manual_seed(seed)).double()


@given(st.integers(1, 40), st.integers(1, 5), seeds())
def test_tied_scores_may_come_in_any_order(count: int, levels: int, seed: int) -> None:
    truth = ranked(tied(count, levels, seed), count, "sort")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    shuffled = truth.scores[order].argsort(descending=True)
    judged = judge(order[shuffled], truth, tolerance=EXACT)
    assert (judged.uncertified, judged.needed) == (0, 0.0)


@given(st.integers(2, 40), st.integers(2, 5), seeds())
def test_a_tie_at_the_border_may_be_cut_anywhere_and_no_better_one_left_out(count: int, levels: int, seed: int) -> None:
    scores = tied(count, levels, seed)
    truth = ranked(scores, count // 2)
    border = scores[truth.chosen[-1]]
    better, equal = (scores > border).nonzero().flatten(), (scores == border).nonzero().flatten()
    better = better[scores[better].argsort(descending=True)]
    other = torch.cat([better, equal.flip(0)[: count // 2 - len(better)]])
    assert judge(other, truth, tolerance=EXACT).uncertified == 0
    worse = (scores < border).nonzero().flatten()
    if len(worse):
        assert judge(torch.cat([other[:-1], worse[:1]]), truth, tolerance=EXACT).uncertified > 0


@given(st.integers(0, 20), st.sampled_from(["topk", "sort"]))
def test_a_choice_of_nothing_is_the_same_choice(count: int, kind: str) -> None:
    truth = ranked(torch.arange(float(count)), 0, kind)
    assert judge(truth.chosen.clone(), truth, tolerance=EXACT).flips == 0


def test_an_nms_of_no_boxes_is_the_same_choice() -> None:
    nothing = torch.zeros(0)
    truth = Choice("nms", nothing, nothing.long(), {"iou_threshold": 0.7}, 0, boxes=torch.zeros(0, 4))
    assert judge(nothing.long(), truth, tolerance=EXACT).flips == 0


@given(st.integers(2, 20), seeds())
def test_an_index_named_twice_or_beyond_the_end_is_never_certified(count: int, seed: int) -> None:
    truth = ranked(torch.rand(count, generator=torch.Generator().manual_seed(seed)).double(), count)
    twice, beyond = truth.chosen.clone(), truth.chosen.clone()
    twice[0], beyond[0] = truth.chosen[1], count
    for wrong in (twice, beyond):
        judged = judge(wrong, truth, tolerance=Tolerance(score=math.inf, box=math.inf))
        assert judged.uncertified > 0
        assert judged.needed == math.inf


@given(st.integers(1, 30), seeds(), st.sampled_from([torch.int64, torch.int32]))
def test_a_strided_choice_of_another_width_is_the_same_choice(count: int, seed: int, dtype: torch.dtype) -> None:
    truth = ranked(torch.rand(count, generator=torch.Generator().manual_seed(seed)).double(), count)
    strided = torch.stack([truth.chosen, truth.chosen], -1).to(dtype)[:, 0]
    assert judge(strided, truth, tolerance=EXACT).flips == 0


@given(st.permutations(range(6)), st.permutations(range(6)))
def test_flips_do_not_depend_on_which_comes_first(first: list[int], second: list[int]) -> None:
    a, b = torch.tensor(first[:4]), torch.tensor(second[:4])
    assert flipped_indices(a, b) == flipped_indices(b, a)
    assert (flipped_indices(a, b) == set()) == (first[:4] == second[:4])


def drawn(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    numbers = torch.randint(0, 2 if dtype is torch.bool else 200, shape, generator=torch.Generator().manual_seed(seed))
    return numbers.to(dtype).transpose(0, -1) if shape else numbers.to(dtype)


@given(st.lists(st.integers(0, 4), max_size=3).map(tuple), st.sampled_from(DTYPES), seeds())
def test_a_tensor_of_any_shape_dtype_and_stride_comes_back(
    shape: tuple[int, ...], dtype: torch.dtype, seed: int
) -> None:
    tensor = drawn(shape, dtype, seed)
    size = measure(torch.zeros_like(tensor), tensor)
    entry = Entry(
        name="t",
        stage="s",
        role="output",
        kind="whole",
        modes=("isolated",),
        file="s.safetensors",
        shape=tuple(tensor.shape),
        of_shape=tuple(tensor.shape),
        dtype=str(dtype).removeprefix("torch."),
        meaning="",
        unit="",
        sha256=sha256(tensor),
        max=size.expected_max,
        rms=size.expected_rms,
    )
    with tempfile.TemporaryDirectory() as folder:
        write_record(Path(folder) / "c" / "r", MANIFEST, {"s/t": entry}, {"s/t": tensor}, force=False)
        back = Record(Path(folder) / "c" / "r").tensor("s/t")
    assert back.dtype is tensor.dtype
    assert back.tolist() == tensor.tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.complex64])
def test_a_dtype_that_records_do_not_know_is_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.ones(3, dtype=dtype)
    entry = Entry(
        "t", "s", "output", "whole", ("isolated",), "s.safetensors", (3,), (3,), str(dtype), "", "", "", 1.0, 1.0
    )
    write_record(tmp_path / "c" / "r", MANIFEST, {"s/t": entry}, {"s/t": tensor}, force=False)
    with pytest.raises(ParityError, match=rf"is damaged: Invalid enum value '{dtype}'"):
        Record(tmp_path / "c" / "r")


# Decisions, as records keep them: a long ranking is cut to its candidates, whatever ties with them.


def shuffled(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


@given(st.integers(20, 400), st.integers(1, 10), st.integers(1, 3), st.sampled_from([1.0, 0.0]), seeds())
def test_every_choice_among_many_ties_is_certified_from_what_a_record_keeps(
    size: int, count: int, levels: int, largest: float, seed: int
) -> None:
    scores = tied(size, levels, seed)
    order = scores.argsort(descending=bool(largest), stable=True)
    truth = as_choice(Decision("topk", scores, order[:count], settings={"largest": largest}))
    places = shuffled(size, seed)
    other = places[scores[places].argsort(descending=bool(largest))][:count]
    assert judge(other, truth, tolerance=EXACT).uncertified == 0
    worst = order[-1:]
    if scores[worst] != scores[order[count - 1]]:
        assert judge(torch.cat([other[:-1], worst]), truth, tolerance=EXACT).uncertified > 0


@given(st.integers(5, 200), st.integers(1, 4), seeds())
def test_every_matching_of_equal_cost_is_certified_from_what_a_record_keeps(rows: int, columns: int, seed: int) -> None:
    costs = torch.arange(float(columns)).double().repeat(rows, 1)  # a column costs the same in every row
    pairs = torch.arange(min(rows, columns))
    decision = Decision("assignment", costs.reshape(-1), pairs * columns + pairs, ordered=False)
    decision.settings["columns"] = columns
    truth = as_choice(decision)
    other = shuffled(rows, seed)[: len(pairs)] * columns + pairs
    assert judge(other, truth, tolerance=EXACT).uncertified == 0
    assert judge(other[:-1], truth, tolerance=EXACT).uncertified > 0


@given(st.integers(1, 14), st.integers(1, 3), seeds())
def test_objects_that_are_the_same_may_change_their_places(objects: int, copies: int, seed: int) -> None:
    rows = torch.rand(60, 1, generator=torch.Generator().manual_seed(seed)).double()
    costs = rows.repeat(1, objects)
    matched = rows.flatten().argsort()[: objects * copies]
    columns = torch.arange(objects).repeat(copies)
    decision = Decision("assignment", costs.reshape(-1), matched * objects + columns, ordered=False)
    decision.settings["columns"] = objects
    other = matched * objects + columns[shuffled(len(columns), seed)]
    assert judge(other, as_choice(decision), tolerance=EXACT).uncertified == 0


@given(st.integers(10, 1500), seeds())
@example(5000, 0)  # more of them than a record keeps for being near
def test_scores_at_a_threshold_may_fall_to_either_side(size: int, seed: int) -> None:
    scores = tied(size, 3, seed) / 2.0
    above = (scores > 0.5).nonzero().flatten()
    truth = as_choice(Decision("threshold", scores, above, settings={"threshold": 0.5}))
    assert judge((scores >= 0.5).nonzero().flatten(), truth, tolerance=EXACT).uncertified == 0
    assert judge((scores >= 0.0).nonzero().flatten(), truth, tolerance=EXACT).uncertified == int((scores == 0.0).sum())


@given(st.integers(2, 30), seeds(), st.sampled_from(["topk", "sort", "nms"]))
def test_a_judgement_does_not_depend_on_how_the_indices_are_numbered(count: int, seed: int, kind: str) -> None:
    corner = torch.rand(count, 2, generator=torch.Generator().manual_seed(seed)).double() * 20.0
    boxes = torch.cat([corner, corner + 10.0], 1)
    scores = tied(count, 4, seed)
    chosen, other = shuffled(count, seed)[: count // 2 + 1], shuffled(count, seed + 1)[: count // 2 + 1]
    settings = {"iou_threshold": 0.5, "largest": 1.0}
    order = shuffled(count, seed + 2)
    place = order.argsort()  # where each index has gone
    first = Choice(kind, scores, chosen, settings, count, boxes=boxes)
    second = Choice(kind, scores[order], place[chosen], settings, count, boxes=boxes[order])
    assert judge(place[other], second, tolerance=EXACT) == judge(other, first, tolerance=EXACT)


@given(st.integers(2, 20), seeds(), st.sampled_from([*HALF, torch.float32, torch.int64]))
def test_scores_of_any_dtype_and_stride_are_judged_as_the_numbers_they_are(
    count: int, seed: int, dtype: torch.dtype
) -> None:
    scores = tied(count, 4, seed)
    strided = torch.stack([scores, -scores], -1).to(dtype)[:, 0]
    assert count < 2 or not strided.is_contiguous()
    other = shuffled(count, seed)
    judged = judge(other, ranked(strided, count), tolerance=EXACT)
    assert judged == judge(other, ranked(scores, count), tolerance=EXACT)


@given(st.integers(2, 20), seeds(), st.sampled_from([math.nan, math.inf, -math.inf]), st.sampled_from(["topk", "sort"]))
def test_no_tolerance_moves_a_score_that_is_no_number_to_the_other_end(
    count: int, seed: int, value: float, kind: str
) -> None:
    scores = tied(count, 4, seed)
    place, rest = 0, scores[1:].argsort(descending=True) + 1
    scores[place] = value
    best_first, best_last = torch.cat([torch.tensor([place]), rest]), torch.cat([rest, torch.tensor([place])])
    right, wrong = (best_first, best_last) if value == math.inf else (best_last, best_first)
    truth = Choice(kind, scores, right, {"largest": 1.0}, count)
    assert judge(right.clone(), truth, tolerance=EXACT).flips == 0
    assert judge(wrong, truth, tolerance=Tolerance(score=1e300)).uncertified > 0


# Comparison with what a record holds: the verdict is of the numbers, whatever their layout.


def table(actual: Tensor, expected: Tensor, order: list[int]) -> Verdict:
    """Judge a table whose rows come in another order."""
    rows = [f"layers.{index}" for index in range(len(expected))]
    truth = Table("gradients", rows, expected, None)
    given_rows = [rows[place] for place in order]
    return compare_table(actual, given_rows, truth, dtype="fp64", mode="cascade", stage="gradients")[0].verdict


@given(st.integers(1, 12), seeds(), st.sampled_from([math.nan, math.inf, -math.inf]))
def test_rows_may_come_in_any_order_but_not_with_what_is_no_number(count: int, seed: int, value: float) -> None:
    values = torch.rand(count, 4, generator=torch.Generator().manual_seed(seed)).double()
    order = shuffled(count, seed).tolist()
    assert table(values[order], values, order) is Verdict.EQUAL
    assert table(values.T.contiguous().T, values, sorted(order)) is Verdict.EQUAL
    spoilt = values.clone()
    spoilt[seed % count, seed % 4] = value
    assert table(spoilt, values, sorted(order)) is Verdict.NONFINITE


def frozen(case: Case, tensor: Tensor, folder: Path) -> StoredTensors:
    """Return a record that holds one tensor, as the legacy engine would have given it."""
    draft = Draft(case)
    draft.add_outputs("neck", {"p3": tensor}, whole={"p3"}, modes=("isolated",))
    write_record(folder / "r", MANIFEST, draft.entries, draft.tensors, force=False)
    return StoredTensors(Record(folder / "r"))


def verdict(actual: Tensor, stored: StoredTensors, case: Case) -> Verdict:
    run = Run({"p3": actual}, produced={"neck": ("p3",)})
    (result,) = compare_tensors(run, stored, case, stage="neck", mode="isolated", dtype="fp64")
    return result.verdict


def shapes() -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(st.integers(0, 4), max_size=3).map(tuple)


@given(shapes(), st.sampled_from([torch.float64, torch.int64, torch.bool, torch.uint8]), seeds())
def test_a_run_is_held_to_a_record_number_by_number(
    case: Case, shape: tuple[int, ...], dtype: torch.dtype, seed: int
) -> None:
    tensor = drawn(shape, dtype, seed)
    with tempfile.TemporaryDirectory() as folder:
        stored = frozen(case, tensor, Path(folder))
        assert verdict(tensor.contiguous(), stored, case) is Verdict.EQUAL
        assert verdict(tensor[None], stored, case) is Verdict.SHAPE
        for other in (*HALF, torch.float32):
            assert verdict(tensor.to(other), stored, case) is Verdict.DTYPE
        assume(tensor.numel())
        changed = tensor.clone()
        flat = changed.reshape(-1)
        flat[seed % len(flat)] = (flat[seed % len(flat)] == 0).to(dtype)
        assert verdict(flat.reshape(changed.shape), stored, case) is Verdict.DIVERGED


@given(st.integers(1, 30), seeds(), st.sampled_from([math.nan, math.inf, -math.inf]))
def test_what_is_no_number_is_no_truth_and_no_result(case: Case, count: int, seed: int, value: float) -> None:
    tensor = torch.rand(count, generator=torch.Generator().manual_seed(seed)).double()
    spoilt = tensor.clone()
    spoilt[seed % count] = value
    with tempfile.TemporaryDirectory() as folder:
        assert verdict(spoilt, frozen(case, tensor, Path(folder)), case) is Verdict.NONFINITE
        with pytest.raises(NoTruthError, match="p3 holds a NaN or an infinity in the truth"):
            frozen(case, spoilt, Path(folder))


@given(
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
    st.sampled_from(["whole", "samples", "projections", "sketch"]),
    st.sampled_from([torch.float64, torch.float32, *HALF]),
    seeds(),
)
def test_what_is_kept_of_a_tensor_does_not_depend_on_its_strides(
    shape: tuple[int, int], kind: str, dtype: torch.dtype, seed: int
) -> None:
    strided = drawn(shape, dtype, seed)
    assert kept(kind, "a", strided).tolist() == kept(kind, "a", strided.contiguous()).tolist()
    assert sha256(strided) == sha256(strided.contiguous())
