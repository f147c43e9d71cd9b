"""What ``parity fuzz`` and the pytest suite do, behind their options."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from functools import partial

from tqdm import tqdm

from parity.cases.base import Batch, Case
from parity.cases.registry import find_case
from parity.engines.opening import open_legacy
from parity.errors import ParityError
from parity.fuzz.live import Live, Outcome, SteadySession
from parity.fuzz.saving import save
from parity.fuzz.search import Search, search
from parity.fuzz.situations import batches, read_situation
from parity.fuzz.telling import told


@dataclass(frozen=True)
class Fuzzed:
    """What a run of the fuzzer says, and whether everything was the same."""

    passed: bool
    lines: tuple[str, ...]


def fuzz(options: argparse.Namespace) -> bool:
    """Do what the options ask for; print; return whether all situations were the same."""
    case = find_case(options.case)
    if options.examples < 1:
        raise ParityError(f"--examples {options.examples}: one situation or more")
    if options.kind == "training" and not case.training:
        raise ParityError(f"--kind training: {case.id} declares no training; leave it out, or --kind inference")
    if options.situation:
        read_situation(options.situation)  # a wrong file is told before an engine is started
    with open_live(case, options) as live:
        found = fuzz_live(live, options)
    print("\n".join(found.lines))
    return found.passed


def open_live(case: Case, options: argparse.Namespace) -> Live:
    """Return both engines of a case, ready.

    Raises:
        ParityError: the legacy engine does not start, or cannot build the case.
    """
    dtypes = ("fp64", "fp32") if options.dtype == "fp32" else ("fp64",)
    return Live(case, partial(open_legacy, case.legacy, options, kind=SteadySession), dtypes=dtypes)


def fuzz_live(live: Live, options: argparse.Namespace) -> Fuzzed:
    """Run drawn situations, or the one that is named; save the smallest that fails, if that is asked for.

    Raises:
        ParityError: an engine fails at more than a situation, or a failure cannot be saved.
    """
    found = _rerun(live, read_situation(options.situation)) if options.situation else _search(live, options)
    saved = None
    if found.failing is not None and options.save_failing:
        saved = save(live, found.failing, found.outcomes[found.failing], options.save_failing)
    return Fuzzed(found.failing is None, tuple(told(found, live.case, saved)))


def _search(live: Live, options: argparse.Namespace) -> Search:
    training = {"inference": False, "training": True}.get(options.kind)
    situations = batches(live.case, training=training)
    with tqdm(total=options.examples, desc=live.case.id, unit="situation", leave=False, disable=None) as bar:
        progress = _Progress(live.case, bar)
        return search(live.judge, situations, examples=options.examples, seed=options.seed, progress=progress)


class _Progress:
    """Tells how far a search is; a failure at once, since finding a smaller one takes a while."""

    def __init__(self, case: Case, bar: tqdm) -> None:
        self.case, self.bar, self.count, self.failed = case, bar, 0, False

    def __call__(self, outcome: Outcome) -> None:
        self.count += 1
        if not outcome.kind.passes and not self.failed:
            self.failed = True
            tqdm.write(f"{self.case.id}: {outcome.kind} in situation {self.count}; looks for smaller ones")
        if not self.failed:
            self.bar.update()


def _rerun(live: Live, batch: Batch) -> Search:
    start = time.perf_counter()
    outcome = live.judge(batch)
    return Search({batch: outcome}, None if outcome.kind.passes else batch, 1, time.perf_counter() - start)
