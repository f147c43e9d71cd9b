"""Environments: what is missing is told in one line, and what is there is not made again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from parity.engines import environment
from parity.engines.environment import check_environment, legacy_python, make_environment
from parity.engines.prepared import MARKER, finish, interpreter
from parity.errors import ParityError


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the interpreter of a virtual environment that holds no package at all."""
    folder = tmp_path_factory.mktemp("bare") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return str(folder / "bin" / "python")


@pytest.fixture
def no_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "no-pyenv"))


def test_an_unknown_engine_is_told_with_all_there_are(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"^unknown engine 'mmdet9'.*ddq_mmdet3rc.*mmdet3$"):
        make_environment("mmdet9", python=None, folder=tmp_path)


@pytest.mark.usefixtures("no_python")
def test_no_fitting_python_is_one_line_that_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"^no Python 3\.8 on PATH, in pyenv or in uv: install one .* --python$"):
        make_environment("ddq_mmdet3rc", python=None, folder=tmp_path / "env")
    assert not (tmp_path / "env").exists()


@pytest.mark.usefixtures("no_python")
def test_if_possible_is_for_a_missing_python_and_for_nothing_else(
    tmp_path: Path, parity_command: Callable[..., tuple[int, str, str]]
) -> None:
    words = ("env", "ddq_mmdet3rc", "--where", tmp_path / "env")
    assert parity_command(*words)[0] == 2
    status, out, err = parity_command(*words, "--if-possible")
    assert (status, err) == (0, "")
    assert out.startswith("ddq_mmdet3rc: not made: no Python 3.8 on PATH")
    assert out.count("\n") == 1
    status, _, err = parity_command(*words, "--if-possible", "--python", "no-such-python")
    assert (status, err) == (2, "parity: --python no-such-python is no Python; Python 3.8 is needed\n")


def test_a_python_of_another_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"^--python .* is Python 3\.\d+; Python 3\.8 is needed$"):
        make_environment("ddq_mmdet3rc", python=sys.executable, folder=tmp_path / "env")


@pytest.mark.parametrize("python", ["no-such-python", "/", "true"])
def test_a_python_that_is_none_is_refused(python: str, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=rf"^--python {python} is no Python; Python 3\.8 is needed$"):
        make_environment("ddq_mmdet3rc", python=python, folder=tmp_path / "env")


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the commands that making an environment runs; they are not run but for the first, by hand."""
    ran: list[str] = []

    def run(command: list[str], engine: str, *keep: int) -> None:
        ran.append(" ".join(command[1:3]))
        if "venv" in command:
            python = Path(command[-1]) / "bin" / "python"
            python.parent.mkdir(parents=True, exist_ok=True)
            python.touch()

    monkeypatch.setattr(environment, "_run", run)
    monkeypatch.setattr(environment, "check_environment", lambda engine, python: "2.0")
    return ran


def version() -> str:
    return "{}.{}".format(*sys.version_info[:2])


@pytest.fixture
def our_python(monkeypatch: pytest.MonkeyPatch) -> str:
    recipe = environment.Recipe(version(), 1, "mmdet3")
    monkeypatch.setitem(environment.RECIPES, "mmdet3", recipe)
    return sys.executable


def test_an_environment_is_made_in_its_steps(steps: list[str], our_python: str, tmp_path: Path) -> None:
    said: list[str] = []
    made = make_environment("mmdet3", python=our_python, folder=tmp_path / "env", say=said.append)
    assert made == tmp_path / "env" / "bin" / "python"
    assert steps == ["-m venv", "-m pip", "-m pip"]
    assert [line[:5] for line in said] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]", "mmdet"]
    assert (tmp_path / "env" / MARKER).is_file()


def test_a_second_call_finds_it_ready_at_once(steps: list[str], our_python: str, tmp_path: Path) -> None:
    make_environment("mmdet3", python=our_python, folder=tmp_path / "env")
    steps.clear()
    said: list[str] = []
    make_environment("mmdet3", python=None, folder=tmp_path / "env", say=said.append)
    assert steps == []
    assert said == [f"mmdet3: ready at {tmp_path / 'env'}"]


@pytest.mark.parametrize("marker", ["", "{", "[]", "null", '{"requirements": "others"}'])
def test_another_marker_makes_it_anew(steps: list[str], our_python: str, tmp_path: Path, marker: str) -> None:
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / MARKER).write_text(marker)
    make_environment("mmdet3", python=our_python, folder=tmp_path / "env", say=lambda line: None)
    assert steps == ["-m venv", "-m pip", "-m pip"]


def test_a_step_that_fails_is_one_line_with_its_output(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; print('the cause'); sys.exit(3)"]
    with pytest.raises(ParityError, match=r"^environment of mmdet3: `-c .*` failed$") as caught:
        environment._run(command, "mmdet3")
    assert "the cause" in caught.value.detail


def test_an_interpreter_without_torch_gives_the_hint(bare_python: str) -> None:
    message = r"^environment of mmdet3 \(.*\) does not work: ModuleNotFoundError: No module named 'torch'; the pinned"
    with pytest.raises(ParityError, match=message) as caught:
        check_environment("mmdet3", bare_python)
    assert "\n" not in str(caught.value)
    assert "Traceback" in caught.value.detail


def with_module(folder: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_an_interpreter_without_mmcv_gives_the_hint(
    bare_python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_module(tmp_path, "torch.py", "", monkeypatch)
    message = r"^environment of mmdet3 .*: No module named 'mmcv'; the pinned versions are in parity/engines/req.*$"
    with pytest.raises(ParityError, match=message):
        check_environment("mmdet3", bare_python)


def test_an_mmcv_without_operators_gives_the_hint(
    bare_python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_module(tmp_path, "torch.py", "", monkeypatch)
    with_module(tmp_path, "mmcv/__init__.py", "", monkeypatch)
    with_module(tmp_path, "mmcv/ops.py", "import mmcv._ext", monkeypatch)
    message = r"^environment of mmdet3 .*mmcv\._ext'; mmcv was built without operators: torch must be installed first"
    with pytest.raises(ParityError, match=message):
        check_environment("mmdet3", bare_python)


def test_an_interpreter_that_does_not_exist_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"^environment of mmdet3 .*no-python"):
        check_environment("mmdet3", str(tmp_path / "no-python"))


def test_a_working_environment_tells_its_torch() -> None:
    import torch

    assert check_environment("mmdet3", sys.executable) == torch.__version__


def test_the_legacy_interpreter_that_is_given_is_taken() -> None:
    assert legacy_python("ddq_mmdet3rc", sys.executable) == sys.executable
    assert legacy_python("ddq_mmdet3rc", "ssh=host//python=py") == "ssh=host//python=py"


def test_a_legacy_interpreter_that_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARITY_ENVS", str(tmp_path))
    with pytest.raises(ParityError, match=r"^--legacy-python nowhere: no such program$"):
        legacy_python("ddq_mmdet3rc", "nowhere")
    with pytest.raises(ParityError, match=r"^engine ddq_mmdet3rc has no environment yet: run `parity env"):
        legacy_python("ddq_mmdet3rc", None)


def test_the_environment_that_was_made_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARITY_ENVS", str(tmp_path))
    python = made(tmp_path / "ddq_mmdet3rc", "ddq_mmdet3rc")
    assert legacy_python("ddq_mmdet3rc", None) == str(python)


def made(folder: Path, engine: str) -> Path:
    python = interpreter(folder)
    python.parent.mkdir(parents=True)
    python.touch()
    finish(folder, engine, environment._fingerprint(engine))
    return python


def test_engines_of_one_set_of_requirements_share_an_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARITY_ENVS", str(tmp_path))
    with pytest.raises(ParityError, match=r"^engine mmdet2 has no environment yet: run `parity env mmdet2`"):
        legacy_python("mmdet2", None)
    python = made(tmp_path / "ddq_mmdet2", "ddq_mmdet2")
    assert legacy_python("mmdet2", None) == str(python)
    (tmp_path / "mmdet2" / "bin").mkdir(parents=True)  # one whose making was interrupted
    assert legacy_python("mmdet2", None) == str(python)
