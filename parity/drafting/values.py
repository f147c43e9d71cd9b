"""What checkpoints say of the keys: whose values are the same, and whether they fit the models."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from parity.errors import ParityError
from parity.records.store import sha256
from parity.weights.checkpoint import read_checkpoint

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Values:
    """A checkpoint's keys: name -> hash of the value, and the shape; both empty where no file is given.

    Attributes:
        of_file: what else of the file the user has to know, a line each.
    """

    option: str
    path: Path | None
    hashes: Mapping[str, str]
    shapes: Shapes
    of_file: tuple[str, ...] = ()

    def remarks(self, model: Shapes) -> Iterator[str]:
        """Say how the checkpoint fits the model that the config builds."""
        if self.path is None:
            return
        yield from (f"{self.option} {self.path}: {remark}" for remark in self.of_file)
        absent = sorted(name for name in model if name not in self.shapes)
        beyond = sorted(name for name in self.shapes if name not in model)
        other = sorted(name for name in model if name in self.shapes and list(self.shapes[name]) != list(model[name]))
        fits = len(model) - len(absent) - len(other)
        yield (
            f"{self.option} {self.path}: {fits} of the model's {len(model)} keys, {len(beyond)} beyond them"
            + "".join(
                f"; {what}: {', '.join(names[:3])}{' …' if len(names) > 3 else ''}"
                for what, names in (("missing", absent), ("of another shape", other), ("beyond", beyond))
                if names
            )
        )


def checkpoint_values(options: argparse.Namespace) -> tuple[Values, Values]:
    """Return what the options' checkpoints hold: that of the legacy model, that of the new one.

    Raises:
        ParityError: only the new one is given, or a file cannot be read.
    """
    if options.new_checkpoint is not None and options.checkpoint is None:
        raise ParityError("--new-checkpoint: values are compared with those of --checkpoint; name both files")
    return (
        _read("--checkpoint", options.checkpoint, trust_pickle=options.trust_pickle),
        _read("--new-checkpoint", options.new_checkpoint, trust_pickle=options.trust_pickle),
    )


def _read(option: str, path: Path | None, *, trust_pickle: bool) -> Values:
    if path is None:
        return Values(option, None, {}, {})
    checkpoint = read_checkpoint(path, trust_pickle=trust_pickle, options=("parity convert --ema", "--trust-pickle"))
    hashes = {name: sha256(tensor) for name, tensor in checkpoint.state.items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in checkpoint.state.items()}
    return Values(option, path, hashes, shapes, checkpoint.remarks)


def remarks(legacy: Values, new: Values, *, shapes: tuple[Shapes, Shapes]) -> Iterator[str]:
    """Say how both checkpoints fit, and what one alone cannot do."""
    yield from legacy.remarks(shapes[0])
    yield from new.remarks(shapes[1])
    if legacy.path is not None and new.path is None:
        yield (
            f"--checkpoint {legacy.path} alone pairs nothing by value: name the same weights under the new engine's"
            " names, too (--new-checkpoint), if somebody has converted them"
        )
