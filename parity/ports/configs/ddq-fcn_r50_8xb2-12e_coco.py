# ruff: noqa: C408
"""DDQ FCN, R-50, 12 epochs on COCO; the authors report 41.5 box AP."""

_base_ = [
    "mmdet::_base_/datasets/coco_detection.py",
    "mmdet::_base_/schedules/schedule_1x.py",
    "mmdet::_base_/default_runtime.py",
]
custom_imports = dict(imports=["parity.ports"], allow_failed_imports=False)

model = dict(
    type="SingleStageDetector",
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    backbone=dict(
        type="ResNet",
        depth=50,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        frozen_stages=1,
        norm_cfg=dict(type="BN", requires_grad=True),
        norm_eval=True,
        style="pytorch",
        init_cfg=dict(type="Pretrained", checkpoint="torchvision://resnet50"),
    ),
    # A list of one, so that parameters are named neck.0.* as in the authors' checkpoints.
    neck=[
        dict(
            type="FPN",
            in_channels=[256, 512, 1024, 2048],
            out_channels=256,
            start_level=1,
            add_extra_convs="on_input",
            num_outs=5,
        )
    ],
    bbox_head=dict(
        type="DDQFCNHead",
        num_classes=80,
        in_channels=256,
        strides=(8, 16, 32, 64, 128),
        norm_cfg=dict(type="GN", num_groups=32, requires_grad=True),
        dqs_cfg=dict(type="nms", iou_threshold=0.7, nms_pre=1000),
    ),
)

# 8 GPUs with 2 images each (the batch size of the base); weight decay on every trainable parameter.
optim_wrapper = dict(optimizer=dict(_delete_=True, type="AdamW", lr=5e-5, weight_decay=0.1))
# mmengine reaches the full rate at end - begin - 1 steps, the legacy engine after 500: hence 501.
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=501),
    dict(type="MultiStepLR", begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1),
]
default_hooks = dict(checkpoint=dict(save_best="coco/bbox_mAP", rule="greater"))
randomness = dict(seed=0)
