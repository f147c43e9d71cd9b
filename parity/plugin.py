"""pytest's side of parity: options, one test a stage check, results gathered for the report.

Collection reads of a record only what its manifest says of its kind; torch and the engines are imported by the first
test that runs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from parity.ap.asked import asked_for as only_full_ap
from parity.cases.base import Case
from parity.cases.outside import named_folders, use_folders
from parity.cases.registry import cases_with, find_case, nearest
from parity.engines.options import add_sandbox, sandboxed
from parity.errors import ParityError
from parity.provenance import provenance
from parity.records.kinds import DTYPES, MODES, checks_in
from parity.records.locate import default_fixtures, expected_records, is_missing

_RESULT = "parity_result"
_ENVIRONMENT = "parity_environment"
_WORKER = "PYTEST_XDIST_WORKER"
_SUITES = Path(__file__).resolve().parent / "suites"
_FUZZING = _SUITES / "test_fuzz.py"

result_key = pytest.StashKey[dict[str, Any]]()
gathered_key = pytest.StashKey[list[dict[str, Any]]]()
session_key = pytest.StashKey[pytest.Session]()
environment_key = pytest.StashKey[dict[str, Any]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the suites; ``parity check`` has the same ones."""
    group = parser.getgroup("parity", "proving detectors the same")
    group.addoption("--case", metavar="CASE", help="only this case")
    group.addoption("--cases", type=Path, action="append", default=[], metavar="DIR", help="more cases")
    group.addoption("--stage", metavar="STAGE", help="only this stage")
    group.addoption("--mode", choices=MODES, help="only this mode")
    group.addoption("--dtype", choices=DTYPES, help="only this dtype")
    group.addoption("--steps", type=int, default=3, metavar="N", help="compare N steps of a trajectory (default: 3)")
    group.addoption("--device", default="cpu", metavar="cpu|cuda", help="where the new engine runs")
    group.addoption("--tf32", action="store_true", help="allow TF32 on a CUDA device (default: off)")
    # pytest itself has a --fixtures; this one is `parity check --fixtures`.
    group.addoption("--fixtures-dir", type=Path, metavar="DIR", help="where the records are")
    group.addoption("--legacy-root", default=os.environ.get("PARITY_LEGACY_ROOT"), metavar="DIR")
    group.addoption("--legacy-python", default=os.environ.get("PARITY_LEGACY_PYTHON"), metavar="PY")
    add_sandbox(group.addoption)
    group.addoption("--fuzz", type=int, default=0, metavar="N", help="run N drawn situations of each case live, too")
    group.addoption("--fuzz-seed", type=int, default=0, metavar="N", help="draw others (default: 0, always the same)")
    group.addoption("--save-failing", type=Path, metavar="DIR", help="keep the smallest situation that fails")
    group.addoption("--report-dir", type=Path, metavar="DIR", help="write results.json and index.html there")


def pytest_configure(config: pytest.Config) -> None:
    """Give each xdist worker its own GPU, and keep a case's tests together on one worker."""
    config.stash[gathered_key] = []
    config.stash[environment_key] = {}
    try:
        use_folders([*named_folders(), *config.getoption("cases")])
        given = ExitStack()
        given.enter_context(sandboxed(off=config.getoption("no_sandbox"), memory=config.getoption("worker_memory")))
        config.add_cleanup(given.close)
    except ParityError as error:
        raise pytest.UsageError(str(error)) from None
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
    if only_full_ap(session.config):  # its cases need no record
        return
    asked = [Path(argument.split("::")[0]).resolve() for argument in session.config.args]
    if session.config.getoption("steps") < 1:
        raise pytest.UsageError(f"--steps {session.config.getoption('steps')}: compare 1 step or more")
    if session.config.getoption("tf32"):
        from parity.engines.numerics import require_tf32  # only here: it takes torch

        try:
            require_tf32(str(session.config.getoption("device")), tf32=True)
        except ParityError as error:
            raise pytest.UsageError(str(error)) from None
    if any(_SUITES.is_relative_to(path) or path.is_relative_to(_SUITES) for path in asked):
        try:
            list(_parameters(session.config))
        except ParityError as error:
            raise pytest.UsageError(str(error)) from None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the fuzzing unless it is asked for: it takes a legacy engine, and minutes."""
    return True if collection_path == _FUZZING and not config.getoption("fuzz") else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test of each stage, mode and dtype of every record, and one of each case that is fuzzed."""
    if "stage_check" in metafunc.fixturenames:
        wanted = [] if only_full_ap(metafunc.config) else list(_parameters(metafunc.config))
        metafunc.parametrize("stage_check", wanted)
    if "fuzzed_case" in metafunc.fixturenames:
        metafunc.parametrize("fuzzed_case", list(_fuzzed_cases(metafunc.config)))


def _fuzzed_cases(config: pytest.Config) -> Iterator[Any]:
    wanted = config.getoption("case")
    for case in [find_case(wanted)] if wanted else cases_with(None):
        yield pytest.param(case, id=case.id, marks=pytest.mark.xdist_group(case.id))


def _parameters(config: pytest.Config) -> Iterator[Any]:
    option = config.getoption
    device = str(option("device"))
    for case, folder in _chosen_records(config):
        checks = checks_in(case, folder)
        for dtype in _wanted(option("dtype"), checks.dtypes):
            for mode in _wanted(option("mode"), checks.modes):
                for stage in _wanted(option("stage"), checks.stages):
                    name = "-".join((case.id, folder.name, stage, mode, dtype, device))
                    marks = [pytest.mark.xdist_group(case.id)]
                    yield pytest.param((case.id, folder, stage, mode, dtype), id=name, marks=marks)


def _wanted(option: str | None, known: tuple[str, ...]) -> tuple[str, ...]:
    return known if option is None else tuple(name for name in known if name == option)


def _chosen_records(config: pytest.Config) -> Iterator[tuple[Case, Path]]:
    fixtures = config.getoption("fixtures_dir") or default_fixtures()
    wanted = config.getoption("case")
    cases = [find_case(wanted)] if wanted else cases_with(config.getoption("stage"))
    found = [(case, folder) for case in cases for folder in expected_records(fixtures, case.id)]
    if not found:
        raise ParityError(f"{fixtures} holds no record of {wanted or 'any case'}: `parity freeze` makes one")
    for case in cases:
        _require_stage(case, config.getoption("stage"))
    yield from found


def _require_stage(case: Case, stage: str | None) -> None:
    if stage is not None and stage not in case.all_stage_names():
        raise ParityError(f"--stage {stage}: {case.id} has no such stage{nearest(stage, case.all_stage_names())}")


class Runner:
    """Runs stage checks; keeps one checker a case, and the results of a cascade for all of its tests."""

    def __init__(self, device: str, steps: int, *, tf32: bool = False) -> None:
        self.device = device
        self.steps = steps
        self.tf32 = tf32
        self.environment: dict[str, Any] = {**provenance(device), "records": {}, "manifests": {}, "checks": {}}
        self._checkers: dict[str, Any] = {}
        self._records: dict[Path, Any] = {}
        self._cascades: dict[tuple[Path, str], dict[str, Any]] = {}

    def run(self, case_id: str, folder: Path, stage: str, mode: str, dtype: str) -> Any:
        """Return the ``StageResult`` of one check."""
        from parity.check import missing_record

        if is_missing(folder):
            return missing_record(find_case(case_id), folder, stage, mode, dtype, self.device)
        record = self._record(folder)
        checker = self._checker(case_id)
        self.environment["records"][f"{case_id}/{record.id}"] = record.manifest["engines"]
        self.environment["manifests"][f"{case_id}/{record.id}"] = record.identity
        self.environment["checks"][f"{case_id}/{record.id}"] = record.checks(checker.case).plain()
        if mode == "isolated":
            result = next(iter(checker.check(record, mode=mode, dtype=dtype, stages=[stage])))
        else:
            key = (folder, dtype)
            if key not in self._cascades:  # one run from the pixels serves every stage
                self._cascades = {key: {r.stage: r for r in checker.check(record, mode=mode, dtype=dtype)}}
            result = self._cascades[key][stage]
        self.environment.update(new=checker.fingerprint(), settings=checker.settings)
        return result

    def _record(self, folder: Path) -> Any:
        from parity.records.store import Record

        if folder not in self._records:
            self._records = {folder: Record(folder)}
        return self._records[folder]

    def _checker(self, case_id: str) -> Any:
        from parity.check import Checker

        if case_id not in self._checkers:
            case = find_case(case_id)
            self._checkers = {case_id: Checker(case, device=self.device, steps=self.steps, tf32=self.tf32)}
        return self._checkers[case_id]


@pytest.fixture(scope="session")
def parity_runner(request: pytest.FixtureRequest) -> Runner:
    """Return the runner that all stage checks of this process share."""
    option = request.config.getoption
    return Runner(str(option("device")), int(option("steps")), tf32=bool(option("tf32")))


@pytest.fixture
def stage_result(stage_check: tuple[str, Path, str, str, str], parity_runner: Runner, request: Any) -> Any:
    """Run one stage check and leave its result where the report finds it."""
    from parity.report.junit import properties
    from parity.report.results import StageResult, stage_to_json

    case, folder, stage, mode, dtype = stage_check
    try:
        result = parity_runner.run(*stage_check)
    except ParityError as error:
        # It has to reach the report as well: a page must not be green because a check crashed.
        result = StageResult(case, folder.name, stage, mode, dtype, parity_runner.device, 0.0, (), error=str(error))
    request.node.user_properties += properties(result).items()  # pytest's own --junitxml tells them
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
_began = 0.0


def pytest_sessionstart(session: pytest.Session) -> None:
    """Begin with no results: one process may run several sessions."""
    global _began
    _gathered.clear()
    _began = time.perf_counter()
    session.config.stash[session_key] = session


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say at the end what was found, and write the report if one was asked for."""
    if _gathered:
        from parity.report.terminal import summarise

        try:
            began = time.time() - (time.perf_counter() - _began)
            folder = config.getoption("report_dir")
            summarise(_gathered_report(config), terminalreporter, folder=folder, began=began)
        except ParityError as error:  # a report that was asked for and is not there: CI must not go on as if it were
            terminalreporter.write_line(f"parity: {error}", red=True)
            config.stash[session_key].exitstatus = pytest.ExitCode.USAGE_ERROR


def _gathered_report(config: pytest.Config) -> Any:
    """Return what all workers found as one report; it began when the first of them did."""
    from parity.report.results import Report, stage_from_json

    found = [each[_ENVIRONMENT] for each in _gathered]
    environment: dict[str, Any] = {key: value for each in found for key, value in each.items()}
    for part in ("records", "manifests", "checks"):
        environment[part] = {name: value for each in found for name, value in each[part].items()}
    environment["when"] = min(each["when"] for each in found)
    results = tuple(stage_from_json(each[_RESULT]) for each in _gathered)
    if config.getoption("report_dir"):
        from parity.limits.command import told

        fixtures = config.getoption("fixtures_dir") or default_fixtures()
        environment["limits"] = told((result.case for result in results), fixtures)
    return Report(environment, results, round(time.perf_counter() - _began, 1))
