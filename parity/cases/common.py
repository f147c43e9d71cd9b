"""What the declarations of several families share."""

from __future__ import annotations

from parity.cases.base import Fill, Meaning

# What every detector's preprocessing gives.
PIXELS = {
    "image": Meaning("normalised, padded batch (B, 3, H, W)", "normalised RGB"),
    "img_shape": Meaning("height and width after resizing, before padding (B, 2)", "pixels"),
    "ori_shape": Meaning("height and width of the file (B, 2)", "pixels"),
    "batch_input_shape": Meaning("height and width of the padded batch (2,)", "pixels"),
    "scale_factor": Meaning("resize factor of width and height (B, 2)", "ratio"),
}

# ResNet and batch norm: the first rules of a case, so that residual sums stay O(1).
RESNET = (
    Fill("*.num_batches_tracked", centre=7.0, spread=0.0),
    Fill("*running_mean", spread=0.1),
    Fill("*running_var", centre=1.0, spread=0.3),
    Fill("backbone.*.bn3.weight", centre=0.3, spread=0.1),
    Fill("backbone.*bn*.weight", centre=1.0, spread=0.2),
    Fill("backbone.*downsample.1.weight", centre=0.8, spread=0.2),
)
