# ruff: noqa: C408
"""DDQ FCN, R-50, 36 epochs on COCO with the augmentation of DETR; the authors report 44.8 box AP."""

_base_ = ["./ddq-fcn_r50_8xb2-12e_coco.py", "./_base_/detr_aug.py"]

train_dataloader = dict(dataset=dict(pipeline={{_base_.detr_pipeline}}))
optim_wrapper = dict(clip_grad=dict(max_norm=10, norm_type=2))
train_cfg = dict(max_epochs=36)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=501),
    dict(type="MultiStepLR", begin=0, end=36, by_epoch=True, milestones=[27, 33], gamma=0.1),
]
