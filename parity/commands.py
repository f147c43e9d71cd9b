"""What ``parity freeze`` and ``parity check`` do, behind their options."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from parity.cases.base import MOST_RANKS, Batch, Case, TrainingBatch
from parity.cases.registry import cases_with, find_case, nearest
from parity.check import Checker, missing_record
from parity.compare.known import without_effect
from parity.compare.verdicts import Verdict, worst
from parity.engines.host import RemoteSession
from parity.engines.numerics import require_tf32
from parity.engines.opening import open_legacy
from parity.engines.ranks import Ranks
from parity.errors import ParityError
from parity.limits.command import told
from parity.provenance import provenance
from parity.records.freeze import freeze as freeze_record
from parity.records.freeze_recipe import freeze_recipe, freeze_recipe_stage
from parity.records.freeze_training import freeze_training
from parity.records.images import parse_sizes
from parity.records.kinds import RECIPE, TRAINING_PREFIX, TRAJECTORY_PREFIX, checks_in
from parity.records.listing import LISTING
from parity.records.locate import default_fixtures, expected_records, find_records, is_missing
from parity.records.noise import WAYS
from parity.records.remeasure import remeasure
from parity.records.store import Record, write_record
from parity.report.files import require_place, write_text
from parity.report.messages import conclusion, failure_message, stage_line
from parity.report.results import Report, StageResult, to_json
from parity.text import listed


def freeze(options: argparse.Namespace) -> Iterator[Path]:
    """Freeze the records that the options ask for; yield each folder when it is complete."""
    case = find_case(options.case)
    out = options.out or default_fixtures()
    if options.stage:
        yield _freeze_stage(case, out / case.id / RECIPE, options)
        return
    recipe = [RECIPE] if _wants_recipe(case, options) else []
    batches = _batches(case, options)
    for name in (*batches, *recipe):
        if (out / case.id / name).exists() and not options.force:
            raise ParityError(f"record {out / case.id / name} exists; --force replaces it, --out writes elsewhere")
    with open_legacy(case.legacy, options) as legacy:
        for name, batch in batches.items():
            steps = 2 + len(case.stages) + len(WAYS)
            with tqdm(total=steps, desc=f"{case.id}/{name}", unit="step", disable=None) as bar:
                progress = partial(_advance, bar)
                if isinstance(batch, TrainingBatch):
                    with _sessions(case, batch.ranks, legacy, options) as sessions:
                        frozen = freeze_training(case, name, batch, sessions, progress=progress)
                else:
                    frozen = freeze_record(case, name, batch, legacy, progress=progress)
                bar.update()
            write_record(out / case.id / name, *frozen, force=options.force)
            yield out / case.id / name
        for name in recipe:
            with tqdm(total=1 + len(case.recipe_stages), desc=f"{case.id}/{name}", unit="step", disable=None) as bar:
                frozen = freeze_recipe(case, legacy, progress=partial(_advance, bar))
            write_record(out / case.id / name, *frozen, force=options.force)
            yield out / case.id / name


def _freeze_stage(case: Case, folder: Path, options: argparse.Namespace) -> Path:
    """Add one stage to the recipe of a case, or freeze it anew; all else of the record stays byte for byte."""
    if options.record != RECIPE:
        raise ParityError(f"--stage {options.stage}: it goes with --record recipe; other records are frozen whole")
    record = Record(folder)
    if options.stage in record.manifest["recipe"] and not options.force:
        raise ParityError(f"record {folder} has the stage {options.stage}; --force freezes it anew")
    with open_legacy(case.legacy, options) as legacy:
        frozen = freeze_recipe_stage(case, record, options.stage, legacy)
    write_record(folder, *frozen, force=True, adding=True)
    return folder


@contextmanager
def _sessions(
    case: Case, ranks: int, legacy: RemoteSession, options: argparse.Namespace
) -> Iterator[RemoteSession | Ranks]:
    """Yield the legacy engine in as many processes as a batch asks for; the first is the one that runs already."""
    if ranks == 1:
        yield legacy
        return
    with ExitStack() as stack:
        others = [stack.enter_context(open_legacy(case.legacy, options)) for _ in range(ranks - 1)]
        yield stack.enter_context(Ranks([legacy, *others]))


def measure_noise(options: argparse.Namespace) -> Iterator[Path]:
    """Measure the noise of the records that the options name anew; yield each folder when it is complete."""
    drawn = {"--sizes": options.sizes, "--seed": options.seed, "--objects": options.objects}
    wrong = next((option for option, value in drawn.items() if value is not None), None)
    if wrong:
        raise ParityError(f"--noise-only: it measures records that are there; leave {wrong} out")
    case, fixtures = find_case(options.case), options.out or default_fixtures()
    folders = [path for path in find_records(fixtures, case=case.id) if options.record in (None, path.name)]
    if not folders:
        which = f"record {options.record!r}" if options.record else "record"
        raise ParityError(f"--noise-only: {fixtures} holds no {which} of {case.id}: `parity freeze` makes records")
    with open_legacy(case.legacy, options) as legacy:
        for folder in folders:
            record = Record(folder)
            ranks = int(record.manifest["batch"].get("ranks", 1))
            with (
                tqdm(total=1 + len(WAYS), desc=f"{case.id}/{folder.name}", unit="step", disable=None) as bar,
                _sessions(case, ranks, legacy, options) as sessions,
            ):
                frozen = remeasure(case, record, sessions, progress=partial(_advance, bar))
            write_record(folder, *frozen, force=True, truth=folder)
            yield folder


def _wants_recipe(case: Case, options: argparse.Namespace) -> bool:
    """Whether the recipe is to be frozen: it has neither weights nor images, so nothing of it could be drawn anew."""
    drawn = options.sizes is not None or options.seed is not None
    if options.record == RECIPE and drawn:
        raise ParityError("--record recipe: it holds neither images nor weights; leave --sizes and --seed out")
    return bool(case.recipe_stages) and options.record in (None, RECIPE) and not drawn


def _advance(bar: tqdm, text: str) -> None:
    bar.set_postfix_str(text)
    bar.update(bool(bar.postfix) and bar.n < bar.total - 1)


def _batches(case: Case, options: argparse.Namespace) -> dict[str, Batch]:
    """Return record name -> batch: the case's own, or one drawn for the given sizes."""
    if options.sizes is not None:
        name, batch = _drawn_batch(options)
        return {name: batch}
    if options.objects or options.steps != 1 or options.ranks != 1:
        raise ParityError("--objects, --steps and --ranks go with --sizes: they draw the ground truth of those images")
    if options.record == RECIPE and case.recipe_stages:
        return {}
    declared: dict[str, Batch] = {**case.records, **case.training}
    if options.record and options.record not in declared:
        raise ParityError(
            f"case {case.id} declares no record {options.record!r}{nearest(options.record, declared)};"
            " --sizes makes a new one of that name"
        )
    chosen = {name: batch for name, batch in declared.items() if options.record in (None, name)}
    if options.seed is None:
        return chosen
    return {f"{name}-seed{options.seed}": replace(batch, seed=options.seed) for name, batch in chosen.items()}


def _drawn_batch(options: argparse.Namespace) -> tuple[str, Batch]:
    """Return the batch drawn for the given sizes, and the name of its record."""
    sizes = parse_sizes(options.sizes)
    seed = 0 if options.seed is None else options.seed
    name = f"seed{seed}-{options.sizes.replace(',', '-')}"
    if options.record and Path(options.record).name != options.record:
        raise ParityError(f"--record {options.record}: a name, without a folder; --out says where records go")
    if not options.objects:
        for option in ("steps", "ranks"):
            if getattr(options, option) != 1:
                raise ParityError(f"--{option} goes with --objects: they draw the ground truth that is trained on")
        return options.record or name, Batch(seed=seed, sizes=sizes)
    objects = _parse_objects(options.objects, len(sizes))
    if options.steps < 1:
        raise ParityError(f"--steps {options.steps}: a training record has one step or more")
    _require_ranks(options, len(sizes))
    prefix = TRAINING_PREFIX if options.steps == 1 else f"{TRAJECTORY_PREFIX}-"
    together = f"-{options.ranks}-ranks" if options.ranks > 1 else ""
    record = options.record or f"{prefix}{name}-{options.objects.replace(',', '-')}{together}"
    return record, TrainingBatch(seed=seed, sizes=sizes, objects=objects, steps=options.steps, ranks=options.ranks)


def _require_ranks(options: argparse.Namespace, images: int) -> None:
    """Refuse a number of processes that do not all have an image, or that take more steps than one."""
    most = min(images, MOST_RANKS)
    if not 1 <= options.ranks <= most:
        raise ParityError(f"--ranks {options.ranks}: 1 to {most} processes, as every one needs an image of --sizes")
    if options.ranks > 1 and options.steps != 1:
        raise ParityError("--ranks and --steps: several processes take one step together; leave one of the two out")


def _parse_objects(text: str, images: int) -> tuple[int, ...]:
    """Return how many objects each image gets, from ``3,0``."""
    counts = tuple(int(part) if part.isdecimal() else -1 for part in text.split(","))
    if len(counts) != images or min(counts) < 0 or max(counts) > 1000:
        raise ParityError(f"--objects {text}: give 0 to 1000 for each of the {images} images, such as 3,0")
    return counts


def check(options: argparse.Namespace) -> Verdict:
    """Judge the new engine as the options ask; print, write what was asked for; return the worst of all verdicts."""
    require_place(options.json, "--json")
    require_tf32(options.device, tf32=options.tf32)
    if options.steps < 1:
        raise ParityError(f"--steps {options.steps}: compare 1 step or more")
    fixtures = options.fixtures or default_fixtures()
    cases = [find_case(case_id) for case_id in options.cases] or cases_with(options.stage)
    folders = {case.id: expected_records(fixtures, case.id) for case in cases}
    missing = [case_id for case_id, found in folders.items() if not found]
    if (options.cases and missing) or len(missing) == len(cases):
        raise ParityError(f"{fixtures} holds no record of {missing[0]}: `parity freeze {missing[0]}` makes one")
    alone = sum(map(len, folders.values())) == 1  # what a single record is refused for is a matter of the call
    start, began = time.perf_counter(), time.time()
    results: list[StageResult] = []
    notes: list[str] = []
    environment: dict[str, object] = {**provenance(options.device), "records": {}, "manifests": {}, "checks": {}}
    for case in cases:
        _require_stage(case, options.stage)
        shown: set[str] = set()
        results += _check_case(case, folders[case.id], options, environment, shown, alone=alone)
        if not (options.stage or options.mode or options.dtype):  # all of the case was checked
            notes += without_effect(case, shown)
    if not results:
        raise ParityError(_nothing_to_check(cases[0], options))
    notes += _unlisted(environment["manifests"])
    if options.report_dir:
        environment["limits"] = told((result.case for result in results), fixtures)
    seconds = round(time.perf_counter() - start, 1)
    return _finish(Report(environment, tuple(results), seconds), options, notes, began)


def _unlisted(manifests: object) -> Iterator[str]:
    assert isinstance(manifests, dict)
    unlisted = sorted(name for name, identity in manifests.items() if not identity["listed"])
    if unlisted:
        yield f"note: no {LISTING} lists {listed(unlisted)}: nothing holds their manifests to what was frozen"


def _nothing_to_check(case: Case, options: argparse.Namespace) -> str:
    asked = {"--stage": options.stage, "--mode": options.mode, "--dtype": options.dtype}
    words = " ".join(f"{option} {value}" for option, value in asked.items() if value)
    return f"{words}: no record of {case.id} is checked so; leave one of these options out"


def _require_stage(case: Case, stage: str | None) -> None:
    known = case.all_stage_names()
    if stage is not None and stage not in known:
        raise ParityError(
            f"--stage {stage}: {case.id} has no such stage{nearest(stage, known)}; it has {', '.join(known)}"
        )


def _runs(case: Case, folders: Sequence[Path], options: argparse.Namespace) -> list[tuple[Path, str, str, list[str]]]:
    """Return (record, dtype, mode, stages) of every run that the options ask for."""
    runs = []
    for folder in folders:
        checks = checks_in(case, folder)
        stages = [stage for stage in checks.stages if options.stage in (None, stage)]
        dtypes = [dtype for dtype in checks.dtypes if options.dtype in (None, dtype)]
        modes = [mode for mode in checks.modes if options.mode in (None, mode)]
        runs += [(folder, dtype, mode, stages) for dtype in dtypes for mode in modes if stages]
    return runs


def _check_case(
    case: Case,
    folders: Sequence[Path],
    options: argparse.Namespace,
    environment: dict[str, object],
    shown: set[str],
    *,
    alone: bool,
) -> Iterator[StageResult]:
    """Yield the results of a case; ``shown`` takes the known deviations that explained something."""
    make = partial(Checker, case, device=options.device, steps=options.steps, tf32=options.tf32, shown=shown)
    checker = make()
    records, manifests, recorded = (environment[part] for part in ("records", "manifests", "checks"))
    assert isinstance(records, dict)
    assert isinstance(manifests, dict)
    assert isinstance(recorded, dict)
    runs = _runs(case, folders, options)
    read: dict[Path, Record] = {}
    with tqdm(total=sum(len(run[-1]) for run in runs), desc=case.id, unit="stage", leave=False, disable=None) as bar:
        for folder, dtype, mode, stages in runs:
            if is_missing(folder):
                yield from (missing_record(case, folder, stage, mode, dtype, options.device) for stage in stages)
                bar.update(len(stages))
                continue
            left = list(stages)
            bar.set_postfix_str(f"{folder.name}, {mode}, {dtype}")
            try:
                record = read[folder] = read.get(folder) or Record(folder)
                records[f"{case.id}/{record.id}"] = record.manifest["engines"]
                manifests[f"{case.id}/{record.id}"] = record.identity
                recorded[f"{case.id}/{record.id}"] = record.checks(case).plain()
                for result in checker.check(record, mode=mode, dtype=dtype, stages=stages):
                    bar.update()
                    left.remove(result.stage)
                    yield result
            except Exception as error:
                if isinstance(error, ParityError) and alone:
                    raise
                blank = StageResult(case.id, folder.name, "", mode, dtype, options.device, 0.0, ())
                yield from _unfinished(blank, left, error)
                checker = make()  # nobody knows what the error has left of it
    environment.update(new=checker.fingerprint(), settings=checker.settings)


def _unfinished(blank: StageResult, stages: Sequence[str], error: Exception) -> Iterator[StageResult]:
    """Yield a result for every stage that an error left without one; it is no reason to end a run of many records."""
    said = str(error) if isinstance(error, ParityError) else f"{type(error).__name__}: {str(error).strip()}"
    for number, stage in enumerate(stages):
        yield replace(blank, stage=stage, error=f"not run, after an error in {stages[0]}" if number else said)


def _finish(report: Report, options: argparse.Namespace, notes: Sequence[str], began: float) -> Verdict:
    print_results(report.results)
    for note in notes:
        print(note)
    if options.json:
        write_text(options.json, to_json(report))
    if options.junit:
        from parity.report.junit import junit

        write_text(options.junit, junit(report))
    if options.report_dir:
        from parity.report.publish import publish

        for line in publish(report, options.report_dir, began=began):
            print(line)
    return report.verdict


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
    print(f"\n{conclusion(verdict)}: {passed} of {len(results)} stage checks passed")
