"""Training: targets, losses, gradients, clipping, the optimiser's groups."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from parity.cases.base import GRADIENTS, LOSS, OPTIMIZER_STEP
from parity.engines import group
from parity.mutants.base import Mutant
from parity.mutants.edits import attribute, comparison, constant, keyword, swapped_elements, without_call
from parity.mutants.families.common import DETR_4, FCN_12, FCN_36, RCNN_12, RCNN_36
from parity.mutants.plant import (
    Plant,
    config,
    edited,
    modules_of,
    on_model,
    result_of,
    set_attribute,
    together,
    wrapped,
)

DENSE_LOSS = "parity.ports.dense_loss"
ASSIGNER = "parity.ports.assigner"
ROI_HEAD = "parity.ports.roi_head:DDQRoIHead"
SELECTION = "mmdet.models.detectors.ddq_detr:DDQDETR.pre_decoder"
DECODER = "mmdet.models.layers.transformer.ddq_detr_layers:DDQTransformerDecoder.forward"


def bugs(stage: str, prefix: str, default: str, *rows: tuple[Any, ...]) -> tuple[Mutant, ...]:
    """Return the mutants of one stage, from rows of name, plant, why and cases."""
    return tuple(Mutant(f"{prefix}-{row[0]}", stage, row[3:] or (default,), row[1], row[2]) for row in rows)


def changed_copy(path: str, value: Any) -> Callable[[Any], Any]:
    """Return a function that copies an object with the attribute at a dotted path set; a number is an index."""

    def change(found: Any) -> Any:
        fresh = copy.deepcopy(found)
        *owners, last = path.split(".")
        owner = fresh
        for step in owners:
            owner = owner[int(step)] if step.isdigit() else getattr(owner, step)
        getattr(owner, last)  # an unknown attribute is no bug but a slip here
        setattr(owner, last, value)
        return fresh

    return change


def assigner(loss: str, path: str, value: Any) -> Plant:
    """Return a dense loss whose matching has another setting."""
    return set_attribute(loss, "assigner", changed_copy(path, value))


def loss(part: str, setting: str, value: Any) -> Plant:
    """Return a loss function of the dense head with another setting, in both branches."""
    return set_attribute(f"bbox_head.*_loss.{part}", setting, value)


def optimiser(**settings: Any) -> Plant:
    """Return an optimiser with other settings."""
    return recipe(lambda wrapper: wrapper.optimizer.update(settings))


def groups(**settings: Any) -> Plant:
    """Return parameter groups with another rule."""
    return recipe(lambda wrapper: wrapper.update(paramwise_cfg={**(wrapper.get("paramwise_cfg") or {}), **settings}))


def clipping(**settings: Any) -> Plant:
    """Return gradients clipped otherwise."""
    return recipe(lambda wrapper: wrapper.update(clip_grad={**(wrapper.get("clip_grad") or {}), **settings}))


def clipped_by_value(limit: float) -> Plant:
    """Return every gradient cut off at a value, for all gradients scaled by their norm."""
    return recipe(lambda wrapper: setattr(wrapper, "clip_grad", {"type": "value", "clip_value": limit}))


def recipe(change: Callable[[Any], Any]) -> Plant:
    """Return a change of the optimiser's config, which is read for every step."""
    return Plant(config(lambda content: change(content.optim_wrapper)).make)


def unfrozen(pattern: str) -> Plant:
    """Return parts of the backbone trained that ought to be frozen; training mode freezes stages anew."""
    return together(set_attribute("backbone", "frozen_stages", -1), trained(pattern, True))


def trained(pattern: str, value: bool) -> Plant:
    """Return the parameters of some modules trained or frozen."""

    @contextmanager
    def edit(model: Any) -> Iterator[None]:
        parameters = [parameter for module in modules_of(model, pattern) for parameter in module.parameters()]
        before = [parameter.requires_grad for parameter in parameters]
        for parameter in parameters:
            parameter.requires_grad_(value)
        try:
            yield
        finally:
            for parameter, needed in zip(parameters, before, strict=True):
                parameter.requires_grad_(needed)

    return on_model(edit)


def matching(path: str, value: Any) -> Plant:
    """Return the matching of both RoI stages with another setting."""
    change = changed_copy(path, value)
    return set_attribute("roi_head", "bbox_assigner", lambda stages: [change(stage) for stage in stages])


def detr_matching(path: str, value: Any) -> Plant:
    """Return the matching of DDQ DETR's queries with another setting."""
    return set_attribute("bbox_head", "assigner", changed_copy(path, value))


def dense_matching(path: str, value: Any) -> Plant:
    """Return the matching of DDQ DETR's dense queries with another setting."""
    return set_attribute("bbox_head.aux_loss_for_dense", "assigner", changed_copy(path, value))


def uniform_rate(wrapper: Any) -> None:
    """Take the backbone's own learning rate out of a config."""
    wrapper.paramwise_cfg.custom_keys.pop("backbone")


def doubled_rate(wrapper: Any) -> None:
    """Give the backbone a fifth of the learning rate for a tenth."""
    wrapper.paramwise_cfg.custom_keys.backbone.lr_mult = 0.2


TARGETS = f"{DENSE_LOSS}:DDQDenseLoss.targets"

DENSE = bugs(
    LOSS,
    "loss",
    FCN_12,
    ("focal-beta", loss("loss_cls", "beta", 1.5), "another exponent of the quality focal loss", FCN_12, FCN_36),
    ("box-weight", loss("loss_bbox", "loss_weight", 1.0), "the box loss weighted by 1 for 2"),
    ("one-to-seven", assigner("bbox_head.aux_loss", "topk", 7), "7 predictions an object for 8"),
    ("one-to-two", assigner("bbox_head.main_loss", "topk", 2), "2 predictions an object for 1"),
    ("alpha", assigner("bbox_head.aux_loss", "alpha", 0.5), "another exponent of the score in the alignment"),
    ("beta", assigner("bbox_head.aux_loss", "beta", 4), "another exponent of the overlap in the alignment"),
    ("class-cost", assigner("bbox_head.aux_loss", "cls_cost.weight", 1.0), "half the class cost in matching"),
    ("cost-alpha", assigner("bbox_head.aux_loss", "cls_cost.alpha", 0.5), "another alpha in the focal cost"),
    ("l1-cost", assigner("bbox_head.aux_loss", "reg_cost.weight", 1.0), "a fifth of the L1 cost in matching"),
    ("l1-format", assigner("bbox_head.main_loss", "reg_cost.box_format", "xywh"), "DETR's format in the L1 cost"),
    ("iou-cost", assigner("bbox_head.aux_loss", "iou_cost.iou_mode", "iou"), "IoU for GIoU in matching"),
    (
        "probability-cost",
        edited(f"{ASSIGNER}:DDQTopkAssigner._cost", without_call("inverse_sigmoid")),
        "probabilities read as logits (mmdet's TopkHungarianAssigner)",
    ),
    ("soft-eps", edited(f"{ASSIGNER}:_soft_scores", constant(1e-07, 1e-08)), "1e-8 for the legacy's 10e-8"),
    (
        "soft-best",
        edited(f"{ASSIGNER}:_soft_scores", constant("amax", "amin", 1)),
        "the worst overlap of an object for its best",
    ),
    (
        "divisor-mean",
        edited(f"{DENSE_LOSS}:_divisor", attribute("sum", "mean", 1)),
        "a divisor for each image (detr#354)",
    ),
    ("divisor-bound", edited(f"{DENSE_LOSS}:_divisor", keyword("clamp", "min", 2)), "another bound of the divisor"),
    ("empty-image", edited(TARGETS, comparison(">", ">=")), "an image without objects trains its background"),
    (
        "mean",
        edited(f"{DENSE_LOSS}:DDQDenseLoss._class_loss", keyword("loss_cls", "reduction_override", "mean")),
        "a mean for a sum",
    ),
)

REGIONS = bugs(
    LOSS,
    "loss-roi",
    RCNN_12,
    ("alpha", set_attribute("roi_head.bbox_head.[01].loss_cls", "alpha", 0.5), "another alpha of the focal loss"),
    ("gamma", set_attribute("roi_head.bbox_head.[01].loss_cls", "gamma", 1.5), "another gamma of the focal loss"),
    ("l1-weight", set_attribute("roi_head.bbox_head.1.loss_bbox", "loss_weight", 2.0), "the second stage's L1 loss"),
    ("iou-weight", set_attribute("roi_head.bbox_head.0.loss_iou", "loss_weight", 1.0), "the first stage's GIoU loss"),
    ("stage-weights", set_attribute("roi_head", "stage_loss_weights", [1, 0.5]), "Cascade R-CNN's stage weights"),
    (
        "size-order",
        edited(f"{ROI_HEAD}.loss_by_stage", swapped_elements(0, 1, 0)),
        "height before width where boxes are scaled",
    ),
    ("class-cost", matching("match_costs.0.weight", 1.0), "half the class cost in matching"),
    ("l1-cost", matching("match_costs.1.weight", 2.0), "another L1 cost in matching"),
    ("iou-cost", matching("match_costs.2.iou_mode", "iou"), "IoU for GIoU in matching"),
    ("divisor", set_attribute("roi_head.bbox_head.[01]", "min_positives", 4.0), "a lower bound of the divisor"),
    (
        "dense-weight",
        set_attribute("rpn_head.*_loss.loss_bbox", "loss_weight", 1.0),
        "the dense head's box loss",
        RCNN_36,
    ),
    ("dense-beta", set_attribute("rpn_head.*_loss.loss_cls", "beta", 1.9), "its quality focal loss", RCNN_36),
)

DETECTION_TRANSFORMER = bugs(
    LOSS,
    "loss-detr",
    DETR_4,
    ("alpha", set_attribute("bbox_head.loss_cls", "alpha", 0.5), "another alpha of the focal loss"),
    ("gamma", set_attribute("bbox_head.loss_cls", "gamma", 1.5), "another gamma of the focal loss"),
    ("l1-weight", set_attribute("bbox_head.loss_bbox", "loss_weight", 2.0), "another weight of the L1 loss"),
    ("iou-weight", set_attribute("bbox_head.loss_iou", "loss_weight", 1.0), "another weight of the GIoU loss"),
    ("background", set_attribute("bbox_head", "bg_cls_weight", 0.1), "DETR's weight of the background"),
    ("class-cost", detr_matching("match_costs.0.weight", 1.0), "half the class cost in matching"),
    ("l1-cost", detr_matching("match_costs.1.weight", 2.0), "another L1 cost in matching"),
    ("dense-topk", dense_matching("topk", 3), "3 predictions an object for 4 among the dense queries"),
    ("dense-beta", set_attribute("bbox_head.aux_loss_for_dense.loss_cls", "beta", 1.5), "the dense queries' loss"),
)

FLOW = bugs(
    GRADIENTS,
    "gradients",
    RCNN_12,
    ("stage-boxes", edited(f"{ROI_HEAD}.loss", without_call("detach")), "boxes not cut off between the stages"),
    ("contents", edited("parity.ports.rpn_head:_flat_levels", without_call("detach")), "features not cut off", RCNN_36),
    (
        "proposals",
        edited("parity.ports.rpn_head:DDQFCNRPN.build_queries", without_call("detach")),
        "proposals not cut off from the dense head",
    ),
    ("stem", unfrozen("backbone.conv1"), "a stem that is trained", FCN_12),
    ("first-stage", unfrozen("backbone.layer1.*"), "a first stage that is trained"),
    ("second-stage", trained("backbone.layer2", False), "a second stage that is frozen", FCN_36),
    ("norms", trained("backbone.layer3.*.bn?", False), "norms that are frozen", FCN_12),
    ("head", trained("rpn_head.conv_reg", False), "a layer left out of training", RCNN_36),
    ("query-map", edited(SELECTION, without_call("detach", 0)), "the memory not cut off from the queries", DETR_4),
    ("first-boxes", edited(SELECTION, without_call("detach", 1)), "first boxes not cut off from the encoder", DETR_4),
    ("layer-boxes", edited(DECODER, without_call("detach", 1)), "boxes not cut off between the layers", DETR_4),
    ("clip-norm", clipping(max_norm=0.01), "gradients clipped at 0.01 for 0.1 (detr#177)", DETR_4),
    ("clip-value", clipped_by_value(0.01), "gradients clipped by value for by norm", DETR_4, FCN_36, FCN_12),
    ("clip-one-norm", clipping(norm_type=1), "another norm of the gradients", FCN_36, RCNN_36),
)

UPDATE = bugs(
    OPTIMIZER_STEP,
    "optimizer",
    FCN_12,
    ("rate", optimiser(lr=1e-4), "DDQ R-CNN's learning rate for DDQ FCN's"),
    ("decay", optimiser(weight_decay=0.05), "half the weight decay", FCN_12, FCN_36),
    ("betas", optimiser(betas=(0.9, 0.99)), "another second moment", RCNN_12),
    ("eps", optimiser(eps=1e-7), "another eps of Adam", RCNN_36),
    ("adam", optimiser(type="Adam"), "decay in the gradient: Adam for AdamW", RCNN_12),
    ("amsgrad", optimiser(amsgrad=True), "AMSGrad", FCN_36),
    ("norm-decay", groups(norm_decay_mult=0.0), "no decay of norms", FCN_12),
    ("bias-decay", groups(bias_decay_mult=0.0), "no decay of biases", RCNN_12),
    ("bias-rate", groups(bias_lr_mult=2.0), "Caffe's doubled rate of biases", RCNN_36),
    ("backbone-rate", recipe(uniform_rate), "the backbone at the full rate", DETR_4),
    ("backbone-rate-0.2", recipe(doubled_rate), "the backbone at a fifth of the rate", DETR_4),
)

# What several processes divide by. One process alone shows none of these.
REDUCED_MEAN = "mmdet.utils.dist_utils:reduce_mean"
REGION_LOSS = "parity.ports.dii_head:DDQDIIHead.loss_and_target"
QUERY_LOSS = "mmdet.models.dense_heads.ddq_detr_head:DDQDETRHead._loss_for_distinct_queries_single"
NOISE_LOSS = "mmdet.models.dense_heads.dino_head:DINOHead._loss_dn_single"
DENSE_QUERY_LOSS = "mmdet.models.losses.ddq_detr_aux_loss:DDQAuxLoss.loss"


def over_processes(change: Callable[[Any, int], Any]) -> Plant:
    """Return a mean over N processes changed: ``change(mean, N)``."""
    return result_of(REDUCED_MEAN, lambda mean: change(mean, group.size()))


def bound_first(mean: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a mean over processes of what is at least 1 in each."""
    return lambda counts: mean(counts.clamp(min=1))


PROCESSES = bugs(
    LOSS,
    "loss-processes",
    FCN_12,
    ("sum", over_processes(operator.mul), "the sum over processes for their mean", FCN_12, RCNN_12, DETR_4),
    ("bound-first", wrapped(REDUCED_MEAN, bound_first), "each process's count bounded, not their mean", RCNN_12),
    ("own", edited(f"{DENSE_LOSS}:_divisor", without_call("reduce_mean")), "an average of ratios for their ratio"),
    ("own-regions", edited(REGION_LOSS, without_call("reduce_mean")), "positives of its own", RCNN_12),
    ("own-queries", edited(QUERY_LOSS, without_call("reduce_mean", 1)), "positives of its own", DETR_4),
    ("own-classes", edited(QUERY_LOSS, without_call("reduce_mean", 0)), "class weights of its own", DETR_4),
    ("own-noise", edited(NOISE_LOSS, without_call("reduce_mean", 1)), "noised copies of its own", DETR_4),
    ("own-dense", edited(DENSE_QUERY_LOSS, without_call("reduce_mean", 0)), "soft scores of its own", DETR_4),
)

MUTANTS = (*DENSE, *REGIONS, *DETECTION_TRANSFORMER, *FLOW, *UPDATE, *PROCESSES)
