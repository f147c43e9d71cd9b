"""Patterns take values apart and put them together again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parity.cases.base import Call, Case, Stage, base_name
from parity.cases.patterns import (
    Constant,
    Every,
    Ignore,
    Instances,
    Many,
    Metas,
    Pattern,
    Samples,
    Split,
    build,
    item,
    match,
    names,
)


def again(pattern: Pattern, found: dict[str, Any]) -> Any:
    return build(pattern, found.get, samples="the samples", metas="the metas", stack=torch.stack)


ROUND_TRIPS = {
    "name": ("a", 1),
    "tuple": (("a", "b"), (1, 2)),
    "mapping": ({"x": "a", "y": ("b", "c")}, {"x": 1, "y": (2, 3)}),
    "many": (Many("a", 3), [1, 2, 3]),
    "constant": (Constant(None), None),
    "samples": (Samples(), "the samples"),
    "metas": (Metas(), "the metas"),
    "mixed": ((Many("a", 1), {"m": Constant(7), "s": Samples()}), ([1], {"m": 7, "s": "the samples"})),
}


@pytest.mark.parametrize("kind", sorted(ROUND_TRIPS))
def test_what_is_matched_is_built_again(kind: str) -> None:
    pattern, value = ROUND_TRIPS[kind]
    assert again(pattern, match(pattern, value)) == value


def test_a_split_tensor_is_built_again() -> None:
    tensor = torch.arange(6).reshape(3, 2)
    found = match(Split("a", 3), tensor)
    assert list(found) == ["a[0]", "a[1]", "a[2]"]
    assert again(Split("a", 3), found).tolist() == tensor.tolist()


def test_a_split_keeps_just_the_layers_that_are_read() -> None:
    tensor, pattern = torch.arange(6).reshape(3, 2), Split("a", 3, only=(2,))
    found = match(pattern, tensor)
    assert {name: value.tolist() for name, value in found.items()} == {"a[2]": [4, 5]}
    assert again(pattern, found).tolist() == [[4, 5]]


def test_results_are_matched_by_image() -> None:
    value = [SimpleNamespace(bboxes=1, scores=2), SimpleNamespace(bboxes=3, scores=4)]
    found = match(Instances((("bboxes", "boxes"), ("scores", "scores"))), value)
    assert found == {"boxes[0]": 1, "scores[0]": 2, "boxes[1]": 3, "scores[1]": 4}


def test_results_are_built_again_from_what_is_known_of_each_image() -> None:
    pattern = Instances((("bboxes", "boxes"), ("scores", "scores")))
    found = match(pattern, [SimpleNamespace(bboxes=1, scores=2), SimpleNamespace(bboxes=3, scores=4)])
    built = build(pattern, found.get, samples=None, metas=[{}, {}], stack=torch.stack)
    assert built == [{"bboxes": 1, "scores": 2}, {"bboxes": 3, "scores": 4}]
    assert names(pattern) == ["boxes[*]", "scores[*]"]


def test_of_a_large_tensor_some_rows_are_kept() -> None:
    found = match({"feats": Every("features", 3)}, {"feats": torch.arange(14).reshape(7, 2)})
    assert found["features"].tolist() == [[0, 1], [6, 7], [12, 13]]
    assert names(Every("features", 3)) == ["features"]


@pytest.mark.parametrize("pattern", [Every("a", 2), Ignore()])
def test_what_can_only_be_matched_is_not_built(pattern: Pattern) -> None:
    with pytest.raises(TypeError, match=r"(Every|Ignore)\(.*\) cannot be built, only matched"):
        again(pattern, {})


def test_what_is_ignored_is_not_looked_at() -> None:
    assert match(("a", Ignore()), (1, object())) == {"a": 1}


def test_none_has_no_name() -> None:
    assert match({"x": "a", "y": Many("b", 2)}, {"x": None, "y": None}) == {}


@pytest.mark.parametrize(
    ("pattern", "value", "message"),
    [
        (("a", "b"), (1, 2, 3), r"\('a', 'b'\): 3 elements where the case declares 2"),
        (Many("refs", 7), [1] * 6, "refs: 6 elements where the case declares 7"),
        (Split("layers", 6), torch.zeros(5, 2), "layers: 5 elements where the case declares 6"),
    ],
)
def test_a_wrong_length_is_refused(pattern: Pattern, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        match(pattern, value)


def test_a_missing_key_is_refused_by_name() -> None:
    with pytest.raises(KeyError, match="memory"):
        match({"memory": "memory"}, {"other": 1})


def test_what_is_no_pattern_is_refused() -> None:
    with pytest.raises(TypeError, match="no pattern: 3"):
        match(3, 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="3 cannot be built"):
        again(3, {})  # type: ignore[arg-type]


def patterns(*, max_leaves: int = 8) -> st.SearchStrategy[Any]:
    leaves = st.one_of(
        st.integers(0, 99).map(lambda number: f"t{number}"),
        st.builds(Many, st.integers(100, 199).map(lambda number: f"m{number}"), st.integers(0, 3)),
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3).map(tuple), st.dictionaries(st.sampled_from("xyz"), inner, max_size=3)
        ),
        max_leaves=max_leaves,
    )


@given(patterns())
def test_names_are_those_that_match_finds_and_build_looks_up(pattern: Pattern) -> None:
    value = build(pattern, lambda name: name, samples=None, metas=None, stack=list)
    assert match(pattern, value) == {name: name for name in names(pattern)}


def test_inputs_of_a_stage_are_what_it_does_not_write_before() -> None:
    stage = Stage(
        "encoder",
        (
            Call("first", {"x": ("p3", "p4"), "s": Samples()}, {"t": "tokens"}),
            Call("second", {"t": "tokens", "m": "mask", "again": "p3"}, "memory"),
        ),
        reads_state=("state",),
    )
    assert stage.inputs() == ("state", "p3", "p4", "mask")


def test_what_a_call_writes_later_is_still_an_input_before() -> None:
    stage = Stage("s", (Call("a", {"x": "x"}, "y"), Call("b", {"y": "y"}, "x")))
    assert stage.inputs() == ("x",)


def test_every_input_of_the_case_is_written_before(case: Case) -> None:
    known = {"image"}
    for stage in case.stages:
        assert set(stage.inputs()) <= known, stage.name
        known |= {name for call in stage.calls for name in names(call.writes)} | set(stage.writes_state)


def test_every_tensor_of_the_case_has_a_meaning(case: Case) -> None:
    written = {name for stage in case.stages for call in stage.calls for name in names(call.writes)}
    assert [name for name in sorted(written) if not case.meaning(name).text] == []


def test_names_carry_their_index() -> None:
    assert item("boxes", 3) == "boxes[3]"
    assert base_name(item("boxes", 3)) == "boxes"
