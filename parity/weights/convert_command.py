"""What ``parity convert`` does, behind its options."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from parity import __version__
from parity.atomic import writing
from parity.cases.base import Case
from parity.cases.registry import find_case
from parity.errors import ParityError
from parity.records.kinds import RECIPE
from parity.records.locate import default_fixtures, find_records
from parity.records.store import Record
from parity.weights.checkpoint import Checkpoint, read_checkpoint, unfinished_checkpoint
from parity.weights.conversion import Conversion, convert_with_ledger, reverse
from parity.weights.ledger import Ledger

Shapes = Mapping[str, Sequence[int]]


def convert_file(options: argparse.Namespace) -> list[str]:
    """Convert one checkpoint as the options ask; return what to tell, a line each.

    Nothing is written unless every key is accounted for.

    Raises:
        ParityError: the input cannot be read, a key is unexplained, or an output cannot be written.
    """
    case = find_case(options.case)
    _expect_different_files(options)
    checkpoint = read_checkpoint(
        options.input, ema=options.ema, ema_from=options.ema_from, trust_pickle=options.trust_pickle
    )
    shapes = legacy_shapes(case) if options.reverse else new_shapes(case)
    try:
        done = _converted(case, checkpoint, shapes, backward=options.reverse)
    except ParityError as error:
        raise ParityError(f"{options.input}: {error}") from None
    meta = _meta(case, options, checkpoint)
    left = None if options.reverse else done.left
    with ExitStack() as stack:
        part = stack.enter_context(
            unfinished_checkpoint(options.output, done.state, source=options.input, meta=meta, left=left)
        )
        if options.ledger:
            stack.enter_context(_around(options.ledger, done.ledger.to_json()))
        part.replace(options.output)
    lines = [f"{case.id}: {options.input} -> {options.output}", f"  read: {checkpoint.origin}"]
    lines += [*(f"  {remark}" for remark in checkpoint.remarks), *_summary(done.ledger)]
    if not options.reverse:
        return [*lines, _reversibility(case, checkpoint, done)]
    unchecked = "" if shapes else "; no record of this case says what the legacy names are, so they are not checked"
    return [*lines, f"  reversed: converted forward again, it gives the input back bit for bit{unchecked}"]


def _converted(case: Case, checkpoint: Checkpoint, shapes: Shapes | None, *, backward: bool) -> Conversion:
    if backward:
        return reverse(checkpoint.state, rules=case.rules, left=checkpoint.left, target_names=shapes)
    return convert_with_ledger(checkpoint.state, rules=case.rules, target_names=shapes)


def new_shapes(case: Case) -> Shapes:
    """Return name -> shape of the new engine's parameters and buffers, from the model it builds."""
    from parity.engines.session import Session

    return Session(case.new).load(case.id, "fp32")


def legacy_shapes(case: Case) -> Shapes | None:
    """Return name -> shape of the legacy engine's, which every record but a recipe holds; ``None`` without one."""
    for folder in find_records(default_fixtures(), case=case.id):
        record = Record(folder)
        if record.kind != RECIPE:
            shapes: Shapes = record.manifest["weights"]["shapes"]
            return shapes
    return None


def _expect_different_files(options: argparse.Namespace) -> None:
    files = [options.input, options.output, *([options.ledger] if options.ledger else [])]
    try:
        places = {file.resolve() for file in files}
    except (OSError, RuntimeError) as error:  # a symbolic link that leads to itself
        raise ParityError(f"{options.output}: {error}") from None
    if len(places) < len(files):
        raise ParityError(f"{options.output}: the input, the output and the ledger must be different files")


def _meta(case: Case, options: argparse.Namespace, checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the output's own description: plain values, no time, so that the same input gives the same file."""
    made = {
        "version": __version__,
        "case": case.id,
        "engine": case.legacy if options.reverse else case.new,
        "from": options.input.name,
        "from_sha256": hashlib.sha256(options.input.read_bytes()).hexdigest(),
        "weights": checkpoint.origin,
    }
    if not checkpoint.classes:
        return {"parity": made}
    # mmdet 3.x looks for dataset_meta, mmdet 2.x for CLASSES.
    return {"parity": made, "dataset_meta": {"classes": checkpoint.classes}, "CLASSES": checkpoint.classes}


@contextmanager
def _around(path: Path, ledger: str) -> Iterator[None]:
    """Write a ledger around the moment at which its checkpoint comes to its place.

    Whoever is killed leaves no ledger beside a checkpoint that it is not of: the one that was there goes before, the
    new one comes after.
    """
    with ExitStack() as stack, _told_of(path):
        hidden, file = stack.enter_context(writing(path))
        file.write(ledger.encode())
        file.flush()
        path.unlink(missing_ok=True)
        kept = stack.pop_all()
    with kept:
        yield
        with _told_of(path):
            hidden.replace(path)


@contextmanager
def _told_of(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ParityError(f"--ledger {path}: {error.strerror}") from error


def _summary(ledger: Ledger) -> list[str]:
    sources, targets = len(list(ledger.sources())), len(list(ledger.targets()))
    rules = [f"    {count} by {rule}" for rule, count in ledger.rules().items()]
    return [f"  keys: {sources} read, {targets} written, each accounted for", *rules]


def _reversibility(case: Case, checkpoint: Checkpoint, done: Conversion) -> str:
    """Reverse the conversion at once, and say whether that gives back what was read."""
    try:
        back = reverse(done.state, rules=case.rules, left=done.left)
    except ParityError as error:
        return f"  not reversible: {error}"
    same = sorted(back.ledger.targets(), key=str) == sorted(done.ledger.sources(), key=str)
    return f"  reversible: --reverse {'gives the input back bit for bit' if same else 'does NOT give the input back'}"
