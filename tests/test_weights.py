"""Weights that both interpreters fill alike, and the ledger of their conversion."""

from __future__ import annotations

import hashlib
from collections import defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parity.cases.base import Case, Fill
from parity.errors import ParityError
from parity.records.store import Record
from parity.weights.conversion import convert
from parity.weights.synthetic import fingerprint, rule_for, state_dict, uniform

RULES = (
    Fill("*.num_batches_tracked", centre=7.0, spread=0.0),
    Fill("*.norm.weight", centre=1.0, spread=0.2),
    Fill("*.box.bias", centre=(0.0, 5.0), spread=0.1),
    Fill("*", per_fan_in=True),
)
SHAPES = {
    "a.norm.weight": (4,),
    "a.norm.num_batches_tracked": (),
    "a.conv.weight": (2, 3, 3, 3),
    "a.box.bias": (4,),
    "b.conv.weight": (2, 3, 3, 3),
}
PINNED = "1918fda1e03aeb595f7c9b5f0822d5d2"


def test_the_bytes_are_pinned() -> None:
    """Every record was frozen with these bytes: another Python, numpy or torch must give the same."""
    state = state_dict(SHAPES, seed=3, rules=RULES)
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(state[name].numpy().tobytes())
    assert digest.hexdigest()[:32] == PINNED


def test_the_records_weights_come_out_as_they_were_frozen(
    case: Case, state: dict[str, torch.Tensor], record: Record
) -> None:
    assert fingerprint(state) == record.manifest["weights"]["sha256"]


@given(st.permutations(sorted(SHAPES)))
def test_the_order_of_the_names_changes_nothing(order: list[str]) -> None:
    state = state_dict({name: SHAPES[name] for name in order}, seed=3, rules=RULES)
    assert fingerprint(state) == fingerprint(state_dict(SHAPES, seed=3, rules=RULES))


def test_a_parameter_does_not_depend_on_the_others() -> None:
    alone = state_dict({"a.conv.weight": SHAPES["a.conv.weight"]}, seed=3, rules=RULES)["a.conv.weight"]
    assert alone.tolist() == state_dict(SHAPES, seed=3, rules=RULES)["a.conv.weight"].tolist()


def test_another_seed_gives_other_weights() -> None:
    assert fingerprint(state_dict(SHAPES, seed=4, rules=RULES)) != fingerprint(state_dict(SHAPES, seed=3, rules=RULES))


def test_the_fingerprint_tells_names_apart() -> None:
    tensor = torch.ones(2)
    assert fingerprint({"a": tensor}) != fingerprint({"b": tensor})


@given(st.integers(0, 2**31), st.integers(1, 500))
def test_uniform_numbers_are_exact_in_float32_and_below_one(seed: int, count: int) -> None:
    numbers = uniform(seed, "a", count)
    assert numbers.astype(np.float32).astype(np.float64).tolist() == numbers.tolist()
    assert numbers.min() >= -1.0
    assert numbers.max() < 1.0


def test_uniform_numbers_spread_evenly() -> None:
    numbers = uniform(0, "a", 20_000)
    assert abs(numbers.mean()) < 0.02
    assert numbers.var() == pytest.approx(1.0 / 3.0, rel=0.02)


def test_the_first_rule_that_matches_wins() -> None:
    assert rule_for("a.norm.weight", RULES) is RULES[1]
    assert rule_for("a.conv.weight", RULES) is RULES[-1]


def test_several_centres_are_taken_in_turn() -> None:
    bias = state_dict(SHAPES, seed=3, rules=RULES)["a.box.bias"]
    assert bias.round().tolist() == pytest.approx([0.0, 5.0, 0.0, 5.0])


def test_a_layer_keeps_the_variance_of_its_inputs() -> None:
    weight = state_dict({"w": (50, 200)}, seed=0, rules=RULES)["w"]
    assert float(weight.var()) * 200 == pytest.approx(1.0, rel=0.05)


def test_counters_are_integers() -> None:
    counter = state_dict(SHAPES, seed=3, rules=RULES)["a.norm.num_batches_tracked"]
    assert (counter.dtype, counter.item()) == (torch.int64, 7)


@pytest.fixture(scope="module")
def state(record_folder: object, case: Case) -> dict[str, torch.Tensor]:
    weights = Record(record_folder).manifest["weights"]  # type: ignore[arg-type]
    shapes = {name: tuple(shape) for name, shape in weights["shapes"].items()}
    return state_dict(shapes, seed=weights["seed"], rules=case.weights)


def test_every_rule_of_the_case_is_of_use(case: Case, state: dict[str, torch.Tensor]) -> None:
    used = {rule_for(name, case.weights).pattern for name in state}
    assert [rule.pattern for rule in case.weights if rule.pattern not in used] == []


def test_no_parameter_of_the_case_is_constant_or_zero(case: Case, state: dict[str, torch.Tensor]) -> None:
    flat = [
        name
        for name, tensor in state.items()
        if rule_for(name, case.weights).spread != 0.0
        and (not bool(tensor.any()) or (tensor.numel() > 1 and float(tensor.max()) == float(tensor.min())))
    ]
    assert flat == []


def test_only_counters_are_meant_to_be_constant(case: Case, state: dict[str, torch.Tensor]) -> None:
    constant = {name for name in state if rule_for(name, case.weights).spread == 0.0}
    assert {name for name in constant if not name.endswith("num_batches_tracked")} == set()


def test_no_two_parameters_of_one_shape_are_equal(state: dict[str, torch.Tensor]) -> None:
    """Two that are swapped would not be seen otherwise."""
    same: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for name, tensor in state.items():
        if tensor.is_floating_point():
            same[tuple(tensor.shape), tensor.numpy().tobytes()].append(name)
    assert [names for names in same.values() if len(names) > 1] == []


def test_running_variances_are_positive(state: dict[str, torch.Tensor]) -> None:
    assert [name for name, t in state.items() if name.endswith("running_var") and float(t.min()) <= 0.0] == []


def test_a_conversion_with_all_keys_accounted_for_changes_nothing() -> None:
    weights = {"a": torch.ones(1), "b": torch.zeros(1)}
    assert convert(weights, target_names=["b", "a"]) == weights


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (["a", "b"], ["a"], r"1 legacy keys have no place \['b'\], 0 new keys get no value \[\]"),
        (["a"], ["a", "c"], r"0 legacy keys have no place \[\], 1 new keys get no value \['c'\]"),
        (["z", "y", "x", "w"], [], r"4 legacy keys have no place \['w', 'x', 'y'\]"),
        ([], ["a"], r"1 new keys get no value \['a'\]"),
    ],
)
def test_a_key_that_is_unaccounted_for_is_an_error(source: list[str], target: list[str], message: str) -> None:
    with pytest.raises(ParityError, match=message):
        convert({name: torch.ones(1) for name in source}, target_names=target)
