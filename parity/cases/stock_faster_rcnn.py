"""Faster R-CNN R-50 as mmdet ships it: mmdet 2.22 against mmdet 3.3; drafted by ``parity new-case``, then mended."""

from __future__ import annotations

from parity.cases.base import Batch, Call, Case, Fill, Meaning, Stage
from parity.cases.common import PIXELS, RESNET
from parity.cases.odd_images import odd_images
from parity.cases.patterns import (
    Attribute,
    Constant,
    Derived,
    Every,
    Instances,
    Many,
    Metas,
    PerImage,
    Proposals,
    ScoredBoxes,
)

TENSORS = {
    **PIXELS,
    "c": Meaning("backbone feature map of one stride", "activation"),
    "p": Meaning("neck feature map of one stride, 256 channels", "activation"),
    "cls_scores": Meaning("objectness of one level (B, 3, H, W)", "logits"),
    "bbox_preds": Meaning("offsets to the anchors of one level (B, 12, H, W)", "box deltas"),
    "proposals": Meaning("proposals of one image (N, 4)", "pixels xyxy"),
    "proposal_scores": Meaning("objectness of one image's proposals (N,)", "probability"),
    "cls_score": Meaning("class scores of all images' proposals (N, 81)", "logits"),
    "bbox_feats": Meaning("pooled features of every 12th proposal (N / 12, 256, 7, 7)", "activation"),
    "bbox_pred": Meaning("offsets to the proposals, one for each class (N, 320)", "box deltas"),
    "boxes": Meaning("final boxes of one image (N, 4)", "pixels xyxy"),
    "scores": Meaning("final scores of one image (N,)", "probability"),
    "labels": Meaning("final classes of one image (N,)", "class index"),
}

# All pooled features of 2,000 proposals are 25 million numbers, 200 MB in float64: some stand for the others, whose
# errors show in the scores, too.
OUTPUTS = {"cls_score": "cls_score", "bbox_pred": "bbox_pred", "bbox_feats": Every("bbox_feats", 12)}

# The calls of the legacy engine; only the tensors' names have to be those below.
LEGACY_STAGES = (
    Stage("backbone", (Call("backbone", {"x": "image"}, ("c2", "c3", "c4", "c5")),)),
    Stage("neck", (Call("neck", {"inputs": ("c2", "c3", "c4", "c5")}, ("p2", "p3", "p4", "p5", "p6")),)),
    Stage(
        "rpn_head",
        (
            Call(
                "rpn_head",
                {"feats": ("p2", "p3", "p4", "p5", "p6")},
                (Many("cls_scores", 5), Many("bbox_preds", 5)),
            ),
        ),
    ),
    Stage(
        "proposals",
        (
            Call(
                "rpn_head.get_bboxes",
                {"cls_scores": Many("cls_scores", 5), "bbox_preds": Many("bbox_preds", 5), "img_metas": Metas()},
                Proposals("proposals", "proposal_scores"),
            ),
        ),
    ),
    Stage(
        "roi_head",
        (
            Call(
                "roi_head._bbox_forward",
                {
                    "x": ("p2", "p3", "p4", "p5", "p6"),
                    "rois": Derived(PerImage("proposals"), "parity.taps.rois:proposals_to_rois"),
                },
                OUTPUTS,
            ),
        ),
    ),
    Stage(
        "predict",
        (Call("roi_head.bbox_head.get_bboxes", {}, (ScoredBoxes("boxes", "scores"), "labels"), each_image=True),),
        replayable=False,
    ),
)

# The calls of the new engine.
STAGES = (
    Stage("backbone", (Call("backbone", {"x": "image"}, ("c2", "c3", "c4", "c5")),)),
    Stage("neck", (Call("neck", {"inputs": ("c2", "c3", "c4", "c5")}, ("p2", "p3", "p4", "p5", "p6")),)),
    Stage(
        "rpn_head",
        (Call("rpn_head", {"x": ("p2", "p3", "p4", "p5", "p6")}, (Many("cls_scores", 5), Many("bbox_preds", 5))),),
    ),
    Stage(
        "proposals",
        (
            Call(
                "rpn_head.predict_by_feat",
                {
                    "cls_scores": Many("cls_scores", 5),
                    "bbox_preds": Many("bbox_preds", 5),
                    "batch_img_metas": Metas(),
                    "rescale": Constant(False),
                },
                Instances((("bboxes", "proposals"), ("scores", "proposal_scores"))),
            ),
        ),
    ),
    Stage(
        "roi_head",
        (
            Call(
                "roi_head._bbox_forward",
                {
                    "x": ("p2", "p3", "p4", "p5", "p6"),
                    "rois": Derived(PerImage("proposals"), "parity.taps.rois:proposals_to_rois"),
                },
                OUTPUTS,
            ),
        ),
    ),
    Stage(
        "predict",
        (
            Call(
                "roi_head.bbox_head.predict_by_feat",
                {
                    "rois": Derived(
                        (
                            Derived(PerImage("proposals"), "parity.taps.rois:proposals_to_rois"),
                            PerImage("proposals"),
                        ),
                        "parity.taps.rois:per_image",
                    ),
                    "cls_scores": Derived(("cls_score", PerImage("proposals")), "parity.taps.rois:per_image"),
                    "bbox_preds": Derived(("bbox_pred", PerImage("proposals")), "parity.taps.rois:per_image"),
                    "batch_img_metas": Metas(),
                    "rcnn_test_cfg": Attribute("roi_head.test_cfg"),
                    "rescale": Constant(True),
                },
                Instances((("bboxes", "boxes"), ("scores", "scores"), ("labels", "labels"))),
            ),
        ),
    ),
)

# First match wins. Activations of size 1, class scores that spread, nothing trivial.
WEIGHTS = (
    *RESNET,
    Fill("rpn_head.rpn_cls.bias", spread=0.3),
    Fill("rpn_head.rpn_cls.weight", per_fan_in=True),
    Fill("rpn_head.rpn_reg.weight", spread=0.3, per_fan_in=True),
    Fill("roi_head.bbox_head.fc_cls.bias", spread=0.3),
    Fill("roi_head.bbox_head.fc_cls.weight", spread=2.0, per_fan_in=True),
    Fill("roi_head.bbox_head.fc_reg.weight", spread=0.3, per_fan_in=True),
    Fill("*bias", spread=0.1),
    Fill("backbone.*", spread=1.4, per_fan_in=True),
    Fill("*", per_fan_in=True),
)

RECORDS = {
    "padded": Batch(seed=60, sizes=((128, 160), (96, 150))),
    "unpadded": Batch(seed=61, sizes=((96, 128), (96, 128))),
    "tiny": Batch(seed=62, sizes=((64, 96), (32, 64))),
    "odd-images": odd_images(60),
}

CASES = (
    Case(
        id="stock_faster_rcnn_r50_1x",
        title="Faster R-CNN R-50 FPN, 12 epochs",
        legacy="mmdet2",
        new="mmdet3",
        configs={
            "mmdet2": "faster_rcnn/faster_rcnn_r50_fpn_1x_coco.py",
            "mmdet3": "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
        },
        reported_ap=37.4,
        stages=STAGES,
        tensors=TENSORS,
        weights=WEIGHTS,
        records=RECORDS,
        legacy_stages=LEGACY_STAGES,
    ),
)
