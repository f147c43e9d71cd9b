"""Stages are read off what both engines do; what cannot be read off is said."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from parity.cases.base import Case, Fill, Meaning, Stage
from parity.cases.common import RESNET
from parity.cases.patterns import Derived, Detections, Every, Instances, Many, Metas, PerImage, Split, Transposed
from parity.drafting import source
from parity.drafting.known import known_differences
from parity.drafting.pairing import paired
from parity.drafting.stages import Drafted, Drafter, kind_of
from parity.drafting.trees import Names, Unreadable, flat, reading
from parity.taps.observe import Observer

Tree = dict[str, Any]


def t(number: int, *shape: int) -> Tree:
    return {"t": number, "shape": list(shape)}


def seq(*trees: Tree) -> Tree:
    return {"seq": list(trees)}


def call(path: str, result: Tree, **arguments: Tree) -> Tree:
    return {"path": path, "arguments": arguments, "result": result}


IMAGE = t(0, 2, 3, 64, 96)
C4, C5 = t(1, 2, 8, 4, 6), t(2, 2, 8, 2, 3)
SCORES, BOXES = [t(3, 2, 4, 4, 6), t(4, 2, 4, 2, 3)], [t(5, 2, 4, 4, 6), t(6, 2, 4, 2, 3)]
METAS = {"metas": 2}
INSTANCES = {
    "instances": {
        "bboxes": [t(10, 5, 4), t(11, 5, 4)],
        "scores": [t(12, 5), t(13, 5)],
        "labels": [t(14, 5), t(15, 5)],
    }
}


def one_stage(engine: str) -> list[Tree]:
    feats, head, metas = ("feats", "get_bboxes", "img_metas") if engine == "legacy" else ("x", "predict_by_feat", "m")
    detections = seq(seq(t(20, 5, 5), t(21, 5)), seq(t(22, 5, 5), t(23, 5)))
    return [
        call("backbone", seq(C4, C5), x=IMAGE),
        call("bbox_head", seq(seq(*SCORES), seq(*BOXES)), **{feats: seq(C4, C5)}),
        call(
            f"bbox_head.{head}",
            detections if engine == "legacy" else INSTANCES,
            **{"cls_scores": seq(*SCORES), "bbox_preds": seq(*BOXES), metas: METAS},
        ),
    ]


def drafted(legacy: list[Tree], new: list[Tree]) -> Drafted:
    return Drafter(legacy, new, (64, 96)).draft()


def test_a_one_stage_detector_is_read_off() -> None:
    found = drafted(one_stage("legacy"), one_stage("new"))
    assert not found.to_do
    assert [stage.name for stage in found.stages] == ["backbone", "bbox_head", "predict"]
    backbone, head, predict = (stage.calls[0] for stage in found.stages)
    assert backbone.writes == ("c4", "c5")
    assert (head.reads, head.writes) == ({"x": ("c4", "c5")}, (Many("cls_scores", 2), Many("bbox_preds", 2)))
    assert predict.reads == {"cls_scores": Many("cls_scores", 2), "bbox_preds": Many("bbox_preds", 2), "m": Metas()}
    assert isinstance(predict.writes, Instances)
    assert found.legacy_stages[2].calls[0].writes == Detections("boxes", "scores", "labels")


def test_what_the_engines_do_not_both_give_is_left_out_and_said() -> None:
    new = one_stage("new")
    new[1]["result"] = seq(seq(t(3, 2, 9, 4, 6)), seq(t(5, 2, 9, 4, 6)))
    found = drafted(one_stage("legacy"), new)
    assert [stage.name for stage in found.stages] == ["backbone"]
    assert found.to_do[0].startswith("stage bbox_head is left out: the legacy gives (2, 4, 4, 6), ")
    assert "predict is left out: the new engine's bbox_head.predict_by_feat reads cls_scores" in found.to_do[1]


def test_a_step_that_one_engine_does_not_have_is_said() -> None:
    found = drafted(one_stage("legacy"), [*one_stage("new"), call("neck", seq(C4), inputs=seq(C4, C5))])
    assert "stage neck is left out: legacy makes 0 such calls, new 1" in found.to_do[0]


def test_what_the_legacy_does_not_show_is_made_again_by_the_stage() -> None:
    legacy = [*one_stage("legacy")[:1], call("bbox_head.transformer.encoder", t(7, 30, 2, 16), query={"unknown": [1]})]
    mask = t(8, 2, 30)
    new = [
        *one_stage("new")[:1],
        call("pre_transformer", seq({"dict": {"mask": mask}}), feats=seq(C4, C5), samples={"samples": 2}),
        call("forward_encoder", {"dict": {"memory": t(9, 2, 30, 16)}}, mask=mask),
    ]
    found = drafted(legacy, new)
    encoder = found.stages[1]
    assert [each.path for each in encoder.calls] == ["pre_transformer", "forward_encoder"]
    assert encoder.calls[0].writes == ({"mask": "_mask"},)
    assert encoder.inputs() == ("c4", "c5")
    assert found.legacy_stages[1].calls[0].writes == Transposed("memory", (1, 0, 2))
    assert not found.legacy_stages[1].replayable
    assert kind_of(new) == "DETR-like"


def test_a_stack_is_the_same_as_its_layers() -> None:
    layers = [{**t(i, 2, 5, 4), "slot": ""} for i in range(4)]
    (pair,) = paired([{**t(9, 3, 2, 5, 4), "slot": ""}], layers)
    assert [tree["t"] for tree in pair.new] == [1, 2, 3]  # the first is what entered
    assert pair.form("references") == Split("references", 3)
    assert not paired([{**t(9, 3, 2, 5, 4), "slot": ""}], layers[:2])


def test_an_argument_that_nothing_gives_is_named() -> None:
    with pytest.raises(Unreadable, match=r"^rois \(7, 5\)$"):
        reading(t(99, 7, 5), Names({}), argument="rois")
    with pytest.raises(Unreadable, match=r"^cfg \(other\)$"):
        reading({"other": "Config"}, Names({}), argument="cfg")


def test_flat_tells_the_key_of_each_tensor() -> None:
    assert [(tree["t"], tree["slot"]) for tree in flat({"dict": {"a": t(1, 2), "b": seq(t(2, 3))}})] == [
        (1, "a"),
        (2, "b"),
    ]


class Detector(nn.Module):
    """Makes regions of its boxes between two calls, as RoI heads do."""

    def boxes(self, image: torch.Tensor) -> list[torch.Tensor]:
        return [image.new_ones(2, 4), image.new_zeros(1, 4)]

    def head(self, rois: torch.Tensor, test_cfg: object) -> torch.Tensor:
        return rois.sum(1, keepdim=True)

    def predict(self, per_image: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return per_image[0]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        boxes = self.boxes(image)
        rois = torch.cat([torch.cat([b.new_full((len(b), 1), i), b], 1) for i, b in enumerate(boxes)])
        scores = self.head(rois, self.test_cfg)
        return self.predict(scores.split([len(b) for b in boxes]))


def test_arguments_are_traced_back_to_what_is_known() -> None:
    model, image = Detector(), torch.zeros(2, 3, 8, 8)
    model.test_cfg = object()  # type: ignore[assignment]
    with Observer(model, ["boxes", "head", "predict", "nowhere.at_all"], image) as observer:
        model(image)
    boxes, head, predict = observer.calls
    assert boxes["arguments"]["image"]["t"] == 0
    assert head["arguments"]["test_cfg"] == {"attribute": "test_cfg"}
    names = Names({0: "image"})
    names.name_images(boxes["result"]["seq"], "proposals")
    rois = reading(head["arguments"]["rois"], names, argument="rois")
    assert rois == Derived(PerImage("proposals"), "parity.taps.rois:proposals_to_rois")
    names.tensors[head["result"]["t"]] = "scores"
    cut = reading(predict["arguments"]["per_image"], names, argument="per_image")
    assert cut == Derived(("scores", PerImage("proposals")), "parity.taps.rois:per_image")
    assert "boxes" not in vars(model)


def test_the_file_declares_what_was_drafted() -> None:
    found = drafted(one_stage("legacy"), one_stage("new"))
    fills = (*RESNET, Fill("*", spread=1.4, per_fan_in=True))
    text = source.module(
        [
            ("", "TENSORS", {source.Code("**PIXELS"): source.Code(""), "c": Meaning('a "feature" map', "activation")}),
            ("two\nlines", "STAGES", tuple(found.stages)),
            ("", "WEIGHTS", source.fills(fills)),
            ("", "CASES", (Case("x", "x", "a", "b", {}, 0.0, source.Code("STAGES"), {}, (), {}),)),  # type: ignore[arg-type]
        ],
        title="x",
        legacy="a",
        new="b",
    )
    made: dict[str, Any] = {}
    exec(compile(text, "x.py", "exec"), made)
    assert made["STAGES"] == tuple(found.stages)
    assert made["WEIGHTS"] == fills
    assert made["TENSORS"]["c"].text == 'a "feature" map'
    assert made["CASES"][0].stages == tuple(found.stages)
    assert "Transposed" not in text, "idle imports are dropped"
    assert max(map(len, text.splitlines())) <= 120


NOTHING, SQUARE = {"type": "Resize"}, {"type": "Pad", "pad_to_square": True}


@pytest.mark.parametrize(
    ("kind", "test_cfg", "step", "told"),
    [
        (
            "one-stage",
            {"min_bbox_size": 0},
            NOTHING,
            ["known difference, lifted: before the NMS mmdet 3.3 drops boxes"],
        ),
        ("one-stage", {}, NOTHING, []),
        ("two-stage", {"min_bbox_size": 0}, NOTHING, []),
        ("one-stage", {}, SQUARE, ["known difference: mmcv 2's Pad overwrites img_shape with the padded size"]),
    ],
)
def test_known_differences_are_declared_where_they_apply(
    kind: str, test_cfg: dict[str, Any], step: dict[str, Any], told: list[str]
) -> None:
    dataset = SimpleNamespace(pipeline=[step])
    config = SimpleNamespace(model={"test_cfg": test_cfg}, test_dataloader=SimpleNamespace(dataset=dataset))
    found = list(map(str, known_differences(kind, config)))
    assert [line[: len(start)] for line, start in zip(found, told, strict=True)] == told


def two_stage(engine: str) -> list[Tree]:
    """Return the calls of a detector whose RoI head is given the proposals as result objects."""
    boxes, scores = [t(30, 7, 4), t(31, 5, 4)], [t(32, 7), t(33, 5)]
    given = {"instances": {"bboxes": boxes, "scores": scores, "labels": [t(34, 7), t(35, 5)]}}
    feats = t(40, 12, 256, 70, 70)
    seen = [call("backbone", seq(C4, C5), x=IMAGE)]
    if engine == "legacy":
        joined = seq(t(36, 7, 5), t(37, 5, 5))
        bare = {"bboxes": t(24, 5, 5), "labels": t(25, 5)}
        return [
            *seen,
            call("rpn_head.get_bboxes", joined, feats=seq(C4, C5)),
            call("roi_head._bbox_forward", {"dict": {"feats": feats}}, x=seq(C4, C5)),
            call("mmdet.models.roi_heads.sparse_roi_head:bbox2result", {"other": "list"}, **bare),
        ]
    return [
        *seen,
        call("rpn_head.predict_by_feat", given, feats=seq(C4, C5)),
        call("roi_head._bbox_forward", {"dict": {"feats": feats}}, x=seq(C4, C5)),
        call("roi_head.predict_bbox", INSTANCES, x=seq(C4, C5), rpn_results_list=given),
    ]


def test_result_objects_are_made_again_from_what_is_known() -> None:
    found = drafted(two_stage("legacy"), two_stage("new"))
    assert not found.to_do
    (predict,) = found.stages[-1].calls
    # Without the labels: nothing of the legacy engine says what they are.
    assert predict.reads["rpn_results_list"] == Instances((("bboxes", "proposals"), ("scores", "proposal_scores")))


def test_of_a_tensor_too_large_to_keep_some_rows_are() -> None:
    found = drafted(two_stage("legacy"), two_stage("new"))
    for stages in (found.stages, found.legacy_stages):
        assert stages[2].calls[0].writes == {"feats": Every("feats", 8)}


def test_what_is_seen_as_it_is_handed_on_was_decided_before() -> None:
    found = drafted(two_stage("legacy"), two_stage("new"))
    assert (found.legacy_stages[-1].begins_after, found.legacy_stages[-1].calls[0].of_arguments) == ("roi_head", True)


def test_a_stage_is_one_line_where_it_fits() -> None:
    assert source.written(Stage("neck", ())) == 'Stage("neck", ())'
