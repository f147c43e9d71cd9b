"""The words a comparison ends in."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Verdict(StrEnum):
    """What was found out about one tensor, decision or stage; declared from best to worst."""

    EQUAL = "equal"
    WITHIN_BUDGET = "within_budget"
    CERTIFIED = "certified"
    INCONCLUSIVE = "inconclusive"  # not compared, so neither the same nor different
    DIVERGED = "diverged"
    NONFINITE = "nonfinite"
    DTYPE = "dtype"
    SHAPE = "shape"
    EXTRA = "extra"
    MISSING = "missing"

    @property
    def passes(self) -> bool:
        """Whether the engines count as the same here."""
        return self in (Verdict.EQUAL, Verdict.WITHIN_BUDGET, Verdict.CERTIFIED)


_ORDER = list(Verdict)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the worst verdict; of none at all it is ``missing``: nothing compared is a failure.

    >>> worst([Verdict.EQUAL, Verdict.SHAPE, Verdict.CERTIFIED])
    <Verdict.SHAPE: 'shape'>
    """
    return max(verdicts, key=_ORDER.index, default=Verdict.MISSING)
