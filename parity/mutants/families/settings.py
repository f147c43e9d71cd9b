"""Settings of training that no other stage reads: accumulation, hooks, mixed precision, the order of the images."""

from __future__ import annotations

from typing import Any

from parity.cases.base import SETTINGS
from parity.mutants.families.common import DETR_4, FCN_12, FCN_36, RCNN_12, SWIN
from parity.mutants.families.recipe import setting
from parity.mutants.families.training import bugs
from parity.mutants.plant import Plant, config

EMA = {"type": "EMAHook", "ema_type": "ExpMomentumEMA", "momentum": 0.0002}


def taken_out(path: str) -> Plant:
    """Return a config without the setting at a dotted path."""

    def change(content: Any) -> None:
        *owners, final = path.split(".")
        for step in owners:
            content = content[int(step)] if step.isdigit() else content[step]
        del content[final]

    return config(change)


def hook(settings: dict[str, Any]) -> Plant:
    """Return a config with one hook more."""
    return config(lambda content: content.update(custom_hooks=[settings]))


SEEN = bugs(
    SETTINGS,
    "settings",
    FCN_12,
    ("accumulation", setting("optim_wrapper.accumulative_counts", 4), "four steps' gradients added up", FCN_12, DETR_4),
    ("ema", hook(EMA), "averaged weights, as YOLOX and RTMDet have them", FCN_12, RCNN_12),
    ("mixed-precision", setting("optim_wrapper.type", "AmpOptimWrapper"), "--amp left on", FCN_12, DETR_4),
    ("loss-scale", setting("optim_wrapper.loss_scale", 512.0), "mmdet 2's fp16 = dict(loss_scale=512.0)", RCNN_12),
    ("clip-kind", setting("optim_wrapper.clip_grad", {"type": "value", "clip_value": 10}), "by value", FCN_36, DETR_4),
    ("clip-limit", setting("optim_wrapper.clip_grad.max_norm", 35), "mmdet's usual limit for the authors'", FCN_36),
    ("clip-order", setting("optim_wrapper.clip_grad.norm_type", 1), "another norm", DETR_4),
    ("clip-added", setting("optim_wrapper.clip_grad", {"max_norm": 0.1}), "clipping where there is none", RCNN_12),
    ("clip-lost", taken_out("optim_wrapper.clip_grad"), "no clipping", FCN_36, DETR_4),
    ("shuffle", setting("train_dataloader.sampler.shuffle", False), "images in the order of the file", FCN_12, DETR_4),
    ("infinite", setting("train_dataloader.sampler.type", "InfiniteSampler"), "a sampler of iterations", FCN_12),
    ("one-order", setting("default_hooks.sampler_seed", {"type": "IterTimerHook"}), "one order for all epochs", DETR_4),
    ("shapes", setting("train_dataloader.batch_sampler", None), "wide and high images in one batch", FCN_12, DETR_4),
    ("workers", setting("train_dataloader.num_workers", 4), "other workers, which seed other numbers", FCN_12),
    ("batch-size", setting("train_dataloader.batch_size", 4), "twice the images a GPU", FCN_12, RCNN_12),
    ("drop-last", setting("train_dataloader.drop_last", True), "the rest of an epoch left out", FCN_12),
    ("workers-end", setting("train_dataloader.persistent_workers", False), "workers begun anew", FCN_12, DETR_4),
    ("seed", setting("randomness.seed", 1), "another seed", FCN_12),
    ("deterministic", setting("randomness.deterministic", True), "other algorithms of cuDNN", FCN_12),
    ("benchmark", setting("env_cfg.cudnn_benchmark", True), "algorithms by measured speed", DETR_4),
    ("frozen", setting("model.backbone.frozen_stages", 2), "a second stage that is frozen", FCN_12, DETR_4),
    ("norms", setting("model.backbone.norm_eval", False), "norms in training mode", RCNN_12),
    ("synchronised", setting("model.backbone.norm_cfg.type", "SyncBN"), "norms over all GPUs", FCN_12),
    ("drop-path", setting("model.backbone.drop_path_rate", 0.3), "Mask R-CNN's drop path", SWIN),
    ("checkpointing", setting("model.backbone.with_cp", True), "activations computed twice", SWIN),
    ("pretrained", setting("model.backbone.init_cfg.checkpoint", "torchvision://resnet101"), "other weights", RCNN_12),
    ("load-from", setting("load_from", "start.pth"), "begun from a whole detector", FCN_12),
    ("resume", setting("resume", True), "gone on from whatever is in the folder", FCN_12),
    ("scaled-rate", setting("auto_scale_lr.enable", True), "a rate scaled by the batch", FCN_12),
    ("unused", setting("find_unused_parameters", True), "parameters without a gradient let through", FCN_12),
    ("optimizer", setting("optim_wrapper.optimizer.type", "Adam"), "decay in the gradient", FCN_12),
    ("weight-decay", setting("optim_wrapper.optimizer.weight_decay", 0.05), "half the decay", FCN_12),
    ("amsgrad", setting("optim_wrapper.optimizer.amsgrad", True), "AMSGrad, not said by the legacy config", FCN_12),
    ("norm-decay", setting("optim_wrapper.paramwise_cfg", {"norm_decay_mult": 0.0}), "norms without decay", FCN_12),
    ("constructor", setting("optim_wrapper.constructor", "LearningRateDecayOptimizerConstructor"), "by layer", DETR_4),
    ("epochs", setting("train_cfg.max_epochs", 13), "an epoch more", FCN_12),
    ("loop", setting("train_cfg", {"type": "IterBasedTrainLoop", "max_iters": 90000}), "by iterations", FCN_12),
    ("milestone", setting("param_scheduler.1.milestones", [9, 11]), "a milestone an epoch late", FCN_12),
    ("warm-up", setting("param_scheduler.0.start_factor", 0.01), "a warm-up from a higher rate", DETR_4),
    ("another-schedule", setting("param_scheduler.1.type", "CosineAnnealingLR"), "a cosine", FCN_12),
    ("images", setting("train_dataloader.dataset.ann_file", "annotations/instances_val2017.json"), "val", FCN_12),
    ("empty", setting("train_dataloader.dataset.filter_cfg", None), "images without objects", FCN_12),
    ("repeated", setting("train_dataloader.dataset.indices", 16), "a part of the images", FCN_12),
    ("saved", setting("default_hooks.checkpoint.interval", 5), "only some epochs kept", FCN_12),
    ("chosen", setting("default_hooks.checkpoint.save_best", "coco/bbox_mAP_50"), "another best epoch", FCN_12),
    ("new-word", setting("model.bbox_head.loss_weight", 2.0), "a setting of the new config alone", FCN_12),
    ("new-part", setting("compile", True), "a setting in no row of the table", FCN_12),
)  # fmt: skip

MUTANTS = SEEN
