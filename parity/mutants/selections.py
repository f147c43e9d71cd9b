"""Named choices of mutants."""

from __future__ import annotations

from collections.abc import Sequence

from parity.errors import ParityError
from parity.mutants.base import Mutant

# Thirty in three cases: every stage of inference, gross bugs beside ones that no final box shows.
CI = (
    "preprocess-bgr",
    "preprocess-std-eps",
    "resnet-norm-train-all",
    "resnet-convolutions",
    "neck-top-down-short",
    "neck-bias-drift",
    "dense-norm-eps",
    "dense-corners",
    "dense-selection-threshold-drift",
    "fcn-predict-wider",
    "resnet-leaky",
    "rpn-shuffle-order",
    "rpn-selection-offset",
    "contents-concatenation",
    "roi-not-aligned",
    "roi-norm-eps",
    "roi-deviations-rcnn",
    "roi-1-one-norm-eps",
    "roi-1-half",
    "rcnn-predict-clipped",
    "encoder-offset",
    "encoder-scale-drift",
    "encoder-mask-forgotten",
    "selection-width",
    "selection-map-bias",
    "decoder-row-1",
    "decoder-last-norm-eps",
    "head-reference-index",
    "head-logit-drift",
    "predict-rounded-0.01",
)
SELECTIONS: dict[str, tuple[str, ...]] = {"ci": CI}


def select(mutants: Sequence[Mutant], name: str) -> tuple[Mutant, ...]:
    """Return the mutants of a selection.

    Raises:
        ParityError: there is no such selection, or it names a mutant that is not among these.
    """
    if name not in SELECTIONS:
        raise ParityError(f"--select {name}: there is {', '.join(SELECTIONS)}")
    known = {mutant.id: mutant for mutant in mutants}
    absent = [mutant for mutant in SELECTIONS[name] if mutant not in known]
    if absent:
        raise ParityError(f"--select {name} names {absent[0]}, which is not among these mutants")
    return tuple(known[mutant] for mutant in SELECTIONS[name])
