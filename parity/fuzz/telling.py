"""What a search says: how many situations of what sort, and the smallest that failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from parity.cases.base import Batch, Case, TrainingBatch
from parity.fuzz.live import Kind, Outcome
from parity.fuzz.saving import Saved
from parity.fuzz.search import Search
from parity.fuzz.situations import features
from parity.report.messages import failure_message

LAST_LINES = 8  # of a traceback


def told(found: Search, case: Case, saved: Saved | None) -> Iterator[str]:
    """Yield the lines about a search."""
    run = dict(list(found.outcomes.items())[: found.drawn])
    yield from _summary(run, case, found.seconds)
    if found.failing is not None:
        outcome = found.outcomes[found.failing]
        tried = len(found.outcomes) - found.drawn
        yield f"\n{outcome.kind}; the smallest such situation of {tried} tried after the first:"
        yield from _described(found.failing)
        yield from _reason(outcome, case, saved)


def _summary(run: dict[Batch, Outcome], case: Case, seconds: float) -> Iterator[str]:
    kinds = Counter(outcome.kind for outcome in run.values())
    counted = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    yield f"{case.id}: {len(run)} situation{'s' * (len(run) != 1)}, {counted} ({seconds:.0f} s)"
    special = Counter(feature for batch in run for feature in features(batch, case))
    yield "  of which " + ", ".join(f"{count} {name}" for name, count in special.most_common())
    decisions = [d for outcome in run.values() for result in outcome.results for d in result.decisions]
    chosen, flips = sum(d.count for d in decisions), sum(d.flips for d in decisions)
    certified = sum(d.certified for d in decisions)
    yield f"  {len(decisions)} decisions over {chosen} choices, {flips} flips, {certified} of them certified ties"
    for kind in (Kind.REFUSED, Kind.NO_TRUTH):
        reasons = Counter(outcome.reason for outcome in run.values() if outcome.kind is kind)
        yield from (f"  {kind}, {count} times: {reason}" for reason, count in reasons.items())


def _described(batch: Batch) -> Iterator[str]:
    kind = "a training step" if isinstance(batch, TrainingBatch) else "inference"
    yield f"  {kind}, weights of seed {batch.seed}"
    for fill in batch.fills:
        yield f"  weights {fill.pattern}: centre {fill.centre}, spread {fill.spread}"
    for picture in batch.pictures:
        pairs = zip(picture.boxes, picture.labels, strict=True)
        boxes = [f"class {label} at ({', '.join(f'{side:g}' for side in box)})" for box, label in pairs]
        height, width = picture.size
        yield f"  image of {height}x{width} on ground {picture.ground}: {'; '.join(boxes) or 'no object'}"


def _reason(outcome: Outcome, case: Case, saved: Saved | None) -> Iterator[str]:
    first = outcome.first
    again = f"parity fuzz {case.id} --situation {saved.situation}" if saved else "the same with --save-failing DIR"
    recorded = f"parity check {case.id} --fixtures {saved.record.parents[1]}" if saved and saved.record else ""
    if first is not None:
        group = [each for each in outcome.results if (each.mode, each.dtype) == (first.mode, first.dtype)]
        where = f" --stage {first.stage} --mode {first.mode} --dtype {first.dtype}"
        yield failure_message(group, rerun=recorded + where if recorded else again)
    else:
        yield f"  {outcome.reason}"
        yield from (f"  {line}" for line in outcome.detail.splitlines()[-LAST_LINES:])
        yield f"to reproduce: {recorded or again}"
    if saved:
        yield f"saved: {saved.record or saved.situation}"
        yield f"live again: {again}"
