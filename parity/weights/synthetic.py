"""Weights that both interpreters fill alike, bit for bit, without shipping a checkpoint.

The numbers come from the raw bits of Philox, a counter-based generator whose stream numpy guarantees,
keyed by seed and parameter name. Only exact or correctly rounded operations follow (no ``sin``, no
``log``: their last bit depends on the C library), so Python 3.8 and 3.11 get the same bytes.
"""

from __future__ import annotations

import hashlib
import math
from fnmatch import fnmatchcase
from typing import Any, Dict, Mapping, Sequence, Tuple

import numpy as np
import torch

from parity.cases.base import Case, Fill

Shapes = Mapping[str, Tuple[int, ...]]


def uniform(seed: int, name: str, count: int) -> np.ndarray:
    """Return ``count`` float64 numbers in [-1, 1), each with 24 random bits, so exact in float32 too.

    >>> uniform(0, "a", 2).tolist() == uniform(0, "a", 3).tolist()[:2]
    True
    """
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    raw = np.random.Philox(key=int.from_bytes(digest[:16], "little")).random_raw(count)
    return (raw >> np.uint64(40)).astype(np.float64) * 2.0**-23 - 1.0


def rule_for(name: str, rules: Sequence[Fill]) -> Fill:
    """Return the first rule whose pattern matches; the last rule of a case matches everything."""
    return next(rule for rule in rules if fnmatchcase(name, rule.pattern))


def values(name: str, shape: Tuple[int, ...], *, seed: int, rules: Sequence[Fill]) -> np.ndarray:
    """Return the float32 values of one parameter or buffer."""
    rule = rule_for(name, rules)
    spread = rule.spread
    if rule.per_fan_in:  # uniform in [-a, a) has variance a²/3
        spread *= math.sqrt(3.0 / max(1, math.prod(shape[1:])))
    count = math.prod(shape)
    centre = rule.centre if isinstance(rule.centre, float) else np.resize(rule.centre, count)
    numbers = centre + spread * uniform(seed, name, count)
    return numbers.astype(np.float32).reshape(shape)


def rules_of(case: Case, fills: Sequence[Mapping[str, Any]]) -> Tuple[Fill, ...]:
    """Return a record's own rules (as its manifest or a message holds them), then those of the case."""
    own = tuple(
        Fill(
            **{**fill, "centre": tuple(fill["centre"]) if isinstance(fill["centre"], (list, tuple)) else fill["centre"]}
        )
        for fill in fills
    )
    return own + case.weights


def state_dict(shapes: Shapes, *, seed: int, rules: Sequence[Fill]) -> Dict[str, torch.Tensor]:
    """Return a whole state dict: float32, but int64 for the counters of batch norms."""
    state = {}
    for name, shape in shapes.items():
        tensor = torch.from_numpy(values(name, tuple(shape), seed=seed, rules=rules))
        state[name] = tensor.long() if name.endswith("num_batches_tracked") else tensor
    return state


def fingerprint(state: Mapping[str, torch.Tensor]) -> str:
    """Return one SHA-256 over all names and bytes: equal where two interpreters filled alike."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].contiguous().numpy().tobytes())
    return digest.hexdigest()
