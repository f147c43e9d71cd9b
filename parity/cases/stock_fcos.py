"""FCOS R-50 as mmdet ships it: mmdet 2.22 against mmdet 3.3; drafted by ``parity new-case``, then mended."""

from __future__ import annotations

from parity.cases.base import Batch, Call, Case, Fill, Meaning, Stage
from parity.cases.common import DEGENERATE_BOXES, KEEP_DEGENERATE, PIXELS, RESNET
from parity.cases.odd_images import odd_images
from parity.cases.patterns import Constant, Detections, Instances, Many, Metas

TENSORS = {
    **PIXELS,
    "c": Meaning("backbone feature map of one stride", "activation"),
    "p": Meaning("neck feature map of one stride, 256 channels", "activation"),
    "cls_scores": Meaning("class scores of one level (B, 80, H, W)", "logits"),
    "bbox_preds": Meaning("left, top, right, bottom of one level (B, 4, H, W)", "pixels"),
    "score_factors": Meaning("centreness of one level (B, 1, H, W)", "logits"),
    "boxes": Meaning("final boxes of one image (N, 4)", "pixels xyxy"),
    "scores": Meaning("final scores of one image (N,)", "probability"),
    "labels": Meaning("final classes of one image (N,)", "class index"),
}

# The calls of the legacy engine; only the tensors' names have to be those below.
LEGACY_STAGES = (
    Stage("backbone", (Call("backbone", {"x": "image"}, ("c2", "c3", "c4", "c5")),)),
    Stage("neck", (Call("neck", {"inputs": ("c2", "c3", "c4", "c5")}, ("p3", "p4", "p5", "p6", "p7")),)),
    Stage(
        "bbox_head",
        (
            Call(
                "bbox_head",
                {"feats": ("p3", "p4", "p5", "p6", "p7")},
                (Many("cls_scores", 5), Many("bbox_preds", 5), Many("score_factors", 5)),
            ),
        ),
    ),
    Stage(
        "predict",
        (
            Call(
                "bbox_head.get_bboxes",
                {
                    "cls_scores": Many("cls_scores", 5),
                    "bbox_preds": Many("bbox_preds", 5),
                    "score_factors": Many("score_factors", 5),
                    "img_metas": Metas(),
                    "rescale": Constant(True),
                },
                Detections("boxes", "scores", "labels"),
            ),
        ),
    ),
)

# The calls of the new engine.
STAGES = (
    Stage("backbone", (Call("backbone", {"x": "image"}, ("c2", "c3", "c4", "c5")),)),
    Stage("neck", (Call("neck", {"inputs": ("c2", "c3", "c4", "c5")}, ("p3", "p4", "p5", "p6", "p7")),)),
    Stage(
        "bbox_head",
        (
            Call(
                "bbox_head",
                {"x": ("p3", "p4", "p5", "p6", "p7")},
                (Many("cls_scores", 5), Many("bbox_preds", 5), Many("score_factors", 5)),
            ),
        ),
    ),
    Stage(
        "predict",
        (
            Call(
                "bbox_head.predict_by_feat",
                {
                    "cls_scores": Many("cls_scores", 5),
                    "bbox_preds": Many("bbox_preds", 5),
                    "score_factors": Many("score_factors", 5),
                    "batch_img_metas": Metas(),
                    "rescale": Constant(True),
                },
                Instances((("bboxes", "boxes"), ("scores", "scores"), ("labels", "labels"))),
            ),
        ),
    ),
)

# First match wins. Sides of some e^2.5 pixels, so that boxes overlap and NMS has work to do.
WEIGHTS = (
    *RESNET,
    Fill("bbox_head.conv_cls.bias", centre=-4.0, spread=0.3),
    Fill("bbox_head.conv_cls.weight", per_fan_in=True),
    Fill("bbox_head.conv_reg.bias", centre=2.5, spread=0.3),
    Fill("bbox_head.conv_reg.weight", spread=0.3, per_fan_in=True),
    Fill("bbox_head.cls_convs.*.gn.weight", centre=1.0, spread=0.2),
    Fill("bbox_head.reg_convs.*.gn.weight", centre=1.0, spread=0.2),
    Fill("*scale", centre=1.0, spread=0.2),
    Fill("*bias", spread=0.1),
    Fill("backbone.*", spread=1.4, per_fan_in=True),
    Fill("*", per_fan_in=True),
)

RECORDS = {
    "padded": Batch(seed=50, sizes=((128, 160), (96, 150))),
    "unpadded": Batch(seed=51, sizes=((96, 128), (96, 128))),
    "tiny": Batch(seed=52, sizes=((64, 96), (32, 64))),
    "odd-images": odd_images(50),
}

CASES = (
    Case(
        id="stock_fcos_r50_1x",
        title="FCOS R-50 (caffe) FPN with GN heads, 12 epochs",
        legacy="mmdet2",
        new="mmdet3",
        configs={
            "mmdet2": "fcos/fcos_r50_caffe_fpn_gn-head_1x_coco.py",
            "mmdet3": "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py",
        },
        reported_ap=36.6,
        stages=STAGES,
        tensors=TENSORS,
        weights=WEIGHTS,
        records=RECORDS,
        legacy_stages=LEGACY_STAGES,
        deviations=(DEGENERATE_BOXES,),
        options={"mmdet3": KEEP_DEGENERATE},
    ),
)
