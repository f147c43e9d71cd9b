"""What ``parity mutate`` does, behind its options."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from parity import __version__
from parity.cases.base import Case
from parity.cases.registry import all_cases, find_case
from parity.engines.environment import legacy_python
from parity.engines.host import DEFAULT_TIME_LIMIT, RemoteSession
from parity.errors import ParityError
from parity.mutants import quiet
from parity.mutants.base import Mutant
from parity.mutants.bench import Bench
from parity.mutants.outcomes import MutationReport, Outcome, merged, read_outcomes, read_quiet, to_json
from parity.mutants.page import page
from parity.mutants.practice import Judges
from parity.mutants.registry import built_in, chosen, from_file
from parity.mutants.selections import select
from parity.mutants.survivors import EXPLAINED
from parity.records.locate import default_fixtures, find_records


def mutate(options: argparse.Namespace) -> bool:
    """Do what the options ask for; return whether every survivor is explained and every benign change quiet."""
    if options.read:
        report, changes = up_to_date(read_outcomes(options.read)), read_quiet(options.read)
        _write(options.page, page(report, changes), "--page")
    else:
        report, changes = (MutationReport({}, []), _benign(options)) if options.benign else (_mutants(options), [])
        _write(options.json, to_json(report, changes), "--json")
    print_outcomes(report)
    print_quiet(changes)
    return not report.unexplained and not any(change.alarm for change in changes)


def up_to_date(report: MutationReport) -> MutationReport:
    """Return the outcomes of mutants that are still declared, survivors with what is known of them today."""
    declared = {mutant.id for mutant in built_in()}
    outcomes = [
        replace(outcome, explained=EXPLAINED.get((outcome.mutant, outcome.case), outcome.explained))
        for outcome in report.outcomes
        if outcome.mutant in declared
    ]
    return replace(report, outcomes=outcomes)


def _cases(options: argparse.Namespace) -> list[Case]:
    return [find_case(case_id) for case_id in options.cases] or list(all_cases().values())


def _mutants(options: argparse.Namespace) -> MutationReport:
    mutants = from_file(options.source) if options.source else built_in()
    mutants = chosen(mutants, options.mutant)
    if options.select:
        mutants = select(mutants, options.select)
    planned = {case.id: [it for it in mutants if it.concerns(case.id)] for case in _cases(options)}
    if not any(planned.values()):
        raise ParityError(f"none of these mutants concerns {', '.join(planned)}")
    start = time.perf_counter()
    fixtures = options.fixtures or default_fixtures()
    reports = [
        run_case(Bench(find_case(case_id), fixtures), those, practice=not options.harness_only)
        for case_id, those in planned.items()
        if those
    ]
    return merged(reports, round(time.perf_counter() - start, 1))


def run_case(bench: Bench, mutants: Sequence[Mutant], *, practice: bool) -> MutationReport:
    """Plant mutants in one case, one at a time; tell of each as it comes."""
    hidden = sorted({mutant.stage for mutant in mutants if not bench.shows(mutant.stage)})
    mutants = [mutant for mutant in mutants if mutant.stage not in hidden]
    if hidden:
        print(
            f"{bench.case.id} has no record of {', '.join(hidden)} (`parity freeze` makes one): such mutants left out"
        )
    judges = Judges(bench.checker, bench.records) if practice else None
    environment = {"parity": __version__, "new": bench.checker.fingerprint()}
    outcomes = []
    with tqdm(total=len(mutants), desc=bench.case.id, unit="mutant", leave=False, disable=None) as bar:
        for outcome in _outcomes(bench, judges, mutants):
            outcomes.append(outcome)
            bar.update()
            tqdm.write(f"{outcome.case:26} {outcome.mutant:34} {_verdict(outcome)}")
    return MutationReport(environment, outcomes, {bench.case.id: judges.clean} if judges else {})


def _outcomes(bench: Bench, judges: Judges | None, mutants: Sequence[Mutant]) -> Iterator[Outcome]:
    for mutant in mutants:
        start = time.process_time()
        with mutant.apply():
            checker = bench.checker_for(mutant)
            catch = bench.judge(checker, mutant.stage)
            practice = judges.judge(checker) if judges and mutant.stage in bench.case.stage_names() else None
        seconds = round(time.process_time() - start, 2)
        if catch is not None:
            bench.verify(catch.mode, catch.dtype, mutant.stage)
        explained = EXPLAINED.get((mutant.id, bench.case.id), "")
        yield Outcome(mutant.id, bench.case.id, mutant.stage, mutant.why, catch, practice, seconds, explained)


def _benign(options: argparse.Namespace) -> list[quiet.Quiet]:
    """Make the benign changes; with a legacy engine at hand, new situations as well."""
    from parity.mutants.benign import BENIGN

    changes = quiet.chosen(BENIGN, options.mutant)
    fixtures = options.fixtures or default_fixtures()
    found = []
    for case in _cases(options):
        if not options.cases and not find_records(fixtures, case=case.id):
            continue
        tried = quiet.try_changes(Bench(case, fixtures, smallest=options.smallest), changes)
        for change in tqdm(tried, desc=case.id, unit="change", leave=False, disable=None):
            found.append(change)
            tqdm.write(f"{case.id:26} {change.change:34} {change.alarm or 'quiet'}")
        if options.legacy_root:
            found += quiet.try_live(case, partial(_connect, case, options))
    return found


def _connect(case: Case, options: argparse.Namespace) -> RemoteSession:
    python = legacy_python(case.legacy, options.legacy_python)
    time_limit = options.time_limit or DEFAULT_TIME_LIMIT
    return RemoteSession(case.legacy, python=python, root=options.legacy_root, time_limit=time_limit)


def print_outcomes(report: MutationReport) -> None:
    """Print what all outcomes add up to."""
    if not report.outcomes:
        return
    caught = [outcome for outcome in report.outcomes if outcome.catch]
    right = sum(outcome.right_stage for outcome in caught)
    share = f", the right stage first in {right} ({right / len(caught):.1%})" if caught else ""
    processor = sum(outcome.seconds for outcome in report.outcomes)
    times = f"{report.seconds:.0f} s, of processor time {processor:.0f} s"
    print(f"\ncaught {len(caught)} of {len(report.outcomes)}{share}; {times}")
    for outcome in report.misplaced():
        print(f"  {outcome.mutant} in {outcome.case}: {_verdict(outcome)}")
    for outcome in report.survivors:
        print(f"  survived: {outcome.mutant} in {outcome.case}: {outcome.explained or 'nobody knows why'}")


def print_quiet(changes: Sequence[quiet.Quiet]) -> None:
    """Print what the benign changes add up to."""
    if changes:
        alarms = [change for change in changes if change.alarm]
        print(f"\n{len(alarms)} false alarms in {len(changes)} benign changes")
        for change in alarms:
            print(f"  {change.change} in {change.case}: {change.alarm}")


def _verdict(outcome: Outcome) -> str:
    catch = outcome.catch
    if catch is None:
        return "SURVIVED"
    place = catch.stage if outcome.right_stage else f"{catch.stage or 'a whole run'} INSTEAD OF {outcome.stage}"
    return f"{place}, {catch.mode}, {catch.dtype}, {catch.record}: {catch.how}"


def _write(path: Path | None, text: str, option: str) -> None:
    if path is None:
        return
    try:
        part = path.with_name(f".{path.name}.part")
        part.write_text(text)
        part.replace(path)
    except OSError as error:
        raise ParityError(f"{option} {path}: {error.strerror}") from error
