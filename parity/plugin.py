"""pytest's side of parity: options, one test a stage check, results gathered for the report.

Collection reads folder names only; torch and the engines are imported by the first test that runs.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from parity.cases.base import Case
from parity.cases.registry import cases_with, find_case, nearest
from parity.errors import ParityError
from parity.records.locate import default_fixtures, find_records

MODES = ("isolated", "cascade")
DTYPES = ("fp64", "fp32")
_RESULT = "parity_result"
_ENVIRONMENT = "parity_environment"
_WORKER = "PYTEST_XDIST_WORKER"
_SUITES = Path(__file__).resolve().parent / "suites"

result_key = pytest.StashKey[dict[str, Any]]()
gathered_key = pytest.StashKey[list[dict[str, Any]]]()
environment_key = pytest.StashKey[dict[str, Any]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the suites; ``parity check`` has the same ones."""
    group = parser.getgroup("parity", "proving detectors the same")
    group.addoption("--case", metavar="CASE", help="only this case")
    group.addoption("--stage", metavar="STAGE", help="only this stage")
    group.addoption("--mode", choices=MODES, help="only this mode")
    group.addoption("--dtype", choices=DTYPES, help="only this dtype")
    group.addoption("--device", default="cpu", metavar="cpu|cuda", help="where the new engine runs")
    # pytest itself has a --fixtures; this one is `parity check --fixtures`.
    group.addoption("--fixtures-dir", type=Path, metavar="DIR", help="where the records are")
    group.addoption("--legacy-root", default=os.environ.get("PARITY_LEGACY_ROOT"), metavar="DIR")
    group.addoption("--legacy-python", default=os.environ.get("PARITY_LEGACY_PYTHON"), metavar="PY")
    group.addoption("--report-dir", type=Path, metavar="DIR", help="write results.json and index.html there")


def pytest_configure(config: pytest.Config) -> None:
    """Give each xdist worker its own GPU, and keep a case's tests together on one worker."""
    config.stash[gathered_key] = []
    config.stash[environment_key] = {}
    worker = os.environ.get(_WORKER, "")
    if worker and config.getoption("device") == "cuda":
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        visible = [gpu for gpu in gpus if gpu] or [str(i) for i in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]
        if visible:
            os.environ["CUDA_VISIBLE_DEVICES"] = visible[int(worker.removeprefix("gw")) % len(visible)]
    if getattr(config.option, "dist", "no") == "load":
        config.option.dist = "loadgroup"


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Refuse options that name nothing before the suites are collected: in there it would be a collection error."""
    asked = [Path(argument.split("::")[0]).resolve() for argument in session.config.args]
    if any(_SUITES.is_relative_to(path) or path.is_relative_to(_SUITES) for path in asked):
        try:
            list(_parameters(session.config))
        except ParityError as error:
            raise pytest.UsageError(str(error)) from None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test of each stage, mode and dtype of every record."""
    if "stage_check" not in metafunc.fixturenames:
        return
    metafunc.parametrize("stage_check", list(_parameters(metafunc.config)))


def _parameters(config: pytest.Config) -> Iterator[Any]:
    option = config.getoption
    device = str(option("device"))
    for case, folder in _chosen_records(config):
        for dtype in [option("dtype")] if option("dtype") else DTYPES:
            for mode in [option("mode")] if option("mode") else MODES:
                for stage in _chosen_stages(case, option("stage")):
                    name = "-".join((case.id, folder.name, stage, mode, dtype, device))
                    marks = [pytest.mark.xdist_group(case.id)]
                    yield pytest.param((case.id, folder, stage, mode, dtype), id=name, marks=marks)


def _chosen_records(config: pytest.Config) -> Iterator[tuple[Case, Path]]:
    fixtures = config.getoption("fixtures_dir") or default_fixtures()
    wanted = config.getoption("case")
    cases = [find_case(wanted)] if wanted else cases_with(config.getoption("stage"))
    found = [(case, folder) for case in cases for folder in find_records(fixtures, case=case.id)]
    if not found:
        raise ParityError(f"{fixtures} holds no record of {wanted or 'any case'}: `parity freeze` makes one")
    yield from found


def _chosen_stages(case: Case, wanted: str | None) -> list[str]:
    stages = list(case.stage_names())
    if wanted is not None and wanted not in stages:
        raise ParityError(f"--stage {wanted}: {case.id} has no such stage{nearest(wanted, stages)}")
    return [wanted] if wanted else stages


class Runner:
    """Runs stage checks; keeps one checker a case, and the results of a cascade for all of its tests."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.environment: dict[str, Any] = {"device": device, "records": {}}
        self._checkers: dict[str, Any] = {}
        self._records: dict[Path, Any] = {}
        self._cascades: dict[tuple[Path, str], dict[str, Any]] = {}

    def run(self, case_id: str, folder: Path, stage: str, mode: str, dtype: str) -> Any:
        """Return the ``StageResult`` of one check."""
        record = self._record(folder)
        checker = self._checker(case_id)
        self.environment["records"][f"{case_id}/{record.id}"] = record.manifest["engines"]
        if mode == "isolated":
            result = next(iter(checker.check(record, mode=mode, dtype=dtype, stages=[stage])))
        else:
            key = (folder, dtype)
            if key not in self._cascades:  # one run from the pixels serves every stage
                self._cascades = {key: {r.stage: r for r in checker.check(record, mode=mode, dtype=dtype)}}
            result = self._cascades[key][stage]
        self.environment["new"] = checker.fingerprint()
        return result

    def _record(self, folder: Path) -> Any:
        from parity.records.store import Record

        if folder not in self._records:
            self._records = {folder: Record(folder)}
        return self._records[folder]

    def _checker(self, case_id: str) -> Any:
        from parity.check import Checker

        if case_id not in self._checkers:
            self._checkers = {case_id: Checker(find_case(case_id), device=self.device)}
        return self._checkers[case_id]


@pytest.fixture(scope="session")
def parity_runner(request: pytest.FixtureRequest) -> Runner:
    """Return the runner that all stage checks of this process share."""
    return Runner(str(request.config.getoption("device")))


@pytest.fixture
def stage_result(stage_check: tuple[str, Path, str, str, str], parity_runner: Runner, request: Any) -> Any:
    """Run one stage check and leave its result where the report finds it."""
    from parity.report.results import StageResult, stage_to_json

    case, folder, stage, mode, dtype = stage_check
    try:
        result = parity_runner.run(*stage_check)
    except ParityError as error:
        # It has to reach the report as well: a page must not be green because a check crashed.
        result = StageResult(case, folder.name, stage, mode, dtype, parity_runner.device, 0.0, (), error=str(error))
    request.node.stash[result_key] = {
        _RESULT: stage_to_json(result),
        _ENVIRONMENT: parity_runner.environment,
    }
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Attach the result to pytest's own report: under xdist that is what travels to the controller."""
    report = yield
    if report.when == "call":
        report.parity = item.stash.get(result_key, None)
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Gather results in the controlling process."""
    found = getattr(report, "parity", None)
    if found and _WORKER not in os.environ:
        _gathered.append(found)


_gathered: list[dict[str, Any]] = []


def pytest_sessionstart() -> None:
    """Begin with no results: one process may run several sessions."""
    _gathered.clear()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say at the end what was found, and write the report if one was asked for."""
    if not _gathered:
        return
    from parity.report.results import Report, stage_from_json

    environment: dict[str, Any] = {"records": {}}
    for found in _gathered:
        environment = {
            **environment,
            **found[_ENVIRONMENT],
            "records": environment["records"] | found[_ENVIRONMENT]["records"],
        }
    results = [stage_from_json(found[_RESULT]) for found in _gathered]
    terminalreporter.section("parity")
    first = next((result for result in results if not result.verdict.passes), None)
    passed = sum(result.verdict.passes for result in results)
    flips = sum(decision.flips for result in results for decision in result.decisions)
    terminalreporter.write_line(f"{passed} of {len(results)} stage checks the same; {flips} flips, each judged")
    if first is not None:
        terminalreporter.write_line(f"first diverging stage: {first.id}", bold=True, red=True)
    folder = config.getoption("report_dir")
    if folder:
        from parity.report.page import write_report

        terminalreporter.write_line(f"report: {write_report(Report(environment, tuple(results)), folder)}")
