"""What a data pipeline's transforms draw at random: written down, or answered as they were in another engine.

mmdet 2 and mmdet 3 ask numpy's global generator for one index at a time, by ``choice`` and ``randint``: whether to
flip, which branch, which scale, how large a crop and where. A row of a table tells one such question and its answer:
the least answer, the end of the range, the answer, and the probability that it had.
"""

from __future__ import annotations

import random
from typing import Any, List, Optional, Sequence, Tuple

import numpy as np
import torch

COLUMNS = ("least", "end", "answer", "probability")
Row = Tuple[float, float, float, float]
OTHER_MEANS: Row = (-1.0, -1.0, -1.0, 0.0)  # a draw that is no question of this kind


class PipelineDraws:
    """A context in which the draws of a pipeline are written down, and answered from ``answers`` if those are given.

    A question that ``answers`` (float64, (draws, 4)) does not have in this place is answered freely; ``table`` then
    differs from ``answers``, which is for a comparison to see. Whatever a transform draws by other means is the row
    ``OTHER_MEANS``: it is seen, and cannot be repeated.
    """

    def __init__(self, answers: Optional[torch.Tensor] = None) -> None:
        self._answers: List[Row] = [] if answers is None else [tuple(row) for row in answers.tolist()]
        self._rows: List[Row] = []
        self._choice, self._randint = np.random.choice, np.random.randint
        self._state: Any = None

    def table(self) -> torch.Tensor:
        """Return all draws so far, float64 (draws, 4)."""
        return torch.tensor(self._rows, dtype=torch.float64).reshape(-1, len(COLUMNS))

    def __enter__(self) -> "PipelineDraws":
        self._put(self.choice, self.randint)
        self._state = _generators()
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        self._put(self._choice, self._randint)
        if kind is None:
            self._note_other_draws()

    def _put(self, choice: Any, randint: Any) -> None:
        for name, function in (("choice", choice), ("randint", randint)):
            setattr(np.random, name, function)

    def choice(self, a: Any, size: Any = None, replace: bool = True, p: Optional[Sequence[float]] = None) -> Any:
        """Stand in for ``numpy.random.choice``."""
        if size is not None:  # of many at once nothing is known here: the generator's state will tell
            return self._choice(a, size, replace, p)
        options = np.arange(a) if isinstance(a, int) else np.asarray(a)
        return options[self._draw(0, len(options), p)]

    def randint(self, low: int, high: Optional[int] = None, size: Any = None, dtype: Any = int) -> Any:
        """Stand in for ``numpy.random.randint``."""
        if size is not None:
            return self._randint(low, high, size, dtype)
        return self._draw(0, low, None) if high is None else self._draw(low, high, None)

    def _draw(self, least: int, end: int, p: Optional[Sequence[float]]) -> int:
        """Answer one question, from the given answers or, consuming just what the caller would have, freely."""
        self._note_other_draws()
        place = len(self._rows) - self._rows.count(OTHER_MEANS)
        known = self._answers[place] if place < len(self._answers) else None
        if known is not None and (least, end) == known[:2]:
            answer = int(known[2])
        else:
            answer = int(self._randint(least, end) if p is None else self._choice(end, p=p))
        probability = 1.0 / (end - least) if p is None else float(p[answer])
        self._rows.append((float(least), float(end), float(answer), probability))
        self._state = _generators()
        return answer

    def _note_other_draws(self) -> None:
        now = _generators()
        if not _same(now, self._state):
            self._rows.append(OTHER_MEANS)
        self._state = now


def _generators() -> Tuple[Any, ...]:
    """Return where the global generators stand: numpy's, Python's and torch's."""
    state: Any = np.random.get_state()
    return (*state[1:3], random.getstate(), torch.get_rng_state())


def _same(now: Tuple[Any, ...], then: Tuple[Any, ...]) -> bool:
    return bool((now[0] == then[0]).all()) and now[1:3] == then[1:3] and bool((now[3] == then[3]).all())
