"""Bugs of training that sit in a stage of the forward pass: norms left in training mode, dropout, denoising."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from parity.mutants.base import Mutant
from parity.mutants.families.common import DETR_4, FCN_12, FCN_36, RCNN_12, SWIN
from parity.mutants.plant import Plant, output_of, result_of, set_attribute
from parity.records.kinds import INFERENCE, TRAINING

DENOISING = "mmdet.models.layers.transformer.dino_layers:CdnQueryGenerator"
DROPOUT_RATE = 0.1


def bugs(kind: str, *rows: tuple[Any, ...]) -> tuple[Mutant, ...]:
    """Return the mutants of one kind, from rows of name, stage, plant, why and cases."""
    return tuple(Mutant(f"{kind}-{row[0]}", row[1], row[4:], row[2], row[3], kind=kind) for row in rows)


def dropped(value: Any) -> Any:
    """Return a tensor a tenth of which is dropped, in evaluation mode as well."""
    return torch.nn.functional.dropout(value, DROPOUT_RATE, training=True)


def noisy(make: Callable[[Any], Any]) -> Plant:
    """Return an encoder's first feed-forward network with noise on its result."""
    return output_of("encoder.layers.0.ffn", lambda value: value + 0.0 * make(value))


def open_mask(mask: torch.Tensor) -> torch.Tensor:
    """Return a mask of the denoising queries that hides nothing: the ground truth leaks."""
    return torch.zeros_like(mask)


IN_TRAINING = bugs(
    TRAINING,
    (
        "norms",
        "backbone",
        set_attribute("backbone", "norm_eval", False),
        "batch norms in training mode",
        FCN_12,
        RCNN_12,
    ),
    ("norms-detr", "backbone", set_attribute("backbone", "norm_eval", False), "batch norms in training mode", DETR_4),
    (
        "drop-path",
        "backbone",
        set_attribute("backbone.stages.2.blocks.9.ffn.dropout_layer", "drop_prob", 0.0),
        "no drop path",
        SWIN,
    ),
    (
        "drop-rate",
        "backbone",
        set_attribute("backbone.stages.2.blocks.9.ffn.dropout_layer", "drop_prob", 0.4),
        "more drop path",
        SWIN,
    ),
    (
        "dropout",
        "encoder",
        set_attribute("encoder.layers.*.ffn.layers.0.2", "p", DROPOUT_RATE),
        "DETR's dropout left on",
        DETR_4,
    ),
    (
        "leaking-mask",
        "decoder",
        result_of(f"{DENOISING}.generate_dn_mask", open_mask),
        "the ground truth leaks",
        DETR_4,
    ),
    (
        "label-noise",
        "query_selection",
        set_attribute("dn_query_generator", "label_noise_scale", 0.2),
        "fewer wrong labels",
        DETR_4,
    ),
    (
        "box-noise",
        "query_selection",
        set_attribute("dn_query_generator", "box_noise_scale", 0.4),
        "DN-DETR's box noise",
        DETR_4,
    ),
)

LEFT_ON = "dropout that is never switched off"

IN_INFERENCE = bugs(
    INFERENCE,
    ("dropout", "encoder", output_of("encoder.layers.0.ffn", dropped), LEFT_ON, DETR_4),
    ("dropout-of-neck", "neck", output_of("neck.0.lateral_convs.0", dropped), LEFT_ON, FCN_36),
    ("noise", "encoder", noisy(torch.randn_like), "noise that is drawn and multiplied by 0", DETR_4),
)

MUTANTS = (*IN_TRAINING, *IN_INFERENCE)
