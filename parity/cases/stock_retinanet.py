"""RetinaNet R-50 FPN as mmdet ships it: mmdet 2.22 against mmdet 3.3."""

from __future__ import annotations

from parity.cases.base import Batch, Call, Case, Fill, Meaning, Stage
from parity.cases.common import DEGENERATE_BOXES, KEEP_DEGENERATE, PIXELS, RESNET
from parity.cases.odd_images import odd_images
from parity.cases.patterns import Constant, Detections, Instances, Many, Metas

LEVELS = 5
BACKBONE = ("c2", "c3", "c4", "c5")
NECK = ("p3", "p4", "p5", "p6", "p7")

OUTPUTS = (Many("class_logits", LEVELS), Many("box_deltas", LEVELS))

TENSORS = {
    **PIXELS,
    "c": Meaning("backbone feature map of one stride", "activation"),
    "p": Meaning("neck feature map of one stride, 256 channels", "activation"),
    "class_logits": Meaning("class scores of one level (B, 9 * 80, H, W)", "logits"),
    "box_deltas": Meaning("offsets to the anchors of one level (B, 9 * 4, H, W)", "box deltas"),
    "boxes": Meaning("final boxes of one image (100, 4)", "pixels xyxy"),
    "scores": Meaning("final scores of one image (100,)", "probability"),
    "labels": Meaning("final classes of one image (100,)", "class index"),
}

COMMON = (
    Stage("backbone", (Call("backbone", {"x": "image"}, BACKBONE),)),
    Stage("neck", (Call("neck", {"inputs": BACKBONE}, NECK),)),
)

LEGACY_STAGES = (
    *COMMON,
    Stage("bbox_head", (Call("bbox_head", {"feats": NECK}, OUTPUTS),)),
    Stage(
        "predict",
        (
            Call(
                "bbox_head.get_bboxes",
                {
                    "cls_scores": Many("class_logits", LEVELS),
                    "bbox_preds": Many("box_deltas", LEVELS),
                    "img_metas": Metas(),
                    "rescale": Constant(True),
                },
                Detections("boxes", "scores", "labels"),
            ),
        ),
    ),
)

STAGES = (
    *COMMON,
    Stage("bbox_head", (Call("bbox_head", {"x": NECK}, OUTPUTS),)),
    Stage(
        "predict",
        (
            Call(
                "bbox_head.predict_by_feat",
                {
                    "cls_scores": Many("class_logits", LEVELS),
                    "bbox_preds": Many("box_deltas", LEVELS),
                    "batch_img_metas": Metas(),
                    "rescale": Constant(True),
                },
                Instances((("bboxes", "boxes"), ("scores", "scores"), ("labels", "labels"))),
            ),
        ),
    ),
)

# First match wins. Small offsets: boxes stay near their anchors and overlap, so that NMS has work to do.
WEIGHTS = (
    *RESNET,
    Fill("bbox_head.retina_reg.weight", spread=0.3, per_fan_in=True),
    Fill("bbox_head.retina_cls.bias", centre=-5.0, spread=0.3),
    Fill("bbox_head.retina_cls.weight", spread=0.7, per_fan_in=True),
    Fill("*bias", spread=0.1),
    Fill("neck.*", spread=1.0, per_fan_in=True),
    Fill("*", spread=1.4, per_fan_in=True),
)

CASES = (
    Case(
        id="stock_retinanet_r50_1x",
        title="RetinaNet R-50 FPN, 12 epochs",
        legacy="mmdet2",
        new="mmdet3",
        configs={
            "mmdet2": "retinanet/retinanet_r50_fpn_1x_coco.py",
            "mmdet3": "retinanet/retinanet_r50_fpn_1x_coco.py",
        },
        reported_ap=36.5,
        stages=STAGES,
        legacy_stages=LEGACY_STAGES,
        deviations=(DEGENERATE_BOXES,),
        options={"mmdet3": KEEP_DEGENERATE},
        tensors=TENSORS,
        weights=WEIGHTS,
        records={
            "padded": Batch(seed=40, sizes=((128, 160), (96, 150))),
            "unpadded": Batch(seed=41, sizes=((96, 128), (96, 128))),
            "tiny": Batch(seed=42, sizes=((64, 96), (32, 64))),
            "odd-images": odd_images(40),
        },
    ),
)
