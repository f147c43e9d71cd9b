"""Train the new engine in several processes, as a record of several processes asks for."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from parity.cases.base import GRADIENTS, LOSS, Case
from parity.engines.host import RemoteSession
from parity.engines.ranks import Ranks
from parity.records.store import Record
from parity.report.results import TensorResult
from parity.weights.conversion import convert


@dataclass(frozen=True)
class Planted:
    """A bug that every process plants for itself: the id of a mutant, and the file it is in (empty: a built-in one)."""

    mutant: str
    file: str = ""


def ranks_of(record: Record) -> int:
    """Return how many processes a record was made by; records older than the question by one."""
    return int(record.manifest["batch"].get("ranks", 1))


@contextmanager
def new_ranks(case: Case, size: int, *, device: str, planted: Planted | None) -> Iterator[Ranks]:
    """Start the new engine in so many processes of this interpreter; they end with the block."""
    with ExitStack() as stack:
        started = [
            stack.enter_context(RemoteSession(case.new, python=sys.executable, root="", device=device))
            for _ in range(size)
        ]
        ranks = stack.enter_context(Ranks(started))
        if planted is not None:
            ranks.plant(planted.mutant, planted.file)
        yield ranks


def load_converted(ranks: Ranks, case: Case, state: Mapping[str, Tensor], *, shapes: Mapping[str, list[int]]) -> None:
    """Give every process the legacy engine's weights, converted."""
    converted = convert(state, target_names=shapes, rules=case.rules)
    with tempfile.TemporaryDirectory(prefix="parity-weights-") as folder:
        path = Path(folder) / "weights.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in converted.items()}, path)
        ranks.read_weights(str(path))


def greatest_difference(stage: str, tensors: tuple[TensorResult, ...], size: int) -> tuple[str, ...]:
    """Return a note that says how near losses and gradients of several processes came; none of other stages."""
    compared = [tensor for tensor in tensors if tensor.count and not tensor.note]
    if stage not in (LOSS, GRADIENTS) or not compared:
        return ()
    worst = max(compared, key=lambda tensor: tensor.rel_rms)
    return (f"{size} processes: the greatest relative difference (RMS) is {worst.rel_rms:.1e}, of {worst.name}",)
