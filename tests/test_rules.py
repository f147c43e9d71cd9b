"""Rules as data: what they match, what they give, and the rule that leads back."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.weights.names import SAME, inverted
from parity.weights.rules import COCO_IDS, ClassFill, ClassMap, Drop, Join, Permute, Rename, Rule, Split


def test_a_rename_matches_the_full_name_only() -> None:
    rule = Rename(r"neck\.(.*)", r"fpn.\1")
    assert rule.matches("neck.0.bias") == [(0, ("fpn.0.bias",))]
    assert rule.matches("rpn_neck.0.bias") == []


@pytest.mark.parametrize(
    ("pattern", "replacement", "name"),
    [
        (r"head\.(\d+)\.(weight|bias)", r"layers.\1.head_\2", "head.12.bias"),
        (r"a\.(\d)\.b\.(w|b)", r"\2.\1", "a.3.b.w"),
        (r"a-b_(.*)", r"x+\1.(y)", "a-b_c.d"),
        (r"(\w+)\.norm", r"\1.\1.ln", "block.norm"),
        (r"x\.((?:q|k|v)_proj)", r"y.\g<1>", "x.k_proj"),
        (r"a\.(b)", r"pre.\g<0>", "a.b"),
        (r"a\\b\.(.)", r"c\\d.\1", r"a\b.e"),
        (r"any.*[thing]", SAME, "any thing"),
    ],
)
def test_an_inverse_gives_the_name_back(pattern: str, replacement: str, name: str) -> None:
    (((_, (new,)),)) = Rename(pattern, replacement).matches(name)
    assert Rename(pattern, replacement).inverse().matches(new) == [(0, (name,))]


@given(st.lists(st.from_regex(r"[a-z0-9_\-+]{1,4}", fullmatch=True), min_size=2, max_size=4), st.randoms())
def test_any_order_of_groups_has_an_inverse(words: list[str], draw: object) -> None:
    order = list(range(1, len(words) + 1))
    draw.shuffle(order)  # type: ignore[attr-defined]
    pattern = r"\.".join(f"({re.escape(word)}|other)" for word in words)
    rule = Rename(pattern, "/".join(f"\\{group}" for group in order))
    name = ".".join(words)
    (((_, (new,)),)) = rule.matches(name)
    assert rule.inverse().matches(new) == [(0, (name,))]


@pytest.mark.parametrize(
    ("pattern", "replacement", "message"),
    [
        (r"a\.(\d)\.(\w)", r"b.\1", r"group 2 does not come back"),
        (r"a.b", "c", r"'\.' stands outside of a group; escape it or group it"),
        (r"a\d", "c", r"'\\d' stands outside of a group"),
        (r"((a)b)", r"\1", r"a group within a group; write the inner one as \(\?:"),
        (r"(?:a|b)\.c", "d", r"'\(\?:' is a group that keeps nothing"),
        (r"(a", r"\1", r"a group is not closed"),
    ],
)
def test_a_renaming_without_inverse_says_why(pattern: str, replacement: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        inverted(pattern, replacement)


def test_what_is_dropped_has_no_inverse() -> None:
    assert Drop(r"num_batches_tracked", "the new engine counts none").inverse() is None


INVERTIBLE: tuple[Rule, ...] = (
    Split(r"(\w+)\.qkv\.(weight|bias)", (r"\1.q.\2", r"\1.k.\2", r"\1.v.\2"), (4, 4, 2)),
    Permute(r"(\w+)\.weight", (2, 0, 1), r"\1.kernel"),
    ClassMap(r"cls\.(.*)", (2, 0), 3, r"head.\1", 1),
)


@pytest.mark.parametrize("rule", INVERTIBLE, ids=lambda rule: type(rule).__name__)
def test_the_inverse_of_the_inverse_names_the_same(rule: Rule) -> None:
    name = {"Split": "a.qkv.bias", "Permute": "a.weight", "ClassMap": "cls.bias"}[type(rule).__name__]
    back = rule.inverse()
    assert back is not None
    again = back.inverse()
    assert again is not None
    assert again.matches(name) == rule.matches(name)
    (((_, given_names),)) = rule.matches(name)
    assert {back.matches(new)[0][1] for new in given_names} == {(name,)}


def test_the_inverse_of_a_split_joins_its_parts() -> None:
    back = INVERTIBLE[0].inverse()
    assert isinstance(back, Join)
    assert [back.matches(f"a.{part}.bias")[0][0] for part in "qkv"] == [0, 1, 2]
    assert (back.sizes, back.axis) == ((4, 4, 2), 0)


def test_the_inverse_of_a_permutation_undoes_it() -> None:
    back = INVERTIBLE[1].inverse()
    assert isinstance(back, Permute)
    assert back.axes == (1, 2, 0)


def test_a_class_map_knows_the_rows_it_leaves() -> None:
    rule = ClassMap("cls", COCO_IDS, 91)
    assert rule.left() == (0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
    assert len(COCO_IDS) == 80
    assert rule.inverse() == ClassFill("cls", COCO_IDS, 91)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Split("a", ("b", "c"), (1,)), "as many sizes as targets"),
        (lambda: Split("a", (), ()), "as many sizes as targets"),
        (lambda: Join(("a",), "b", (1, 2)), "as many sizes as sources"),
        (lambda: Permute("a", (0, 2)), "axes must be 0 to n-1, each once"),
        (lambda: ClassMap("a", (0, 0), 2), "rows must be different ones of 0 to 1"),
        (lambda: ClassMap("a", (2,), 2), "rows must be different ones of 0 to 1"),
        (lambda: ClassMap("a", (), 2), "rows must be different ones of 0 to 1"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_rules_need_no_torch() -> None:
    """Cases declare rules, and `parity cases` need not wait for torch."""
    code = "import sys, parity.weights.rules; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
