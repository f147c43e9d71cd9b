"""Let Hypothesis draw situations until one fails, and make that one as small as it gets."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from parity.cases.base import Batch
from parity.errors import ParityError
from parity.fuzz.live import Outcome

SHRINKS = 40

Judge = Callable[[Batch], Outcome]
Progress = Callable[[Outcome], None]


class _FailingError(Exception):
    """Tells Hypothesis that a situation failed."""


@dataclass
class Search:
    """What came of a search.

    Attributes:
        outcomes: every situation that was run, with what it showed.
        failing: the smallest that failed; ``None`` if none did.
        drawn: how many had been run when the first one failed, or in all.
    """

    outcomes: dict[Batch, Outcome] = field(default_factory=dict)
    failing: Batch | None = None
    drawn: int = 0
    seconds: float = 0.0


def search(
    judge: Judge,
    situations: SearchStrategy[Batch],
    *,
    examples: int,
    seed: int = 0,
    shrinks: int = SHRINKS,
    progress: Progress = lambda _: None,
) -> Search:
    """Judge drawn situations, the same ones for the same seed; stop at the first that fails, and shrink it.

    Args:
        shrinks: how many smaller situations are tried once one has failed.

    Raises:
        ParityError: of ``judge``.
    """
    searcher = _Searcher(judge, shrinks, progress)
    passes = given(situations)(searcher.require)
    configured = settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    start = time.perf_counter()
    with suppress(_FailingError):  # raised by the smallest, which Hypothesis runs last
        hypothesis.seed(seed)(configured(passes))()
    searcher.found.seconds = time.perf_counter() - start
    if searcher.error is not None:
        raise searcher.error
    return searcher.found


class _Searcher:
    """Judges every situation once."""

    def __init__(self, judge: Judge, shrinks: int, progress: Progress) -> None:
        self.judge, self.shrinks, self.progress = judge, shrinks, progress
        self.found = Search()
        self.error: ParityError | None = None

    def require(self, batch: Batch) -> None:
        """Raise where a situation fails."""
        outcome = self._outcome(batch)
        if self.found.failing is None:
            self.found.drawn = len(self.found.outcomes)
        if outcome is not None and not outcome.kind.passes:
            self.found.failing = batch
            raise _FailingError

    def _outcome(self, batch: Batch) -> Outcome | None:
        """Return what a situation shows; ``None`` for one that is not to be run any more."""
        if batch not in self.found.outcomes:
            tried = len(self.found.outcomes) - self.found.drawn
            if self.error is not None or (self.found.failing is not None and tried >= self.shrinks):
                return None
            try:
                self.found.outcomes[batch] = self.judge(batch)
            except ParityError as error:  # no failure of this situation: nothing to shrink
                self.error = error
                return None
            self.progress(self.found.outcomes[batch])
        return self.found.outcomes[batch]
