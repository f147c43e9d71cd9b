"""What ``parity freeze`` and ``parity check`` do, behind their options."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from parity import __version__
from parity.cases.base import Batch, Case
from parity.cases.registry import cases_with, find_case, nearest
from parity.check import DTYPES, Checker
from parity.compare.verdicts import worst
from parity.engines.environment import legacy_python
from parity.engines.host import DEFAULT_TIME_LIMIT, RemoteSession
from parity.errors import ParityError
from parity.records.freeze import VARIANTS
from parity.records.freeze import freeze as freeze_record
from parity.records.images import parse_sizes
from parity.records.layout import MODES
from parity.records.locate import default_fixtures, find_records
from parity.records.store import Record, write_record
from parity.report.messages import failure_message, stage_line
from parity.report.results import Report, StageResult, to_json


def freeze(options: argparse.Namespace) -> Iterator[Path]:
    """Freeze the records that the options ask for; yield each folder when it is complete."""
    case = find_case(options.case)
    out = options.out or default_fixtures()
    batches = _batches(case, options)
    for name in batches:
        if (out / case.id / name).exists() and not options.force:
            raise ParityError(f"record {out / case.id / name} exists; --force replaces it, --out writes elsewhere")
    with RemoteSession(
        case.legacy,
        python=legacy_python(case.legacy, options.legacy_python),
        root=options.legacy_root,
        time_limit=options.time_limit or DEFAULT_TIME_LIMIT,
    ) as legacy:
        for name, batch in batches.items():
            steps = 2 + len(case.stages) + len(VARIANTS)
            with tqdm(total=steps, desc=f"{case.id}/{name}", unit="step", disable=None) as bar:
                frozen = freeze_record(case, name, batch, legacy, progress=partial(_advance, bar))
                bar.update()
            write_record(out / case.id / name, *frozen, force=options.force)
            yield out / case.id / name


def _advance(bar: tqdm, text: str) -> None:
    bar.set_postfix_str(text)
    bar.update(bool(bar.postfix) and bar.n < bar.total - 1)


def _batches(case: Case, options: argparse.Namespace) -> dict[str, Batch]:
    """Return record name -> batch: the case's own, or one drawn for the given sizes."""
    if options.sizes:
        sizes = parse_sizes(options.sizes)
        seed = 0 if options.seed is None else options.seed
        return {options.record or f"seed{seed}-{options.sizes.replace(',', '-')}": Batch(seed=seed, sizes=sizes)}
    if options.record and options.record not in case.records:
        raise ParityError(
            f"case {case.id} declares no record {options.record!r}{nearest(options.record, case.records)};"
            " --sizes makes a new one of that name"
        )
    chosen = {name: batch for name, batch in case.records.items() if options.record in (None, name)}
    if options.seed is None:
        return chosen
    return {f"{name}-seed{options.seed}": replace(batch, seed=options.seed) for name, batch in chosen.items()}


def check(options: argparse.Namespace) -> bool:
    """Judge the new engine as the options ask; print, write what was asked for; return whether all passed."""
    fixtures = options.fixtures or default_fixtures()
    cases = [find_case(case_id) for case_id in options.cases] or cases_with(options.stage)
    folders = {case.id: find_records(fixtures, case=case.id) for case in cases}
    missing = [case_id for case_id, found in folders.items() if not found]
    if (options.cases and missing) or len(missing) == len(cases):
        raise ParityError(f"{fixtures} holds no record of {missing[0]}: `parity freeze {missing[0]}` makes one")
    results: list[StageResult] = []
    environment: dict[str, object] = {"parity": __version__, "device": options.device, "records": {}}
    for case in cases:
        stages = _stages(case, options.stage)
        if folders[case.id]:
            results += _check_case(case, folders[case.id], stages, options, environment)
    return _finish(Report(environment, tuple(results)), options)


def _stages(case: Case, stage: str | None) -> Sequence[str] | None:
    if stage is None:
        return None
    if stage not in case.stage_names():
        raise ParityError(
            f"--stage {stage}: {case.id} has no such stage{nearest(stage, case.stage_names())};"
            f" it has {', '.join(case.stage_names())}"
        )
    return [stage]


def _check_case(
    case: Case,
    folders: Sequence[Path],
    stages: Sequence[str] | None,
    options: argparse.Namespace,
    environment: dict[str, object],
) -> Iterator[StageResult]:
    checker = Checker(case, device=options.device)
    modes = [options.mode] if options.mode else MODES
    dtypes = [options.dtype] if options.dtype else DTYPES
    records = environment["records"]
    assert isinstance(records, dict)
    total = len(folders) * len(modes) * len(dtypes) * len(stages or case.stage_names())
    with tqdm(total=total, desc=case.id, unit="stage", leave=False, disable=None) as bar:
        for folder in folders:
            record = Record(folder)
            records[f"{case.id}/{record.id}"] = record.manifest["engines"]
            for dtype in dtypes:
                for mode in modes:
                    bar.set_postfix_str(f"{record.id}, {mode}, {dtype}")
                    for result in checker.check(record, mode=mode, dtype=dtype, stages=stages):
                        bar.update()
                        yield result
    environment["new"] = checker.fingerprint()


def _finish(report: Report, options: argparse.Namespace) -> bool:
    print_results(report.results)
    if options.json:
        try:
            options.json.write_text(to_json(report))
        except OSError as error:
            raise ParityError(f"--json {options.json}: {error.strerror}") from error
    if options.report_dir:
        from parity.report.page import write_report

        print(f"report: {write_report(report, options.report_dir)}")
    return report.verdict.passes


def print_results(results: Sequence[StageResult]) -> None:
    """Print a line a stage, then the message of every run that diverged."""
    groups: dict[tuple[str, str, str, str], list[StageResult]] = {}
    for result in results:
        groups.setdefault((result.case, result.record, result.dtype, result.mode), []).append(result)
    for (case, record, dtype, mode), group in groups.items():
        print(f"\n{case} / {record}, {mode}, {dtype}")
        for result in group:
            print(f"  {stage_line(result)}")
            for note in result.notes:
                print(f"    note: {note}")
        first = next((result for result in group if not result.verdict.passes), None)
        if first is not None:
            rerun = f"parity check {case} --stage {first.stage} --mode {mode} --dtype {dtype}"
            print(failure_message(group, rerun=rerun))
    passed = sum(result.verdict.passes for result in results)
    verdict = worst(result.verdict for result in results)
    print(f"\n{'same' if verdict.passes else 'NOT the same'}: {passed} of {len(results)} stage checks passed")
