"""Cases from outside the package: found, taken to the worker, and refused in one line where they are wrong."""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import parity.cases
from parity.ap.run import Job
from parity.ap.shard import main, write_plan
from parity.cases.outside import named_folders, offered_folders, outside_files, use_folders
from parity.cases.registry import all_cases, find_case
from parity.engines.host import worker_source
from parity.errors import ParityError

CASE = """
from parity.cases.base import Case
CASES = (Case("{id}", "mine", "mmdet2", "mmdet3", {{}}, 0.0, (), {{}}, (), {{}}),)
"""


@pytest.fixture(autouse=True)
def own_path() -> Iterator[None]:
    before, modules = list(parity.cases.__path__), set(sys.modules)
    yield
    parity.cases.__path__[:] = before
    for name in set(sys.modules) - modules:
        if name.startswith(("parity.cases.", "offering")):
            del sys.modules[name]
    all_cases.cache_clear()


def written(folder: Path, name: str = "my_detector", **fields: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(CASE.format(**{"id": name, **fields}))
    return folder


def test_a_folder_of_cases_stands_beside_the_built_in_ones(tmp_path: Path) -> None:
    use_folders([written(tmp_path / "cases")])
    assert find_case("my_detector").title == "mine"
    assert "ddq_fcn_r50_12e" in all_cases()
    use_folders([tmp_path / "cases"])  # once more does no harm
    assert outside_files() == [tmp_path / "cases" / "my_detector.py"]


def test_a_process_of_full_val_ap_knows_them(tmp_path: Path) -> None:
    folder = written(tmp_path / "cases")
    use_folders([folder])
    write_plan(tmp_path / "plan.json", Job("mmdet3", "my_detector", ""), [], 0, identity="00" * 32)
    parity.cases.__path__[:] = parity.cases.__path__[:1]
    all_cases.cache_clear()
    assert main([str(tmp_path / "plan.json"), "--rank", "0", "--world", "1", "--device", "cpu"]) == 0
    assert find_case("my_detector").title == "mine"


def test_the_worker_gets_the_files_as_the_package_s_own(tmp_path: Path) -> None:
    use_folders([written(tmp_path / "cases")])
    with zipfile.ZipFile(io.BytesIO(worker_source())) as archive:
        assert b"my_detector" in archive.read("parity/cases/my_detector.py")


def test_a_folder_that_is_missing_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"^--cases .*none: no such folder$"):
        use_folders([tmp_path / "none"])


def test_a_file_with_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"ddq_fcn.py has the name of .*cases/ddq_fcn.py: rename it$"):
        use_folders([written(tmp_path / "cases", "ddq_fcn", id="other")])


def test_an_id_that_is_taken_is_refused(tmp_path: Path) -> None:
    use_folders([written(tmp_path / "cases", id="ddq_fcn_r50_12e")])
    with pytest.raises(ParityError, match=r"^case ddq_fcn_r50_12e is declared twice, the second time in my_detector"):
        all_cases()


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = written(tmp_path / "cases")
    (folder / "my_detector.py").write_text("CASES = (nonsense,)")
    use_folders([folder])
    with pytest.raises(ParityError, match=r"^my_detector.py declares no case that can be read: NameError: name 'non"):
        find_case("my_detector")


@pytest.mark.parametrize("declared", ["3", "(1,)", "'ddq'"])
def test_cases_that_are_none_are_refused(tmp_path: Path, declared: str) -> None:
    folder = written(tmp_path / "cases")
    (folder / "my_detector.py").write_text(f"CASES = {declared}")
    use_folders([folder])
    with pytest.raises(ParityError, match=r"^my_detector.py: CASES has to be a tuple of cases"):
        find_case("my_detector")


def test_the_variable_names_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARITY_CASES", f"{tmp_path}/a:{tmp_path}/b")
    assert list(named_folders())[:2] == [tmp_path / "a", tmp_path / "b"]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder on the path with an installed package that offers cases."""
    written(tmp_path / "offering")
    (tmp_path / "offering" / "__init__.py").write_text("")
    info = tmp_path / "offering-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: offering\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[parity.cases]\noffering = offering\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_an_installed_package_may_offer_cases(package: Path) -> None:
    assert list(offered_folders()) == [package / "offering"]


def test_an_entry_point_that_names_no_package_is_told(package: Path) -> None:
    (package / "offering-1.0.dist-info" / "entry_points.txt").write_text("[parity.cases]\nx = nowhere\n")
    with pytest.raises(ParityError, match=r"^entry point x of group parity.cases: nowhere is no package$"):
        list(offered_folders())


def test_the_commands_take_folders(tmp_path: Path, parity_command: Callable[..., tuple[int, str, str]]) -> None:
    status, out, _ = parity_command("cases", "--cases", written(tmp_path / "cases"))
    assert status == 0
    assert "my_detector" in out
    status, _, err = parity_command("cases", "--cases", tmp_path / "none")
    assert (status, err.startswith("parity: --cases ")) == (2, True)
