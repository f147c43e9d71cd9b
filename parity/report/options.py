"""``parity report`` and ``parity diff``: their options, and what they run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from parity.errors import ParityError

PASSED, WORSE = 0, 1
PAGE = Path("reports/latest")


def add_report(commands: Any) -> None:
    """Add ``parity report``."""
    report = commands.add_parser("report", help="make the page of a run, its summaries, or the history of all runs")
    report.add_argument("results", type=Path, nargs="?", metavar="RUN", help="results.json, or the folder of a run")
    report.add_argument("--curves", type=Path, nargs="+", default=[], metavar="FILE", help="loss curves, overlaid")
    report.add_argument(
        "--out", type=Path, metavar="DIR", help=f"write the page there (default: a run's own folder, else {PAGE})"
    )
    report.add_argument("--junit", type=Path, metavar="FILE", help="write the run as JUnit XML")
    report.add_argument("--markdown", type=Path, metavar="FILE", help="write the run as Markdown; - prints it")
    report.add_argument("--history", type=Path, metavar="DIR", help="write the history of all runs in a folder there")
    report.add_argument("--schema", action="store_true", help="print the JSON Schema of results.json")
    report.set_defaults(run=_report)


def add_diff(commands: Any) -> None:
    """Add ``parity diff``."""
    diff = commands.add_parser("diff", help="compare two runs: exit 1 if the second is the worse")
    diff.add_argument("before", type=Path, metavar="RUN_A", help="results.json, or the folder of a run")
    diff.add_argument("after", type=Path, metavar="RUN_B", help="results.json, or the folder of a run")
    diff.add_argument("--json", action="store_true", help="print it as JSON")
    diff.set_defaults(run=_diff)


def _diff(options: argparse.Namespace) -> int:
    from parity.report.diff import diff, to_json, to_text
    from parity.report.results import read_report

    found = diff(read_report(options.before), read_report(options.after))
    print(to_json(found) if options.json else to_text(found), end="")
    return WORSE if found.worse else PASSED


def _report(options: argparse.Namespace) -> int:
    if options.schema:
        from parity.report.schema import schema_text

        print(schema_text(), end="")
        return PASSED
    if options.history:
        print(f"history: {_history(options.history)}")
        if options.results is None and not options.curves:
            return PASSED
    if options.results is None and not options.curves:
        raise ParityError("report: name RESULTS.json, or loss curves with --curves; parity report --help tells more")
    summarised = _summaries(options)
    if options.out or options.curves or not summarised:
        for line in _page(options):
            print(line)
    return PASSED


def _history(folder: Path) -> Path:
    from parity.report.history_page import update_history

    if not folder.is_dir():
        raise ParityError(f"--history {folder}: no such folder; `parity check --report-dir {folder}/NAME` begins one")
    return update_history(folder)


def _summaries(options: argparse.Namespace) -> bool:
    """Write what was asked for beside a page; return whether there was any."""
    if not (options.junit or options.markdown):
        return False
    from parity.report.ap_figures import read_ap
    from parity.report.files import write_text
    from parity.report.junit import junit
    from parity.report.markdown import markdown
    from parity.report.results import read_report

    if options.results is None:
        raise ParityError("report: name the RESULTS.json that --junit and --markdown are to be made of")
    report = read_report(options.results)
    if options.junit:
        write_text(options.junit, junit(report))
    if options.markdown:
        text = markdown(report, ap=read_ap(_run_folder(options.results) or options.results.parent))
        if str(options.markdown) == "-":
            sys.stdout.write(text)
        else:
            write_text(options.markdown, text)
    return True


def _page(options: argparse.Namespace) -> Iterator[str]:
    from parity.report.curves import read_curve
    from parity.report.page import write_curves
    from parity.report.publish import publish
    from parity.report.results import read_report

    curves = [read_curve(path) for path in options.curves]
    if options.results is None:
        yield f"report: {write_curves(curves, options.out or PAGE)}"
    else:
        own = _run_folder(options.results)
        yield from publish(read_report(options.results), options.out or own or PAGE, curves=curves, run_folder=own)


def _run_folder(results: Path) -> Path | None:
    """Return the folder of the run that was named; none for a file elsewhere, as ``parity check --json`` writes it."""
    from parity.report.results import RESULTS

    if results.is_dir():
        return results
    return results.parent if results.name == RESULTS else None
