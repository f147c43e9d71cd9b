"""The ``parity`` command."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from parity import __version__
from parity.ap.options import add_ap
from parity.bisect.options import add_bisect
from parity.cases.outside import named_folders, use_folders
from parity.clusters.options import add_jobs, add_submit
from parity.coco.options import add_coco
from parity.engines.options import add_legacy, add_sandbox, sandboxed
from parity.errors import ParityError
from parity.report.options import add_diff, add_report
from parity.telling import WRONG_CALL, failed, prepare_streams, wrong_call

PASSED, DIVERGED, INCONCLUSIVE = 0, 1, 3


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ParityError(f"{self.prog}: {message}; {self.prog} --help tells more")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all subcommands; each sets ``run`` to its function."""
    parser = _Parser(prog="parity", description="Prove that two detectors are the same, or show where they are not.")
    parser.add_argument("--version", action="version", version=f"parity {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    for add in (
        _add_cases,
        _add_env,
        _add_new_case,
        _add_freeze,
        _add_check,
        _add_locate,
        _add_convert,
        _add_train,
        add_coco,
        add_ap,
        add_submit,
        add_jobs,
        _add_mutate,
        _add_fuzz,
        add_report,
        add_diff,
        add_bisect,
    ):
        add(commands)
    for name in ("freeze", "check", "locate"):
        help_text = "other engines than the case's own: the truth first"
        commands.choices[name].add_argument("--pair", nargs=2, metavar=("OLD", "NEW"), help=help_text)
    for name in ("freeze", "check", "locate", "new-case", "mutate", "fuzz", "ap"):
        add_sandbox(commands.choices[name].add_argument)
    for command in commands.choices.values():
        command.add_argument(
            "--cases", dest="case_folders", type=Path, action="append", default=[], metavar="DIR", help="more cases"
        )
    return parser


def _add_cases(commands: Any) -> None:
    cases = commands.add_parser("cases", help="list the detectors that can be proven, and their records")
    cases.add_argument("--fixtures", type=Path, metavar="DIR")
    help_text = "tell which record binds each top-k, threshold and limit of these cases (default: all with records)"
    cases.add_argument("--coverage", nargs="*", metavar="CASE", help=help_text)
    cases.set_defaults(run=_cases)


def _add_env(commands: Any) -> None:
    env = commands.add_parser("env", help="make an engine's own environment")
    env.add_argument("engine", metavar="ENGINE")
    env.add_argument("--python", metavar="PY", help="the Python to make it with, if none is found")
    env.add_argument("--where", type=Path, metavar="DIR", help="where to make it")
    env.add_argument("--if-possible", action="store_true", help="without a fitting Python say so, and succeed")
    env.set_defaults(run=_env)


def _add_new_case(commands: Any) -> None:
    new = commands.add_parser("new-case", help="draft the file of a case by looking at both engines' models")
    new.add_argument("name", metavar="NAME")
    new.add_argument("--legacy-config", required=True, metavar="A.py", help="a file, or a stock one by its name")
    new.add_argument("--new-config", required=True, metavar="B.py", help="a file, or a stock one by its name")
    new.add_argument("--checkpoint", type=Path, metavar="C.pth", help="the legacy model's weights")
    new.add_argument(
        "--new-checkpoint", type=Path, metavar="D.pth", help="the same, converted by others: match by value"
    )
    new.add_argument("--sizes", metavar="HxW,…", help="look at the models with images of these sizes")
    new.add_argument("--trust-pickle", action="store_true", help="run whatever a checkpoint's pickle asks for")
    new.add_argument("--legacy-engine", default="mmdet2", metavar="ENGINE")
    new.add_argument("--force", action="store_true", help="replace a file that exists")
    add_legacy(new)
    new.set_defaults(run=_new_case)


def _add_freeze(commands: Any) -> None:
    freeze = commands.add_parser("freeze", help="record what the legacy engine computes")
    freeze.add_argument("case", metavar="CASE")
    add_legacy(freeze)
    freeze.add_argument("--record", metavar="NAME", help="freeze this one of the case's records, or name a new one")
    help_text = "with --record recipe: add this stage to the record, leave the rest of it"
    freeze.add_argument("--stage", metavar="S", help=help_text)
    freeze.add_argument("--seed", type=int, metavar="N", help="seed of weights and drawn images")
    freeze.add_argument("--sizes", metavar="HxW,…", help="draw images of these sizes, such as 128x160,96x150")
    freeze.add_argument("--objects", metavar="N,…", help="a training record: draw so many boxes in each image")
    freeze.add_argument("--steps", type=int, default=1, metavar="N", help="a training record: a trajectory of N steps")
    freeze.add_argument("--ranks", type=int, default=1, metavar="N", help="a training record: N processes together")
    freeze.add_argument("--out", type=Path, metavar="DIR", help="where records go (default: fixtures)")
    freeze.add_argument("--noise-only", action="store_true", help="measure the noise of records anew, keep their truth")
    freeze.add_argument("--batches", type=int, metavar="N", help="dump N batches of the training loader instead")
    freeze.add_argument("--engine", choices=("legacy", "new"), default="legacy", help="whose loader (with --batches)")
    _data_options(freeze)
    freeze.add_argument("--force", action="store_true", help="replace a record that exists")
    freeze.set_defaults(run=_freeze)


def _add_check(commands: Any) -> None:
    check = commands.add_parser("check", help="judge the new engine on frozen records")
    check.add_argument("cases", nargs="*", metavar="CASE")
    check.add_argument("--fixtures", type=Path, metavar="DIR")
    check.add_argument("--stage", metavar="S")
    check.add_argument("--mode", choices=("isolated", "cascade"))
    check.add_argument("--dtype", choices=("fp64", "fp32"))
    check.add_argument("--steps", type=int, default=3, metavar="N", help="compare N steps of a trajectory (default: 3)")
    check.add_argument("--device", default="cpu", metavar="cpu|cuda")
    check.add_argument("--tf32", action="store_true", help="allow TF32 on a CUDA device (default: off)")
    check.add_argument("--json", type=Path, metavar="FILE")
    check.add_argument("--junit", type=Path, metavar="FILE", help="write the run as JUnit XML")
    check.add_argument("--report-dir", type=Path, metavar="DIR", help="write results.json and index.html there")
    check.set_defaults(run=_check)


def _add_locate(commands: Any) -> None:
    locate = commands.add_parser("locate", help="name the first module that differs inside a stage")
    locate.add_argument("case", metavar="CASE")
    locate.add_argument("--stage", required=True, metavar="S")
    locate.add_argument("--record", metavar="NAME", help="the batch to run (default: the case's first)")
    locate.add_argument("--json", type=Path, metavar="FILE", help="a run's page shows a locate….json in its folder")
    add_legacy(locate)
    locate.set_defaults(run=_locate)


def _add_convert(commands: Any) -> None:
    convert = commands.add_parser("convert", help="carry a checkpoint from the legacy engine to the new one")
    convert.add_argument("case", metavar="CASE")
    convert.add_argument("input", type=Path, metavar="IN.pth")
    convert.add_argument("output", type=Path, metavar="OUT.pth")
    convert.add_argument("--ledger", type=Path, metavar="FILE", help="write where every key came from and went (JSON)")
    convert.add_argument("--reverse", action="store_true", help="from the new engine back to the legacy one")
    convert.add_argument("--ema", action="store_true", help="take the averaged weights, not the trained ones")
    convert.add_argument("--ema-from", default="", metavar="PLACE", help="of several averages, those of PLACE")
    convert.add_argument("--trust-pickle", action="store_true", help="run whatever the file's pickle asks for")
    convert.set_defaults(run=_convert)


def _add_mutate(commands: Any) -> None:
    mutate = commands.add_parser("mutate", help="measure the harness: plant bugs in the new engine, see what is caught")
    mutate.add_argument("cases", nargs="*", metavar="CASE")
    mutate.add_argument("--fixtures", type=Path, metavar="DIR")
    mutate.add_argument("--from", dest="source", type=Path, metavar="FILE.py", help="plant the MUTANTS of this file")
    mutate.add_argument("--mutant", default="*", metavar="GLOB", help="plant those whose id matches")
    mutate.add_argument("--select", metavar="NAME", help="plant a named selection: ci")
    mutate.add_argument("--harness-only", action="store_true", help="do not judge as people do, too: faster")
    mutate.add_argument("--benign", action="store_true", help="make changes that must not raise an alarm instead")
    mutate.add_argument(
        "--smallest", type=int, default=0, metavar="N", help="with --benign: only the N smallest records"
    )
    mutate.add_argument("--jobs", type=int, default=1, metavar="N", help="N cases at a time (default: 1)")
    add_legacy(mutate)
    mutate.add_argument("--json", type=Path, metavar="FILE")
    mutate.add_argument("--read", nargs="+", type=Path, metavar="FILE.json", help="run nothing, read what was written")
    mutate.add_argument("--page", type=Path, metavar="FILE.md", help="with --read: write the page of all outcomes")
    mutate.set_defaults(run=_mutate)


def _add_fuzz(commands: Any) -> None:
    fuzz = commands.add_parser("fuzz", help="draw situations and run both engines live until they differ")
    fuzz.add_argument("case", metavar="CASE")
    fuzz.add_argument("--examples", type=int, default=50, metavar="N", help="how many situations (default: 50)")
    fuzz.add_argument("--seed", type=int, default=0, metavar="N", help="draw others (default: 0, always the same ones)")
    fuzz.add_argument("--kind", choices=("inference", "training"), help="default: both, where training is declared")
    fuzz.add_argument("--dtype", choices=("fp64", "fp32"), default="fp64", help="fp32: in float32 as well; dearer")
    fuzz.add_argument("--save-failing", type=Path, metavar="DIR", help="keep the smallest that fails, as a record")
    fuzz.add_argument("--situation", type=Path, metavar="FILE.json", help="draw none: run one that was kept")
    add_legacy(fuzz)
    fuzz.set_defaults(run=_fuzz)


def _add_train(commands: Any) -> None:
    train = commands.add_parser("train", help="train with the published configuration of either engine")
    train.add_argument("case", metavar="CASE")
    train.add_argument("--engine", choices=("legacy", "new"), required=True)
    train.add_argument(
        "--gpus", type=int, default=8, metavar="N", help="0 trains on the CPU (default: 8, as published)"
    )
    train.add_argument("--resume", action="store_true", help="go on from the last checkpoint in the work folder")
    train.add_argument("--offline", action="store_true", help="download nothing: what is not here is named")
    train.add_argument("--work-dir", type=Path, metavar="DIR", help="default: work_dirs/CASE-ENGINE")
    train.add_argument("--batches", type=Path, metavar="DIR", help="train on frozen batches instead")
    _data_options(train)
    train.add_argument("--seed", type=int, metavar="N")
    train.add_argument("--max-steps", type=int, default=0, metavar="N", help="end after N steps, without validation")
    add_legacy(train, timed=False)
    train.set_defaults(run=_train)


def _data_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="COCO (default: data/coco, as published)")
    parser.add_argument(
        "--cfg-option", action="append", default=[], metavar="K=V", help="change the config; repeatable"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status.

    0 all passes, 1 something diverged, 2 the call or the environment is wrong, 3 nothing diverged but something that
    was asked for could not be compared.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    prepare_streams()
    try:
        options = build_parser().parse_args(words)
        if not options.debug:  # the engines are old code under a new torch: their warnings are no news
            warnings.simplefilter("ignore")
        use_folders([*named_folders(), *options.case_folders])
        if getattr(options, "pair", None):
            _use_pair(options)
        with sandboxed(off=getattr(options, "no_sandbox", False), memory=getattr(options, "worker_memory", None)):
            return int(options.run(options))
    except ParityError as error:
        return wrong_call(str(error), debug=debug, detail=error.detail)
    except KeyboardInterrupt:
        print("parity: interrupted", file=sys.stderr)
        return WRONG_CALL
    except Exception as error:  # Python's own status for it is 1, which here says that something diverged
        return failed(error, debug=debug)


def _use_pair(options: argparse.Namespace) -> None:
    """Let the cases that are named be those of the two engines."""
    from parity.cases.pairs import paired_id

    if isinstance(getattr(options, "case", None), str):
        options.case = paired_id(options.case, *options.pair)
    else:
        if not options.cases:
            raise ParityError("--pair: name the cases to check")
        options.cases = [paired_id(case, *options.pair) for case in options.cases]


# Each command imports what it needs when it runs: `parity cases` need not wait for torch.


def _cases(options: argparse.Namespace) -> int:
    from parity.cases.registry import all_cases
    from parity.records.locate import default_fixtures, find_records

    fixtures = options.fixtures or default_fixtures()
    if options.coverage is not None:
        return _coverage(options.coverage, fixtures)
    for case in all_cases().values():
        records = ", ".join(folder.name for folder in find_records(fixtures, case=case.id)) or "none frozen"
        print(
            f"{case.id:28} {case.title} ({case.legacy} -> {case.new}, COCO AP {case.reported_ap}); records: {records}"
        )
    return PASSED


def _coverage(cases: Sequence[str], fixtures: Path) -> int:
    from parity.limits.command import covered, lines, status

    found = []
    for coverage in covered(cases, fixtures):
        found.append(coverage)
        print("\n".join(lines(coverage)), flush=True)
    return status(found)


def _env(options: argparse.Namespace) -> int:
    from parity.engines.environment import NoFittingPython, make_environment

    try:
        make_environment(options.engine, python=options.python, folder=options.where)
    except NoFittingPython as missing:
        if not options.if_possible:
            raise
        print(f"{options.engine}: not made: {missing}")
    return PASSED


def _new_case(options: argparse.Namespace) -> int:
    from parity.drafting.command import new_case

    for line in new_case(options):
        print(line)
    return PASSED


def _freeze(options: argparse.Namespace) -> int:
    _require_freeze(options)
    if options.batches is not None:
        from parity.training.freeze_batches import freeze_batches

        print(f"frozen: {freeze_batches(options)}")
        return PASSED
    from parity.commands import freeze, measure_noise

    for folder in measure_noise(options) if options.noise_only else freeze(options):
        print(f"{'noise measured' if options.noise_only else 'frozen'}: {folder}")
    return PASSED


def _require_freeze(options: argparse.Namespace) -> None:
    """Refuse options that would be left unread: those of records, and those of a loader's batches."""
    record = {
        "--record": options.record,
        "--stage": options.stage,
        "--sizes": options.sizes,
        "--objects": options.objects,
    }
    loader = {"--engine": options.engine == "new", "--data-root": options.data_root, "--cfg-option": options.cfg_option}
    if options.batches is not None:
        alone = {"--steps": options.steps != 1, "--ranks": options.ranks != 1, "--noise-only": options.noise_only}
        unread, other = {**record, **alone}, "without --batches"
    else:
        unread, other = loader, "with --batches"
    given = [option for option, value in unread.items() if value]
    if given:
        raise ParityError(f"{given[0]} goes {other} only; parity freeze --help tells which options belong together")


def _check(options: argparse.Namespace) -> int:
    from parity.commands import check
    from parity.compare.verdicts import Verdict

    verdict = check(options)
    if verdict is Verdict.INCONCLUSIVE:
        return INCONCLUSIVE
    return PASSED if verdict.passes else DIVERGED


def _locate(options: argparse.Namespace) -> int:
    from parity.locate.command import locate

    lines = []
    for line in locate(options):
        lines.append(line)
        print(line)
    if options.json:
        from parity.report.located import write_located

        write_located(options.json, case=options.case, stage=options.stage, lines=lines)
    return PASSED


def _convert(options: argparse.Namespace) -> int:
    from parity.weights.convert_command import convert_file

    print("\n".join(convert_file(options)))
    return PASSED


def _mutate(options: argparse.Namespace) -> int:
    from parity.mutants.command import mutate

    return PASSED if mutate(options) else DIVERGED


def _fuzz(options: argparse.Namespace) -> int:
    from parity.fuzz.command import fuzz

    return PASSED if fuzz(options) else DIVERGED


def _train(options: argparse.Namespace) -> int:
    from parity.training.command import train

    print(f"loss curve: {train(options)}")
    return PASSED


if __name__ == "__main__":
    sys.exit(main())
