"""The law of every parameter's initial values over several seeds, as tables. Runs in both interpreters.

A detector is built and initialised once a seed, as the engine's training script does, and dropped before the
next one. Of each parameter and buffer there remain its extremes over all elements, moments over many, and a sample.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Sequence, Tuple

import numpy as np
import torch

SAMPLES = 2048  # elements of one parameter that are looked at one by one, in each seed
MOMENTS = 65536  # elements of one parameter that enter its mean and deviation, in each seed
CONSTANT, FIXED, RANDOM = 0, 1, 2
# A value so many deviations from the mean is an outlier: counted, and left out of the moments, which one such value
# in a hundred thousand would spoil (mmcv's and mmengine's trunc_normal_ give -2 once in 17 million, at any deviation).
OUTLYING = 8.0
ENOUGH_TO_CALL_ONE_OUTLYING = 64  # values of one seed, or their own deviation is too uncertain
COLUMNS = ("kind", "same_as", "shared_with", "minimum", "maximum", "mean", "deviation", "kurtosis", "outliers")


@dataclass
class Values:
    """What was seen of one parameter, one entry a seed: extremes of all elements, float64 moments of many."""

    shape: Tuple[int, ...]
    extremes: List[Tuple[float, float]] = field(default_factory=list)
    means: List[float] = field(default_factory=list)
    squares: List[float] = field(default_factory=list)  # mean of the squares
    samples: List[torch.Tensor] = field(default_factory=list)
    storage: Tuple[Any, ...] = ()
    usual: Tuple[float, float] = (-math.inf, math.inf)  # beyond are outliers: told from the first sample that varies
    outliers: int = 0

    def add(self, tensor: torch.Tensor) -> None:
        flat = tensor.detach().reshape(-1)
        sample = flat[places(flat.numel(), SAMPLES)]
        if self.usual[1] == math.inf and len(sample) >= ENOUGH_TO_CALL_ONE_OUTLYING:
            reach = OUTLYING * float(sample.double().std())
            middle = float(sample.double().mean())
            self.usual = (middle - reach, middle + reach) if reach else self.usual
        self.extremes.append((float(flat.min()), float(flat.max())))
        if not self._is_usual(*self.extremes[-1]):
            self.outliers += int(((flat < self.usual[0]) | (flat > self.usual[1])).sum())
        exact = self._usual_part(flat[places(flat.numel(), MOMENTS)].double())
        self.means.append(float(exact.mean()))
        self.squares.append(float(exact.dot(exact)) / exact.numel())
        self.samples.append(sample)
        self.storage = (tensor.data_ptr(), tensor.shape)

    def _is_usual(self, low: float, high: float) -> bool:
        return self.usual[0] <= low and high <= self.usual[1]

    def _usual_part(self, values: torch.Tensor) -> torch.Tensor:
        keep = (values >= self.usual[0]) & (values <= self.usual[1])
        return values if bool(keep.all()) else values[keep]

    @property
    def kind(self) -> int:
        if min(low for low, _ in self.extremes) == max(high for _, high in self.extremes):
            return CONSTANT
        repeats = len(set(self.extremes)) == 1 and len(set(self.means)) == 1
        return FIXED if repeats and all(bool((s == self.samples[0]).all()) for s in self.samples) else RANDOM

    def moments(self) -> List[float]:
        """Return least and greatest value; without outliers mean, deviation and the sample's kurtosis; their number."""
        low, high = min(low for low, _ in self.extremes), max(high for _, high in self.extremes)
        mean = sum(self.means) / len(self.means)
        deviation = max(sum(self.squares) / len(self.squares) - mean * mean, 0.0) ** 0.5
        if self.kind == CONSTANT or deviation == 0.0:
            return [low, high, low if self.kind == CONSTANT else mean, 0.0, 0.0, float(self.outliers)]
        scaled = (self._usual_part(torch.cat(self.samples).double()) - mean) / deviation
        return [low, high, mean, deviation, float((scaled**4).mean()), float(self.outliers)]


def places(count: int, wanted: int) -> torch.Tensor:
    """Return the flat places, int64, at which a parameter of ``count`` elements is looked at: each once, well spread.

    They drift against the stride, so that they are not all of one column or kernel tap.

    >>> places(3, 4).tolist(), places(12, 4).tolist()
    ([0, 1, 2], [0, 4, 8, 9])
    """
    step = max(count // wanted, 1)
    taken = torch.arange(min(count, wanted))
    return taken * step + taken % step


def gather(initialised: Callable[[], torch.nn.Module], seeds: Sequence[int]) -> Dict[str, Values]:
    """Return name -> what was seen of it, from one detector for each seed; one is held at a time."""
    seen: Dict[str, Values] = {}
    for seed in seeds:
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        for name, tensor in initialised().state_dict(keep_vars=True).items():
            if tensor.is_floating_point():
                seen.setdefault(name, Values(tuple(tensor.shape))).add(tensor)
    return seen


def tables(seen: Dict[str, Values]) -> Dict[str, torch.Tensor]:
    """Return the laws of all parameters.

    ``names`` uint8: a line each, name and shape. ``law`` float64 (P, 9): see COLUMNS; ``same_as`` is the row of the
    first random parameter with the very same values, ``shared_with`` of the first that is the same tensor.
    ``fixed`` float32: the sampled values of all parameters that are FIXED, joined. ``samples`` float32: those of
    all that are RANDOM, over all seeds and sorted, joined.
    """
    rows, fixed, samples = [], [torch.zeros(0)], [torch.zeros(0)]
    contents: Dict[Any, int] = {}
    storages: Dict[Any, int] = {}
    for row, values in enumerate(seen.values()):
        kind, same = values.kind, row
        if kind == FIXED:
            fixed.append(values.samples[0].float())
        if kind == RANDOM:
            samples.append(torch.cat(values.samples).float().sort().values)
            content = (values.shape, b"".join(sample.numpy().tobytes() for sample in values.samples))
            same = contents.setdefault(content, row)
        rows.append([float(kind), float(same), float(storages.setdefault(values.storage, row)), *values.moments()])
    lines = "\n".join(f"{name} {'x'.join(map(str, values.shape))}" for name, values in seen.items())
    return {
        "names": text(lines),
        "law": torch.tensor(rows, dtype=torch.float64),
        "fixed": torch.cat(fixed),
        "samples": torch.cat(samples),
    }


def text(content: str) -> torch.Tensor:
    """Return a text as uint8: a run carries tensors only."""
    return torch.tensor(list(content.encode()), dtype=torch.uint8)


def is_pretrained(value: Any) -> bool:
    """Return whether a part of a config says to begin from a checkpoint: ``Pretrained``, with or without its scope."""
    if not isinstance(value, dict) or not value.get("checkpoint"):
        return False
    kind = value.get("type")
    name = kind.split(".")[-1] if isinstance(kind, str) else getattr(kind, "__name__", "")
    return name in ("Pretrained", "PretrainedInit")


def without_pretrained(config: Any, path: str = "model") -> List[str]:
    """Take the checkpoints out of a model's config, in place; return ``path: checkpoint`` of each."""
    found = []
    if isinstance(config, dict):
        for key, value in list(config.items()):
            named = value["checkpoint"] if is_pretrained(value) else None
            if key == "pretrained" and value:
                named = value
            if named:
                found.append(f"{path}: {named}")
                config[key] = None
            else:
                found += without_pretrained(value, f"{path}.{key}")
    elif isinstance(config, (list, tuple)):
        for index, value in enumerate(config):
            found += without_pretrained(value, f"{path}[{index}]")
    return found
