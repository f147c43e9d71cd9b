"""Two small detectors, trained by the legacy engines on a drawn COCO, for AP where there is neither COCO nor GPU.

They are the published detectors with fewer and narrower layers, on smaller images: what is changed is all here.
"""

from __future__ import annotations

from typing import Any, Dict

from parity.cases.base import ApLimits, Case

SCALE = (160, 128)  # pixels: what images are resized into, ratio kept
WIDTH = 64  # channels of neck and head
BACKBONE_WIDTHS = (16, 32, 64, 128)

BACKBONE: Dict[str, Any] = {
    "model.backbone.depth": 18,
    "model.backbone.base_channels": BACKBONE_WIDTHS[0],
    "model.backbone.frozen_stages": -1,
    "model.backbone.norm_eval": False,
    "model.backbone.init_cfg": None,
}

FCN: Dict[str, Any] = {
    **BACKBONE,
    "model.neck.0.in_channels": list(BACKBONE_WIDTHS),
    "model.neck.0.out_channels": WIDTH,
    "model.bbox_head.in_channels": WIDTH,
    "model.bbox_head.feat_channels": WIDTH,
    "model.bbox_head.num_distinct_queries": 100,
}

ENCODER_LAYERS, DECODER_LAYERS, FEEDFORWARD = 1, 2, 128

DETR: Dict[str, Any] = {
    **BACKBONE,
    "model.backbone.norm_cfg.requires_grad": True,
    "model.num_queries": 50,
    "model.dn_cfg.group_cfg.num_dn_queries": 20,
    "model.neck.in_channels": list(BACKBONE_WIDTHS[1:]),
    "model.neck.out_channels": WIDTH,
    "model.neck.norm_cfg.num_groups": 8,
    "model.encoder.num_layers": ENCODER_LAYERS,
    "model.encoder.layer_cfg.self_attn_cfg.embed_dims": WIDTH,
    "model.encoder.layer_cfg.ffn_cfg.embed_dims": WIDTH,
    "model.encoder.layer_cfg.ffn_cfg.feedforward_channels": FEEDFORWARD,
    "model.decoder.num_layers": DECODER_LAYERS,
    "model.decoder.layer_cfg.self_attn_cfg.embed_dims": WIDTH,
    "model.decoder.layer_cfg.cross_attn_cfg.embed_dims": WIDTH,
    "model.decoder.layer_cfg.ffn_cfg.embed_dims": WIDTH,
    "model.decoder.layer_cfg.ffn_cfg.feedforward_channels": FEEDFORWARD,
    "model.positional_encoding.num_feats": WIDTH // 2,
    "model.bbox_head.embed_dims": WIDTH,
    "model.test_cfg.max_per_img": 50,
    "test_dataloader.dataset.pipeline.1.scale": SCALE,
}

# The same weights on the same pixels in float32, on the CPU: nothing may differ. Points are percent: 1e-4 of them is
# 1e-6 of an AP between 0 and 1.
LIMITS = ApLimits(difference=1e-4, reported=0.01, matched=1.0, shift=1e-3)

CASES = (
    Case(
        id="ddq_fcn_small",
        title="DDQ FCN, small, on drawn images",
        legacy="ddq_mmdet2",
        new="mmdet3",
        configs={
            "ddq_mmdet2": "projects/configs/ddq_fcn/ddq_fcn_r50_1x.py",
            "mmdet3": "ports/configs/ddq-fcn_r50_8xb2-12e_coco.py",
        },
        options={
            "ddq_mmdet2": {**FCN, "model.bbox_head.shuffle_channles": 16, "data.test.pipeline.1.img_scale": SCALE},
            "mmdet3": {
                **FCN,
                "model.bbox_head.shuffle_channels": 16,
                "test_dataloader.dataset.pipeline.1.scale": SCALE,
            },
        },
        reported_ap=41.76,
        stages=(),
        tensors={},
        weights=(),
        records={},
        ap=LIMITS,
    ),
    Case(
        id="ddq_detr_small",
        title="DDQ DETR, small, on drawn images",
        legacy="ddq_mmdet3rc",
        new="mmdet3",
        configs={
            "ddq_mmdet3rc": "projects/configs/ddq_detr/ddq-detr-4scale_r50_8xb2-12e_coco.py",
            "mmdet3": "ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py",
        },
        options={"ddq_mmdet3rc": DETR, "mmdet3": DETR},
        reported_ap=45.94,
        stages=(),
        tensors={},
        weights=(),
        records={},
        ap=LIMITS,
    ),
)
