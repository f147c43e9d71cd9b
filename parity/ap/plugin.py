"""pytest's side of full-val AP: options, and the suite that only runs when it is asked for."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import pytest

from parity.ap.asked import MARKER, SUITE, asked_for
from parity.cases.registry import all_cases, find_case
from parity.errors import ParityError

results_key = pytest.StashKey[list[Any]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what ``parity ap`` has too."""
    group = parser.getgroup("parity full_ap", "AP of both engines on COCO val2017: -m full_ap")
    group.addoption("--gpus", type=int, default=0, metavar="N", help="a process on each of N GPUs (default: the CPU)")
    group.addoption("--processes", type=int, default=1, metavar="N", help="how many on the CPU (default: 1)")
    group.addoption("--coco-root", type=Path, metavar="DIR", help="default: data/coco")
    group.addoption("--checkpoint", action="append", default=[], metavar="CASE=FILE", help="the legacy engine's .pth")
    group.addoption("--ap-settings", dest="settings", type=Path, metavar="FILE", help="default: full_ap.toml")
    group.addoption("--ap-dir", type=Path, metavar="DIR", help="where predictions are kept (default: reports/ap)")
    group.addoption("--require-data", action="store_true", help="a case that lacks something fails, not skips")
    group.addoption("--time-limit", type=float, metavar="SECONDS", help="for one request to the legacy engine")


def pytest_configure(config: pytest.Config) -> None:
    """Let ``pytest -m full_ap`` find its suite without being told where it is."""
    config.stash[results_key] = []
    if not asked_for(config):
        return
    if config.getoption("numprocesses", None):
        raise pytest.UsageError("-n: full-val AP shares its images out by itself, over --gpus N or --processes N")
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args = [str(SUITE)]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the suite out of every run that does not ask for it: it may take hours."""
    if asked_for(config):
        return
    left_out = [item for item in items if item.get_closest_marker(MARKER)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test of each case."""
    if "ap_case" not in metafunc.fixturenames:
        return
    wanted = metafunc.config.getoption("case")
    try:
        cases = [find_case(wanted)] if wanted else list(all_cases().values())
    except ParityError as error:
        raise pytest.UsageError(str(error)) from None
    metafunc.parametrize("ap_case", [pytest.param(case, id=case.id) for case in cases])


@pytest.fixture(scope="session")
def ap_settings(request: pytest.FixtureRequest) -> Any:
    """Return the settings that options and ``full_ap.toml`` give."""
    from parity.ap.command import settings_of

    try:
        return settings_of(argparse.Namespace(**vars(request.config.option)))
    except ParityError as error:
        raise pytest.UsageError(str(error)) from None


@pytest.fixture
def ap_result(ap_case: Any, ap_settings: Any, request: pytest.FixtureRequest) -> Any:
    """Return the result of one case, and keep it for the page; skip where the user has to supply something."""
    from parity.ap.full import full_ap
    from parity.ap.subject import Missing, find_subject

    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    capture: Any = request.config.pluginmanager.get_plugin("capturemanager")

    def say(line: str) -> None:
        with capture.global_and_fixture_disabled():
            reporter.write_line(line) if reporter else print(line)

    try:
        subject = find_subject(ap_case, ap_settings)
    except Missing as missing:
        if request.config.getoption("require_data"):
            pytest.fail(f"{missing} (--require-data)", pytrace=False)
        pytest.skip(str(missing))
    try:
        result = full_ap(subject, ap_settings, say=say)
    except ParityError as error:
        pytest.fail(f"{error}\n{error.detail}".strip(), pytrace=False)
    request.config.stash[results_key].append(result)
    return result


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say what was found, and write the page if one was asked for."""
    results = config.stash.get(results_key, [])
    if not results or os.environ.get("RANK", "0") != "0":
        return
    from parity.ap.result import summary

    terminalreporter.section("full-val AP")
    for result in results:
        terminalreporter.write_line(summary(result))
    folder = config.getoption("report_dir")
    if folder:
        from parity.report.ap_section import write_page
        from parity.report.publish import remembered

        for line in (f"report: {write_page(results, folder)}", *remembered(folder)):
            terminalreporter.write_line(line)
