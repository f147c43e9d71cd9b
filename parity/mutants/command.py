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
from parity.mutants.jobs import each_case
from parity.mutants.outcomes import MutationReport, Outcome, merged, read_outcomes, read_quiet, to_json
from parity.mutants.page import page
from parity.mutants.practice import Judges
from parity.mutants.registry import built_in, chosen, from_file
from parity.mutants.selections import select
from parity.mutants.survivors import EXPLAINED
from parity.records.kinds import TRAINING
from parity.records.locate import default_fixtures, find_records
from parity.report.files import require_place, write_text


def mutate(options: argparse.Namespace) -> bool:
    """Do what the options ask for; return whether all is judged, survivors explained, and benign changes quiet."""
    require_place(options.json, "--json")
    require_place(options.page, "--page")
    if options.read:
        report, changes = up_to_date(read_outcomes(options.read)), read_quiet(options.read)
        if not report.outcomes and not changes:
            raise ParityError(f"--read {options.read[0]}: it holds no outcome of any mutant that is declared today")
        _write(options.page, page(report, changes))
    else:
        report, changes = (MutationReport({}, []), _benign(options)) if options.benign else (_mutants(options), [])
        _write(options.json, to_json(report, changes))
    print_outcomes(report)
    print_quiet(changes)
    return not report.unexplained and not report.unjudged and not any(change.alarm for change in changes)


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
    planned = {case.id: those for case in _cases(options) if (those := _planned(options, case.id))}
    if not planned:
        raise ParityError(f"none of these mutants concerns {', '.join(case.id for case in _cases(options))}")
    start = time.perf_counter()
    longest_first = sorted(planned, key=lambda case_id: -len(planned[case_id]))
    reports = dict(zip(longest_first, each_case(_plant, options, longest_first), strict=True))
    unjudged = [outcome for report in reports.values() for outcome in report.unjudged]
    if unjudged and not any(report.environment for report in reports.values()):  # no case could be worked on at all
        raise ParityError(unjudged[0].error)
    return merged([reports[case_id] for case_id in planned], round(time.perf_counter() - start, 1))


def _planned(options: argparse.Namespace, case_id: str) -> list[Mutant]:
    mutants = from_file(options.source) if options.source else built_in()
    mutants = chosen(mutants, options.mutant)
    if options.select:
        mutants = select(mutants, options.select)
    stages = find_case(case_id).all_stage_names()
    return [mutant for mutant in mutants if mutant.concerns(case_id) and mutant.stage in stages]


def _plant(options: argparse.Namespace, case_id: str) -> MutationReport:
    """Plant what is planned in one case; of several cases, one that cannot be worked on is not the end of the run."""
    planned = _planned(options, case_id)
    try:
        bench = Bench(find_case(case_id), options.fixtures or default_fixtures())
        return run_case(bench, planned, practice=not options.harness_only)
    except Exception as error:
        if len(options.cases) == 1:
            raise
        return MutationReport({}, [_unjudged(mutant, case_id, error) for mutant in planned])


def _unjudged(mutant: Mutant, case_id: str, error: Exception) -> Outcome:
    words = str(error).splitlines()[:1] or [""]
    said = words[0] if isinstance(error, ParityError) else f"{type(error).__name__}: {words[0]}"
    return Outcome(mutant.id, case_id, mutant.stage, mutant.why, None, error=said or type(error).__name__)


def run_case(bench: Bench, mutants: Sequence[Mutant], *, practice: bool) -> MutationReport:
    """Plant mutants in one case, one at a time; tell of each as it comes."""
    hidden = sorted({(mutant.stage, mutant.kind) for mutant in mutants if not bench.shows(mutant.stage, mutant.kind)})
    mutants = [mutant for mutant in mutants if (mutant.stage, mutant.kind) not in hidden]
    if hidden:
        stages = ", ".join(f"{stage} ({kind})" if kind else stage for stage, kind in hidden)
        print(f"{bench.case.id} has no record of {stages} (`parity freeze` makes one): such mutants left out")
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
    """Yield what comes of each mutant; one that cannot be judged is an outcome as well, unless it is the only one."""
    for mutant in mutants:
        try:
            yield _outcome(bench, judges, mutant)
        except Exception as error:
            if len(mutants) == 1:
                raise
            bench.begin_anew()
            yield _unjudged(mutant, bench.case.id, error)


def _outcome(bench: Bench, judges: Judges | None, mutant: Mutant) -> Outcome:
    start = time.process_time()
    with mutant.apply():
        checker = bench.checker_for(mutant)
        catch = bench.judge(checker, mutant.stage, mutant.kind, mutant=mutant)
        usual = judges is not None and mutant.kind != TRAINING and mutant.stage in bench.case.stage_names()
        practice = judges.judge(checker) if judges and usual else None
    seconds = round(time.process_time() - start, 2)
    if catch is not None:
        bench.verify(catch.mode, catch.dtype, mutant.stage, mutant.kind)
    explained = EXPLAINED.get((mutant.id, bench.case.id), "")
    return Outcome(mutant.id, bench.case.id, mutant.stage, mutant.why, catch, practice, seconds, explained)


def _benign(options: argparse.Namespace) -> list[quiet.Quiet]:
    """Make the benign changes; with a legacy engine at hand, new situations as well."""
    fixtures = options.fixtures or default_fixtures()
    case_ids = [case.id for case in _cases(options) if options.cases or find_records(fixtures, case=case.id)]
    return [change for changes in each_case(_change, options, case_ids) for change in changes]


def _change(options: argparse.Namespace, case_id: str) -> list[quiet.Quiet]:
    from parity.mutants.benign import BENIGN

    case, changes, found = find_case(case_id), quiet.chosen(BENIGN, options.mutant), []
    bench = Bench(case, options.fixtures or default_fixtures(), smallest=options.smallest)
    tried = quiet.try_changes(bench, changes)
    for change in tqdm(tried, desc=case_id, unit="change", leave=False, disable=None):
        found.append(change)
        tqdm.write(f"{case_id:26} {change.change:34} {_alarm(change)}")
    if options.legacy_root:
        found += quiet.try_live(case, partial(_connect, case, options))
    return found


def _alarm(change: quiet.Quiet) -> str:
    if not change.counts:
        return "without effect here"
    return f"{change.alarm or 'no alarm'} ({change.effect})"


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
    for outcome in report.unjudged:
        print(f"  not judged: {outcome.mutant} in {outcome.case}: {outcome.error}")
    for outcome in report.survivors:
        print(f"  survived: {outcome.mutant} in {outcome.case}: {outcome.explained or 'not explained'}")


def print_quiet(changes: Sequence[quiet.Quiet]) -> None:
    """Print what the benign changes add up to."""
    if changes:
        alarms = [change for change in changes if change.alarm]
        idle = [change for change in changes if not change.counts]
        print(f"\n{len(alarms)} false alarms in {len(changes) - len(idle)} benign changes")
        for change in idle:
            print(f"  without effect here, not counted: {change.change} in {change.case}")
        for change in alarms:
            print(f"  {change.change} in {change.case}: {change.alarm}")


def _verdict(outcome: Outcome) -> str:
    catch = outcome.catch
    if outcome.error:
        return f"NOT JUDGED: {outcome.error}"
    if catch is None:
        return "SURVIVED"
    place = catch.stage if outcome.right_stage else f"{catch.stage or 'a whole run'} INSTEAD OF {outcome.stage}"
    return f"{place}, {catch.mode}, {catch.dtype}, {catch.record}: {catch.how}"


def _write(path: Path | None, text: str) -> None:
    if path is not None:
        write_text(path, text)
