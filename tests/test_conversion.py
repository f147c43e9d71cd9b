"""Conversion: every key accounted for, values moved bit for bit, and back again."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parity.errors import ParityError
from parity.weights.conversion import Conversion, convert, convert_with_ledger, reverse
from parity.weights.ledger import Key, Ledger, Move
from parity.weights.rules import ClassMap, Drop, Join, Permute, Rename, Rule, Split

State = dict[str, torch.Tensor]

RULES: tuple[Rule, ...] = (
    Rename(r"decoder\.norms\.0\.(weight|bias)", r"decoder.norms.1.\1"),
    Rename(r"decoder\.norms\.1\.(weight|bias)", r"decoder.norms.0.\1"),
    Split(r"layer\.(\d)\.qkv", (r"layer.\1.q", r"layer.\1.k", r"layer.\1.v"), (2, 2, 1)),
    Join((r"reg\.(\d)\.xy", r"reg\.(\d)\.wh"), r"reg.\1.box", (1, 3), axis=1),
    Permute(r"conv\.kernel", (3, 2, 0, 1), "conv.weight"),
    ClassMap(r"cls\.(weight|bias)", (2, 0), 4),
    Drop(r"criterion\.(.*)", "belongs to the loss"),
)


def legacy_state() -> State:
    """Return a small legacy state dict with a NaN, a half tensor, an empty and a scalar one."""
    draw = torch.Generator().manual_seed(3)
    shapes = {
        "decoder.norms.0.weight": (4,),
        "decoder.norms.0.bias": (4,),
        "decoder.norms.1.weight": (4,),
        "decoder.norms.1.bias": (4,),
        "layer.0.qkv": (5, 3),
        "layer.1.qkv": (5, 3),
        "reg.0.xy": (2, 1),
        "reg.0.wh": (2, 3),
        "conv.kernel": (3, 3, 2, 4),
        "cls.weight": (4, 2),
        "cls.bias": (4,),
        "criterion.weights": (2,),
        "empty": (0, 3),
    }
    state = {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    state["layer.0.qkv"][1, 1] = torch.nan
    state["cls.bias"] = state["cls.bias"].half()
    state["bn.num_batches_tracked"] = torch.tensor(7)
    return state


def assert_same(actual: State, expected: State) -> None:
    """Bit for bit, names, dtypes and shapes too."""
    assert sorted(actual) == sorted(expected)
    for name, tensor in expected.items():
        assert actual[name].dtype is tensor.dtype, name
        assert actual[name].shape == tensor.shape, name
        assert actual[name].contiguous().numpy().tobytes() == tensor.contiguous().numpy().tobytes(), name


@pytest.fixture
def converted() -> Conversion:
    return convert_with_ledger(legacy_state(), rules=RULES)


def test_each_rule_moves_the_values_it_says(converted: Conversion) -> None:
    before, after = legacy_state(), converted.state
    assert torch.equal(after["decoder.norms.1.bias"], before["decoder.norms.0.bias"])
    assert torch.equal(after["decoder.norms.0.bias"], before["decoder.norms.1.bias"])
    assert torch.equal(after["layer.1.k"], before["layer.1.qkv"][2:4])
    assert torch.equal(after["reg.0.box"], torch.cat([before["reg.0.xy"], before["reg.0.wh"]], 1))
    assert torch.equal(after["conv.weight"], before["conv.kernel"].permute(3, 2, 0, 1))
    assert torch.equal(after["cls.weight"], before["cls.weight"][[2, 0]])
    assert "criterion.weights" not in after


def test_what_finds_no_place_is_left_over(converted: Conversion) -> None:
    before = legacy_state()
    expected = {name: before[name][[1, 3]] for name in ("cls.weight", "cls.bias")}
    assert_same(converted.left, {**expected, "criterion.weights": before["criterion.weights"]})


def test_a_converted_tensor_owns_its_memory(converted: Conversion) -> None:
    """A view would drag the whole source into the file that is written."""
    for name, tensor in converted.state.items():
        assert tensor.is_contiguous(), name
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size(), name


def test_there_and_back_is_bit_identical(converted: Conversion) -> None:
    back = reverse(converted.state, rules=RULES, left=converted.left)
    assert_same(back.state, legacy_state())
    assert set(back.ledger.targets()) == set(converted.ledger.sources())
    assert set(back.ledger.sources()) == set(converted.ledger.targets())


@given(st.data())
def test_there_and_back_is_bit_identical_for_any_sizes(data: st.DataObject) -> None:
    sizes = tuple(data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=3)))
    axis = data.draw(st.integers(0, 2))
    axes = tuple(data.draw(st.permutations(range(3))))
    rows = tuple(data.draw(st.permutations(range(4)))[: data.draw(st.integers(1, 4))])
    shape = [2, 1, 3]
    shape[axis] = sum(sizes)
    rules = (
        Split("joint", tuple(f"part.{i}" for i in range(len(sizes))), sizes, axis),
        Permute("permuted", axes),
        ClassMap("classes", rows, 4, axis=1),
    )
    bits = torch.Generator().manual_seed(data.draw(st.integers(0, 9)))
    state = {
        name: torch.randint(-(2**31), 2**31 - 1, size, generator=bits, dtype=torch.int32).view(torch.float32)
        for name, size in (("joint", shape), ("permuted", [2, 3, 4]), ("classes", [2, 4]))
    }
    there = convert_with_ledger(state, rules=rules)
    assert_same(reverse(there.state, rules=rules, left=there.left).state, state)


def test_the_ledger_lists_every_key_once(converted: Conversion) -> None:
    sources = [key.name for key in converted.ledger.sources()]
    targets = [key.name for key in converted.ledger.targets()]
    assert sorted(sources) == sorted(legacy_state())
    assert sorted(targets) == sorted(converted.state)
    assert sum(converted.ledger.rules().values()) == len(sources)


def test_the_ledger_says_which_rule_moved_a_key(converted: Conversion) -> None:
    moves = {move.sources[0].name: move for move in converted.ledger.moves}
    assert moves["layer.0.qkv"].rule == str(RULES[2])
    assert [key.name for key in moves["layer.0.qkv"].targets] == ["layer.0.q", "layer.0.k", "layer.0.v"]
    assert moves["bn.num_batches_tracked"].rule == "same name"
    assert moves["criterion.weights"].targets == ()
    assert "belongs to the loss" in moves["criterion.weights"].rule


def test_the_ledger_describes_a_key_by_shape_dtype_and_hash(converted: Conversion) -> None:
    (key,) = (key for key in converted.ledger.sources() if key.name == "bn.num_batches_tracked")
    assert key == Key(key.name, (), "int64", hashlib.sha256((7).to_bytes(8, "little")).hexdigest())
    moves = {move.sources[0].name: move for move in converted.ledger.moves}
    renamed = moves["decoder.norms.0.bias"]
    assert renamed.sources[0].sha256 == renamed.targets[0].sha256


def test_a_ledger_survives_json(converted: Conversion) -> None:
    assert Ledger.from_json(converted.ledger.to_json()) == converted.ledger


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"schema": 1, "moves"', r"led\.json is no ledger \(JSONDecodeError"),
        ('{"schema": 1}', r"led\.json is no ledger \(KeyError"),
        ('{"schema": 9, "moves": []}', r"led\.json has schema 9, this version reads 1"),
        ('{"schema": 1, "moves": [{"rule": "x", "sources": [{}], "targets": []}]}', r"led\.json is no ledger"),
    ],
)
def test_a_damaged_ledger_is_refused(text: str, message: str) -> None:
    with pytest.raises(ParityError, match=message):
        Ledger.from_json(text, where="led.json")


def test_a_ledger_with_a_key_twice_is_refused(converted: Conversion) -> None:
    plain = json.loads(converted.ledger.to_json())
    plain["moves"].append(plain["moves"][0])
    with pytest.raises(ParityError, match=r"1 source keys are claimed twice \['"):
        Ledger.from_json(json.dumps(plain))
    key = Key("a", (), "float32", "0")
    with pytest.raises(ParityError, match=r"1 target keys are claimed twice \['a'\]"):
        Ledger((Move("x", (), (key,)), Move("y", (), (key,))))


def ones(*names: str) -> State:
    return {name: torch.ones(2) for name in names}


@pytest.mark.parametrize(
    ("rules", "names", "targets", "message"),
    [
        ((), "ab", ["a"], r"1 legacy keys have no place \['b'\], 0 new keys get no value"),
        ((), "a", ["a", "b"], r"0 legacy keys have no place \[\], 1 new keys get no value \['b'\]"),
        ((Rename("a", "c"),), "ab", ["b"], r"1 legacy keys have no place \[\"a \(Rename\(pattern='a'"),
        ((Drop("a", "why"),), "ab", ["a", "b"], r"1 new keys get no value \['a'\]"),
        ((Rename("a", "c"), Drop("[ab]", "why")), "ab", None, r"legacy key 'a' is claimed twice, by Rename.* and Drop"),
        ((Rename("a", "b"),), "ab", None, r"new key 'b' is claimed twice, by 'b' and 'a'"),
        ((Rename("[ab]", "c"),), "ab", None, r"new key 'c' is claimed twice, by 'a' and 'b' \(Rename"),
        ((Rename("x", "y"),), "ab", None, r"1 rules match no key, the first is Rename\(pattern='x'"),
        ((Join(("a", "x"), "c", (2, 2)),), "ab", None, r"'c' lacks the part that 'x' matches"),
        ((Rename("(a", "c"),), "ab", None, r"Rename.* is not a valid rule"),
        ((Rename("a", r"\1"),), "ab", None, r"Rename.* is not a valid rule"),
        ((Split("a", ("c", "d"), (1, 2)),), "ab", None, r"'a' of shape \(2,\) has no 3 rows on axis 0"),
        ((Split("a", ("c",), (2,), axis=1),), "ab", None, r"'a' of shape \(2,\) has no 2 rows on axis 1"),
        ((Join(("a", "b"), "c", (2, 3)),), "ab", None, r"'b' of shape \(2,\) has no 3 rows on axis 0"),
        ((ClassMap("a", (0,), 91),), "ab", None, r"'a' of shape \(2,\) has no 91 rows on axis 0"),
        ((Permute("a", (1, 0)),), "ab", None, r"'a' has 1 axes"),
    ],
)
def test_what_does_not_add_up_is_refused(
    rules: tuple[Rule, ...], names: str, targets: list[str] | None, message: str
) -> None:
    with pytest.raises(ParityError, match=message):
        convert_with_ledger(ones(*names), rules=rules, target_names=targets)


def test_parts_that_do_not_fit_together_are_refused() -> None:
    state = {"a": torch.ones(2, 3), "b": torch.ones(2, 4)}
    with pytest.raises(ParityError, match=r"'a' \(2, 3\) torch.float32, 'b' \(2, 4\) .* do not fit together"):
        convert_with_ledger(state, rules=[Join(("a", "b"), "c", (2, 2))])


def test_another_shape_is_refused() -> None:
    with pytest.raises(
        ParityError, match=r"1 new keys get a value of another shape \['a'\]: 'a' is \(2,\), expected \(3,\)"
    ):
        convert(ones("a", "b"), target_names={"a": [3], "b": [2]})


def test_a_rule_that_may_match_nothing_is_no_mistake() -> None:
    rules = [Drop("x", "old files have it", optional=True)]
    assert_same(convert(ones("a"), target_names=["a"], rules=rules), ones("a"))
    assert_same(reverse(ones("a"), rules=rules, left={}).state, ones("a"))


def test_what_was_dropped_and_not_kept_cannot_be_reversed(converted: Conversion) -> None:
    with pytest.raises(ParityError, match=r"cannot be reversed: 2 of the 4 rows of 'cls.(weight|bias)' were dropped"):
        reverse(converted.state, rules=RULES)
    rows_only = {name: rows for name, rows in converted.left.items() if name.startswith("cls")}
    with pytest.raises(ParityError, match=r"cannot be reversed: what Drop\(pattern='criterion.* dropped was not kept"):
        reverse(converted.state, rules=RULES, left=rows_only)


def test_rows_of_another_shape_are_not_put_back(converted: Conversion) -> None:
    left = {**converted.left, "cls.bias": torch.ones(3).half()}
    with pytest.raises(ParityError, match=r"2 of the 4 rows of 'cls.bias' were dropped and not kept"):
        reverse(converted.state, rules=RULES, left=left)


def test_a_renaming_without_inverse_cannot_be_reversed() -> None:
    with pytest.raises(ParityError, match=r"cannot be reversed: 'a\.\*' has no inverse"):
        reverse(ones("b"), rules=[Rename("a.*", "b")])


def test_a_way_back_that_does_not_lead_forth_is_refused() -> None:
    """The inverse leaves ``a.y`` alone, which the rule would have moved."""
    with pytest.raises(ParityError, match=r"converted forward once more, 2 keys differ \['a\.y', 'b\.y'\]"):
        reverse(ones("b.x", "a.y"), rules=[Rename(r"a\.(.*)", r"b.\1")])


def test_legacy_names_that_the_way_back_does_not_give_are_named() -> None:
    with pytest.raises(ParityError, match=r"1 new keys have no place \['b'\], 1 legacy keys get no value \['a'\]"):
        reverse(ones("b"), target_names=["a"])
