"""Random numbers that are drawn past the taps (dropout, ``normal_``, numpy): seen by what they leave in the generators.

Where the global generators stand is looked at whenever the running stage changes. Runs in both interpreters.
"""

from __future__ import annotations

import random
from typing import Any, Callable, Dict, List, Optional

import numpy as np
import torch

PREFIX = "draw.unrecorded."  # so ``records.kinds.is_draw`` knows them as well


class GeneratorWatch:
    """While the block runs, notes which stage draws from a global generator; afterwards those stand as before.

    Args:
        stage: the stage that is running at first, ``None`` outside of any.
        first: the stage that a draw before any stage is counted to.

    Attributes:
        found: ``draw.unrecorded.STAGE.GENERATOR`` -> in how many pieces of that stage it was drawn from, int64.
        stages: the same names -> the stage.
    """

    def __init__(self, stage: Optional[str], first: str) -> None:
        self._running = stage
        self._last = stage or first
        self._states: Dict[str, Any] = {}
        self._before: Dict[str, Any] = {}
        self.found: Dict[str, torch.Tensor] = {}
        self.stages: Dict[str, str] = {}

    def __enter__(self) -> "GeneratorWatch":
        self._before = self._states = _states()
        return self

    def __exit__(self, *_: Any) -> None:
        self.entered(self._running)
        for name, state in self._before.items():
            _SETTERS[name.split(":")[0]](name, state)

    def entered(self, stage: Optional[str]) -> None:
        """Note what was drawn until now; the stage that runs from here on is ``stage``."""
        now = _states()
        for generator, state in now.items():
            if generator in self._states and not _same(state, self._states[generator]):
                name = f"{PREFIX}{self._last}.{generator}"
                self.found[name] = self.found.get(name, torch.tensor(0)) + 1
                self.stages[name] = self._last
        self._states, self._running = now, stage
        self._last = stage or self._last  # outside of all stages it is the one that ran last


def unrecorded(names: Any) -> List[str]:
    """Return those of the names of a run's tensors that stand for draws past the taps.

    >>> unrecorded(["draw.rand().0", "draw.unrecorded.decoder.torch", "step[0].loss.draw.unrecorded.loss.numpy"])
    ['draw.unrecorded.decoder.torch', 'step[0].loss.draw.unrecorded.loss.numpy']
    """
    return [name for name in names if PREFIX in name]


def _states() -> Dict[str, Any]:
    """Return where every global generator stands, by name."""
    numpy_state: Any = np.random.get_state()
    states: Dict[str, Any] = {"torch": torch.get_rng_state(), "numpy": numpy_state, "python": random.getstate()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        for index in range(torch.cuda.device_count()):
            states[f"cuda:{index}"] = torch.cuda.get_rng_state(index)
    return states


def _same(now: Any, then: Any) -> bool:
    if isinstance(now, torch.Tensor):
        return bool((now == then).all())
    if isinstance(now[1], np.ndarray):
        return bool((now[1] == then[1]).all()) and now[2:] == then[2:]
    return bool(now == then)


_SETTERS: Dict[str, Callable[[str, Any], Any]] = {
    "torch": lambda _, state: torch.set_rng_state(state),
    "numpy": lambda _, state: np.random.set_state(state),
    "python": lambda _, state: random.setstate(state),
    "cuda": lambda name, state: torch.cuda.set_rng_state(state, int(name.split(":")[1])),
}
