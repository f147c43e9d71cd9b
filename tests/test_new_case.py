"""``parity new-case``: what the models are shown, and what is said where one cannot run on it."""

from __future__ import annotations

from argparse import Namespace

import pytest

from parity.drafting.command import RECORDS, _observed, _records
from parity.errors import ParityError


def test_models_are_looked_at_with_the_images_that_are_asked_for() -> None:
    assert _records(Namespace(sizes=None)) == RECORDS
    (drawn,) = _records(Namespace(sizes="300x300,64x96")).values()
    assert drawn.sizes == ((300, 300), (64, 96))


def test_a_model_that_does_not_run_is_told_with_what_it_was_shown() -> None:
    def too_small() -> list[dict[str, object]]:
        raise RuntimeError("Kernel size can't be greater than actual input size")

    told = r"^engine mmdet3: RuntimeError: Kernel size .* input size; it was shown drawn images of 128x160, 96x150, "
    with pytest.raises(ParityError, match=told + r"--sizes HxW,… draws others$"):
        _observed(too_small, RECORDS["padded"])
    assert _observed(list, RECORDS["padded"]) == []
