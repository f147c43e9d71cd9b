"""What ``parity locate`` does, behind its options."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from parity.cases.base import Batch, Case
from parity.cases.registry import find_case, nearest
from parity.compare.tensors import measure
from parity.engines.base import Run
from parity.engines.host import RemoteSession
from parity.engines.opening import open_legacy
from parity.engines.session import Session
from parity.errors import ParityError
from parity.locate.pairs import Paths, pair_modules
from parity.locate.search import SAME, Finding, compared_modules, first_difference
from parity.records.images import encoded_images
from parity.records.layout import stage_inputs
from parity.weights import synthetic
from parity.weights.conversion import convert
from parity.weights.plan import plan

Modules = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Located:
    """Where a stage first differs, and what both engines have there."""

    stage: str
    finding: Finding | None
    pairs: Paths
    modules: tuple[Modules, Modules]  # legacy, new
    owners: tuple[list[dict[str, str]], list[dict[str, str]]]
    compared: int
    outputs: tuple[str, ...]  # the stage's own outputs that differ


def locate(options: argparse.Namespace) -> Iterator[str]:
    """Yield what to tell of the first module that differs in a stage, a line each."""
    case = find_case(options.case)
    if options.stage not in [stage.name for stage in case.stages]:
        raise ParityError(
            f"--stage {options.stage}: {case.id} has no such stage{nearest(options.stage, case.stage_names())}"
            " that runs modules"
        )
    if not case.records:
        raise ParityError(f"case {case.id} declares no record to run")
    record = options.record or next(iter(case.records))
    if record not in case.records:
        raise ParityError(f"case {case.id} declares no record {record!r}{nearest(record, case.records)}")
    with open_legacy(case.legacy, options) as legacy:
        yield from told(located(reference(case, case.records[record], options.stage, legacy)))


@dataclass(frozen=True)
class Reference:
    """What the legacy engine did in one stage, live: its modules' events, and all that the new engine is fed."""

    case: Case
    batch: Batch
    stage: str
    shapes: Mapping[str, Sequence[int]]
    everything: Mapping[str, Tensor]
    truth: Run
    modules: Modules
    events: Sequence[Mapping[str, Any]]
    owners: list[dict[str, str]]


def reference(case: Case, batch: Batch, stage: str, legacy: RemoteSession | Session) -> Reference:
    """Run the legacy engine in float64 and watch the modules of a stage."""
    shapes = legacy.load(case.id, "fp64")
    legacy.fill(batch.seed, [asdict(fill) for fill in batch.fills])
    pixels = legacy.preprocess(encoded_images(batch, seed=batch.seed), batch.scale)
    modules = legacy.watch_modules(stage)
    truth = legacy.cascade(pixels.tensors)
    everything = {**pixels.tensors, **truth.tensors}
    events = legacy.module_events()
    return Reference(case, batch, stage, shapes, everything, truth, modules, events, legacy.call_owners(stage))


def located(known: Reference, *, altered: Callable[[Any], object] = lambda model: None) -> Located:
    """Run the new engine on what the legacy one's stage was given, and compare its modules.

    ``altered`` may do something to the new engine's model first: plant a bug.
    """
    case, stage = known.case, known.stage
    new = Session(case.new)
    targets = new.load(case.id, "fp64")
    rules = synthetic.rules_of(case, [asdict(fill) for fill in known.batch.fills])
    shapes = {name: tuple(shape) for name, shape in known.shapes.items()}
    state = synthetic.state_dict(shapes, seed=known.batch.seed, rules=rules)
    new.load_state(convert(state, target_names=targets, rules=case.rules))
    altered(new.model)
    modules = new.watch_modules(stage)
    run = _replayed(new, known)
    events = new.module_events()

    pairs = pair_modules(plan(shapes, case.rules), modules, known.modules)
    written = known.truth.produced.get(stage, ())
    return Located(
        stage,
        first_difference(events, known.events, pairs),
        pairs,
        (known.modules, modules),
        (known.owners, new.call_owners(stage)),
        compared_modules(events, known.events, pairs),
        tuple(name for name in written if _differs(run.tensors.get(name), known.truth.tensors[name])),
    )


def _replayed(new: Session, known: Reference) -> Run:
    inputs = stage_inputs(known.case.stage(known.stage), known.everything)
    forced = {name: decision.chosen for name, decision in known.truth.decisions.items()}
    return new.replay(known.stage, inputs, forced=forced, absent=known.case.absent(inputs))


def _differs(actual: Tensor | None, expected: Tensor) -> bool:
    if actual is None or actual.shape != expected.shape:
        return True
    return not measure(actual, expected).rel_rms <= SAME


def told(result: Located) -> Iterator[str]:
    """Yield the lines that say where a stage first differs."""
    yield f"stage {result.stage}: {result.compared} module calls compared, live, in float64"
    finding = result.finding
    if finding is None and not result.outputs:
        yield "no module differs, and neither does what the stage gives"
        return
    if finding is None or not finding.module:
        which = f"; first seen in what {finding.inside} is given" if finding else f": {', '.join(result.outputs)}"
        yield f"first difference: in the stage's own code, outside of any module{which}"
        for engine, owners in zip(("legacy", "new"), result.owners, strict=True):
            yield from (f"  {engine}: {each['path']} ({each['class']}, {each['source']})" for each in owners)
        return
    legacy, new = result.modules
    yield f"first difference: {finding.module}, call {finding.call}" + (
        ": the same went in, something else came out"
        if finding.what == "out"
        else f": it gives {finding.inside} something else"
    )
    yield f"  new:    {finding.module} ({new[finding.module]['class']}, {new[finding.module]['source']})"
    at = result.pairs[finding.module]
    yield f"  legacy: {at} ({legacy[at]['class']}, {legacy[at]['source']})"
    yield f"  the last module that is the same: {finding.after or '(none before it)'}"
