"""Parameters are paired as a reader would, and what is not certain is said."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.cases.base import Fill
from parity.drafting.fills import draft_fills
from parity.drafting.match import AMBIGUOUS, NAME, SIMILAR, VALUE, Match, likeness, match
from parity.drafting.renames import rules_for
from parity.drafting.show import summary, table, write_files
from parity.weights.plan import plan
from parity.weights.rules import Drop, Rename
from parity.weights.synthetic import rule_for, state_dict


def matched(sources: Mapping[str, list[int]], targets: Mapping[str, list[int]], **values: Mapping[str, str]) -> Match:
    return match(sources, targets, source_values=values.get("first", {}), target_values=values.get("second", {}))


def layers(stem: str, names: tuple[str, ...], count: int = 3) -> dict[str, list[int]]:
    return {f"{stem}.{i}.{name}": [256] for i in range(count) for name in names}


LEGACY = {
    "backbone.conv.weight": [8, 3],
    **layers("head.transformer.encoder.layers", ("attentions.0.out.bias", "ffns.0.layers.0.0.bias", "norms.0.bias")),
    **layers("head.transformer.decoder.layers", ("attentions.0.out.bias", "attentions.1.out.bias", "norms.0.bias")),
}
NEW = {
    "backbone.conv.weight": [8, 3],
    **layers("encoder.layers", ("self_attn.out.bias", "ffn.layers.0.0.bias", "norms.0.bias")),
    **layers("decoder.layers", ("self_attn.out.bias", "cross_attn.out.bias", "norms.0.bias")),
}


def test_the_same_name_and_shape_is_the_same_parameter() -> None:
    found = matched({"a.weight": [2, 3]}, {"a.weight": [2, 3]})
    assert [(p.source, p.target, p.how) for p in found.pairs] == [("a.weight", "a.weight", NAME)]


def test_the_same_name_with_another_shape_is_not() -> None:
    found = matched({"a.weight": [2, 3]}, {"a.weight": [3, 2], "b": [1]})
    assert not found.pairs
    assert found.left_sources == {"a.weight": ("a.weight", "b")}
    assert set(found.left_targets) == {"a.weight", "b"}


def test_numbers_and_words_decide_within_one_shape() -> None:
    found = matched(LEGACY, NEW)
    pairs = {p.source: p.target for p in found.pairs}
    assert pairs["head.transformer.encoder.layers.1.ffns.0.layers.0.0.bias"] == "encoder.layers.1.ffn.layers.0.0.bias"
    assert pairs["head.transformer.encoder.layers.2.norms.0.bias"] == "encoder.layers.2.norms.0.bias"
    assert not found.left_sources
    assert {p.how for p in found.pairs} == {NAME, SIMILAR, AMBIGUOUS}


def test_a_tie_is_never_silent() -> None:
    found = matched(LEGACY, NEW)
    # Self or cross attention: nothing in the names says which is which.
    doubtful = {p.source.split("layers.")[1] for p in found.ambiguous if "decoder" in p.source}
    assert {f"{i}.attentions.{j}.out.bias" for i in range(3) for j in range(2)} <= doubtful
    twins = matched({"left.a.x": [4], "left.b.x": [4]}, {"sum.v.x": [4], "sum.w.x": [4]})
    assert {p.how for p in twins.pairs} == {AMBIGUOUS}
    assert twins.pairs[0].rivals == ("sum.w.x",)


def test_values_decide_where_both_checkpoints_are_known() -> None:
    found = matched(
        {"old.a": [4], "old.b": [4]},
        {"new.c": [4], "new.d": [4]},
        first={"old.a": "1", "old.b": "2"},
        second={"new.c": "2", "new.d": "1"},
    )
    assert [(p.source, p.target, p.how) for p in found.pairs] == [("old.a", "new.d", VALUE), ("old.b", "new.c", VALUE)]


def test_values_that_several_hold_decide_nothing() -> None:
    same = {"first": {"old.a": "0", "old.b": "0"}, "second": {"new.c": "0", "new.d": "0"}}
    found = matched({"old.a": [4], "old.b": [4]}, {"new.c": [4], "new.d": [4]}, **same)
    assert VALUE not in {p.how for p in found.pairs}


def test_names_with_nothing_in_common_are_no_pair() -> None:
    found = matched({"old.alpha": [4]}, {"q": [4]})
    assert (found.pairs, found.left_sources) == ((), {"old.alpha": ("q",)})


@given(st.lists(st.sampled_from(["a", "b", "layers", "0", "1", "norm"]), min_size=1, max_size=5))
def test_a_name_is_most_like_itself(tokens: list[str]) -> None:
    name = ".".join(tokens)
    assert likeness(name, name) == pytest.approx(1.0)
    assert likeness(name, f"{name}.bias") < 1.0


def test_rules_are_few_and_give_the_pairs() -> None:
    found = matched(LEGACY, NEW)
    rules = rules_for(found.pairs)
    assert len(rules) <= 8
    steps = {step.sources[0]: step.targets[0] for step in plan(LEGACY, rules)}
    assert steps == {p.source: p.target for p in found.pairs}


def test_a_rename_that_would_take_another_key_is_not_widened() -> None:
    found = matched({"head.a.x": [1], "head.b.x": [2]}, {"top.a.x": [1], "head.b.x": [2]})
    assert rules_for(found.pairs) == (Rename(r"head\.a\.(.+)", r"top.a.\1"),)


def test_what_has_no_place_is_dropped_by_name() -> None:
    assert rules_for((), ["old.a"]) == (Drop(r"old\.a", "the new engine has no such parameter: CONFIRM"),)


def test_the_match_is_shown(tmp_path: Path) -> None:
    legacy = {"left.a.x": [4], "left.b.x": [4], "old.gone": [9]}
    new = {"sum.v.x": [4], "sum.w.x": [4]}
    found = matched(legacy, new)
    assert summary(found) == "2 keys matched (2 ambiguous); 1 legacy and 0 new keys left over"
    lines = table(found, rules_for(found.pairs, found.left_sources), legacy, new)
    assert any("or sum.w.x: confirm" in line for line in lines)
    assert any("left" in line and "old.gone" in line and "likeliest partners" in line for line in lines)
    files = write_files(tmp_path / "match", "a case", found, legacy, new)
    first, second = (json.loads(file.read_text()) for file in files[:2])
    assert [(a and a["key"], b and b["key"]) for a, b in zip(first, second, strict=True)] == [
        ("left.a.x", "sum.v.x"),
        ("left.b.x", "sum.w.x"),
        ("old.gone", None),
    ]
    assert "old.gone" in files[2].read_text()


def test_a_page_shows_names_as_text(tmp_path: Path) -> None:
    evil = {"<script>": [1]}
    page = write_files(tmp_path, "<b>", matched(evil, evil), evil, evil)[2].read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_fills_know_norms_scores_and_boxes() -> None:
    shapes = {
        "backbone.layer1.0.bn1.weight": [64],
        "head.cls_convs.0.gn.weight": [256],
        "head.cls_convs.0.conv.weight": [256, 256, 3, 3],
        "head.conv_cls.weight": [80, 256, 3, 3],
        "head.conv_cls.bias": [80],
        "head.conv_reg.weight": [4, 256, 3, 3],
        "roi_head.bbox_head.fc_cls.weight": [81, 1024],
        "head.reg_branches.0.4.weight": [4, 256],
        "head.reg_branches.0.2.weight": [256, 256],
    }
    fills = draft_fills(shapes)

    def fill(name: str) -> tuple[object, float]:
        rule = rule_for(name, fills)
        return rule.centre, rule.spread

    assert fill("head.cls_convs.0.gn.weight") == (1.0, 0.2)
    assert fill("head.cls_convs.0.conv.weight") == (0.0, 1.0)
    assert fill("head.conv_cls.bias")[0] == -4.0
    assert fill("head.conv_reg.weight") == (0.0, 0.3)
    assert fill("roi_head.bbox_head.fc_cls.weight") == (0.0, 2.0)
    assert fill("head.reg_branches.0.4.weight") == (0.0, 0.3)
    assert fill("head.reg_branches.0.2.weight") == (0.0, 1.0)


def test_a_norm_among_layers_is_filled_alone() -> None:
    shapes = {f"h.{i}.fcs.{j}.weight": [8, 8] if j == 0 else [8] for i in range(2) for j in range(2)}
    fills = draft_fills(shapes)
    assert Fill("h.*.fcs.1.weight", centre=1.0, spread=0.2) in fills
    assert rule_for("h.1.fcs.0.weight", fills).per_fan_in


def test_learnt_boxes_lie_in_the_image() -> None:
    shapes = {"rpn_head.init_boxes.weight": [100, 4], "head.reg.weight": [4, 4], "head.reg.bias": [4]}
    drawn = state_dict({name: tuple(shape) for name, shape in shapes.items()}, seed=0, rules=draft_fills(shapes))
    centre, size = drawn["rpn_head.init_boxes.weight"].split(2, dim=1)
    assert bool((size > 0).all() and (centre.abs() < 1).all())
    assert bool((drawn["head.reg.weight"] < 0).any()), "a layer that has a bias is no table"


def test_pixels_that_are_not_normalised_are_made_small_by_the_first_layer() -> None:
    shapes = {"backbone.stem.weight": [16, 3, 3, 3], "backbone.next.weight": [16, 16, 3, 3]}
    assert rule_for("backbone.stem.weight", draft_fills(shapes)).spread == 1.4
    fills = draft_fills(shapes, image_rms=140.0)
    assert rule_for("backbone.stem.weight", fills).spread == 0.01
    assert rule_for("backbone.next.weight", fills).spread == 1.4
