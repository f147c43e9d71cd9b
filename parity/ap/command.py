"""What ``parity ap`` does, behind its options."""

from __future__ import annotations

import argparse
import os

from parity.ap.full import freeze_legacy, full_ap
from parity.ap.result import ApResult, failure_message, summary
from parity.ap.settings import Settings, read_settings
from parity.ap.subject import Missing, Subject, find_subject
from parity.cases.registry import all_cases, find_case
from parity.errors import ParityError

PASSED, DIVERGED = 0, 1


def ap(options: argparse.Namespace) -> int:
    """Judge the cases that are asked for; return 0 where all are the same, 1 where one is not."""
    settings = settings_of(options)
    leads = os.environ.get("RANK", "0") == "0"
    results: list[ApResult] = []
    for subject in _subjects(options, settings):
        if options.freeze:
            print(f"frozen: {freeze_legacy(subject, settings)}")
            continue
        results.append(full_ap(subject, settings))
        if leads:
            result = results[-1]
            print(summary(result) if result.passes else failure_message(result))
    if results and options.report_dir and leads:
        from parity.report.ap_section import write_page
        from parity.report.publish import remembered

        print(f"report: {write_page(results, options.report_dir)}", *remembered(options.report_dir), sep="\n")
    return PASSED if all(result.passes for result in results) else DIVERGED


def settings_of(options: argparse.Namespace) -> Settings:
    """Return the settings of parsed options."""
    for name, least in (("gpus", 0), ("processes", 1)):
        if getattr(options, name) < least:
            raise ParityError(f"--{name} {getattr(options, name)}: at least {least}")
    return read_settings(
        file=options.settings,
        checkpoints=options.checkpoint,
        legacy_root=options.legacy_root or os.environ.get("PARITY_LEGACY_ROOT"),
        legacy_python=options.legacy_python or os.environ.get("PARITY_LEGACY_PYTHON"),
        coco=options.coco_root,
        folder=options.ap_dir,
        gpus=options.gpus,
        processes=options.processes,
        time_limit=options.time_limit,
    )


def _subjects(options: argparse.Namespace, settings: Settings) -> list[Subject]:
    """Return what can be judged; say what cannot.

    Raises:
        ParityError: a case that was named, or with ``--require-data`` any case, lacks something.
    """
    found = []
    for case in [find_case(name) for name in options.cases] or all_cases().values():
        try:
            found.append(find_subject(case, settings))
        except Missing as missing:
            if options.cases or options.require_data:
                raise ParityError(str(missing)) from None
            print(f"skipped: {missing}")
    return found
