"""A checkpoint's classification head from 91 outputs to 80, and back.

Outputs counted by COCO's own ids are 91, with a row for "no object" behind them 92; contiguous ones are 80 or 81.
Whatever has a row for each class is mapped: weights and biases of the layers that classify, and the class embeddings
of denoising queries.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import Tensor

from parity.coco.categories import COUNT_91, IDS, NAMES, NAMES_91
from parity.errors import ParityError
from parity.weights.checkpoint import read_checkpoint, write_checkpoint

NEVER = -100.0  # the bias of an output that must never win: its probability is below 1e-43, sigmoid or softmax
_CLASSIFIES = re.compile("cls|class|label|logit", re.IGNORECASE)
_ROWS = {80: (COUNT_91, COUNT_91 + 1), 91: (len(IDS), len(IDS) + 1)}  # what is read, by what is written


@dataclass(frozen=True)
class Mapped:
    """A state dict that was mapped.

    Attributes:
        changed: names of what has other rows now.
        suspects: names of what has as many rows as there are classes, and was left alone.
    """

    state: dict[str, Tensor]
    changed: tuple[str, ...]
    suspects: tuple[str, ...]


def map_head(state: Mapping[str, Tensor], *, to: int, pattern: str = "") -> Mapped:
    """Return a state dict whose class rows are those of ``to`` (80 or 91) outputs.

    Rows of ids that COCO does not use are zero, but a bias of ``NEVER``.

    Args:
        pattern: names to map (fnmatch); by default those that speak of classes, labels or logits.

    Raises:
        ParityError: nothing has a row for each class.
    """
    rows = _ROWS[to]
    fitting = [name for name, value in state.items() if value.dim() and len(value) in rows]
    wanted = [name for name in fitting if (fnmatchcase(name, pattern) if pattern else _CLASSIFIES.search(name))]
    if not wanted:
        which = f"a name like {pattern} and " if pattern else ""
        others = f"; {', '.join(fitting[:5])} would fit: --head PATTERN names what to map" if fitting else ""
        raise ParityError(f"no parameter has {which}{rows[0]} rows, or {rows[1]} with no-object{others}")
    done = {name: _rows_of(value, to) if name in wanted else value for name, value in state.items()}
    return Mapped(done, tuple(wanted), tuple(name for name in fitting if name not in wanted))


def _rows_of(value: Tensor, to: int) -> Tensor:
    ids = torch.tensor(IDS)
    if to == 80:
        return torch.cat([value[ids], value[COUNT_91:]])
    wide = value.new_full((COUNT_91, *value.shape[1:]), NEVER if value.dim() == 1 else 0.0)
    wide[ids] = value[: len(IDS)]
    return torch.cat([wide, value[len(IDS) :]])


def map_checkpoint(
    source: Path,
    output: Path,
    *,
    to: int,
    pattern: str = "",
    ema: bool = False,
    ema_from: str = "",
    trust_pickle: bool = False,
) -> list[str]:
    """Map a checkpoint's head; return what was done, a line each.

    Raises:
        ParityError: a file cannot be read or written, or has no such head; it is named.
    """
    checkpoint = read_checkpoint(source, ema=ema, ema_from=ema_from, trust_pickle=trust_pickle)
    try:
        done = map_head(checkpoint.state, to=to, pattern=pattern)
    except ParityError as error:
        raise ParityError(f"{source}: {error}") from None
    classes = NAMES if to == 80 else NAMES_91
    meta = {"dataset_meta": {"classes": classes}, "CLASSES": classes, "parity": {"from": source.name, "classes": to}}
    write_checkpoint(output, done.state, source=source, meta=meta, left=None)
    lines = [f"{output}: {checkpoint.origin}, {len(done.changed)} parameters mapped to {to} classes"]
    lines += [f"  {remark}" for remark in checkpoint.remarks]
    lines += [f"  {name}: {len(checkpoint.state[name])} -> {len(done.state[name])} rows" for name in done.changed]
    return lines + [f"  left alone: {name}, {len(done.state[name])} rows" for name in done.suspects]
