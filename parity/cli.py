"""The ``parity`` command."""

from __future__ import annotations

import argparse
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from parity import __version__
from parity.errors import ParityError

PASSED, DIVERGED, WRONG_CALL = 0, 1, 2


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ParityError(f"{self.prog}: {message}; {self.prog} --help tells more")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all subcommands; each sets ``run`` to its function."""
    parser = _Parser(prog="parity", description="Prove that two detectors are the same, or show where they are not.")
    parser.add_argument("--version", action="version", version=f"parity {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    for add in (_add_cases, _add_env, _add_freeze, _add_check, _add_convert, _add_report):
        add(commands)
    return parser


def _add_cases(commands: Any) -> None:
    cases = commands.add_parser("cases", help="list the detectors that can be proven, and their records")
    cases.add_argument("--fixtures", type=Path, metavar="DIR")
    cases.set_defaults(run=_cases)


def _add_env(commands: Any) -> None:
    env = commands.add_parser("env", help="make an engine's own environment")
    env.add_argument("engine", metavar="ENGINE")
    env.add_argument("--python", metavar="PY", help="the Python to make it with, if none is found")
    env.add_argument("--where", type=Path, metavar="DIR", help="where to make it")
    env.set_defaults(run=_env)


def _add_freeze(commands: Any) -> None:
    freeze = commands.add_parser("freeze", help="record what the legacy engine computes")
    freeze.add_argument("case", metavar="CASE")
    _legacy_options(freeze, required=True)
    freeze.add_argument("--record", metavar="NAME", help="freeze this one of the case's records, or name a new one")
    freeze.add_argument("--seed", type=int, metavar="N", help="seed of weights and drawn images")
    freeze.add_argument("--sizes", metavar="HxW,…", help="draw images of these sizes, such as 128x160,96x150")
    freeze.add_argument("--out", type=Path, metavar="DIR", help="where records go (default: fixtures)")
    freeze.add_argument("--force", action="store_true", help="replace a record that exists")
    freeze.set_defaults(run=_freeze)


def _add_check(commands: Any) -> None:
    check = commands.add_parser("check", help="judge the new engine on frozen records")
    check.add_argument("cases", nargs="*", metavar="CASE")
    check.add_argument("--fixtures", type=Path, metavar="DIR")
    check.add_argument("--stage", metavar="S")
    check.add_argument("--mode", choices=("isolated", "cascade"))
    check.add_argument("--dtype", choices=("fp64", "fp32"))
    check.add_argument("--device", default="cpu", metavar="cpu|cuda")
    check.add_argument("--json", type=Path, metavar="FILE")
    check.add_argument("--report-dir", type=Path, metavar="DIR", help="write results.json and index.html there")
    check.set_defaults(run=_check)


def _add_convert(commands: Any) -> None:
    convert = commands.add_parser("convert", help="carry a checkpoint from the legacy engine to the new one")
    convert.add_argument("case", metavar="CASE")
    convert.add_argument("input", type=Path, metavar="IN.pth")
    convert.add_argument("output", type=Path, metavar="OUT.pth")
    convert.add_argument("--ledger", type=Path, metavar="FILE", help="write where every key came from and went (JSON)")
    convert.add_argument("--reverse", action="store_true", help="from the new engine back to the legacy one")
    convert.add_argument("--ema", action="store_true", help="take the averaged weights, not the trained ones")
    convert.add_argument("--trust-pickle", action="store_true", help="run whatever the file's pickle asks for")
    convert.set_defaults(run=_convert)


def _add_report(commands: Any) -> None:
    report = commands.add_parser("report", help="make the page of a results file")
    report.add_argument("results", type=Path, metavar="RESULTS.json")
    report.add_argument("--out", type=Path, metavar="DIR", default=Path("reports/latest"))
    report.set_defaults(run=_report)


def _legacy_options(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument("--legacy-root", metavar="DIR", required=required, help="the DDQ checkout")
    parser.add_argument("--legacy-python", metavar="PY", help="the legacy interpreter (default: that of `parity env`)")
    parser.add_argument("--time-limit", type=float, metavar="SECONDS", help="for one request to the legacy engine")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, 1 if something diverged, or 2 if the call or the environment is wrong."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        options = build_parser().parse_args(words)
        if not options.debug:  # the engines are old code under a new torch: their warnings are no news
            warnings.simplefilter("ignore")
        return int(options.run(options))
    except ParityError as error:
        print(f"parity: {error}", file=sys.stderr)
        if error.detail:
            print(error.detail, file=sys.stderr)
        if "--debug" in words:
            traceback.print_exc()
        return WRONG_CALL
    except KeyboardInterrupt:
        print("parity: interrupted", file=sys.stderr)
        return WRONG_CALL


# Each command imports what it needs when it runs: `parity cases` need not wait for torch.


def _cases(options: argparse.Namespace) -> int:
    from parity.cases.registry import all_cases
    from parity.records.locate import default_fixtures, find_records

    fixtures = options.fixtures or default_fixtures()
    for case in all_cases().values():
        records = ", ".join(folder.name for folder in find_records(fixtures, case=case.id)) or "none frozen"
        print(
            f"{case.id:28} {case.title} ({case.legacy} -> {case.new}, COCO AP {case.reported_ap}); records: {records}"
        )
    return PASSED


def _env(options: argparse.Namespace) -> int:
    from parity.engines.environment import make_environment

    make_environment(options.engine, python=options.python, folder=options.where)
    return PASSED


def _freeze(options: argparse.Namespace) -> int:
    from parity.commands import freeze

    for folder in freeze(options):
        print(f"frozen: {folder}")
    return PASSED


def _check(options: argparse.Namespace) -> int:
    from parity.commands import check

    return PASSED if check(options) else DIVERGED


def _convert(options: argparse.Namespace) -> int:
    from parity.weights.convert_command import convert_file

    print("\n".join(convert_file(options)))
    return PASSED


def _report(options: argparse.Namespace) -> int:
    from parity.report.page import write_report
    from parity.report.results import read_report

    print(f"report: {write_report(read_report(options.results), options.out)}")
    return PASSED


if __name__ == "__main__":
    sys.exit(main())
