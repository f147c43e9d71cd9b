"""What a user may say about the sandbox of workers, and what is said of it."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from parity.engines import confine, sandbox
from parity.engines.options import sandboxed
from parity.engines.sandbox import MEMORY, OFF, found, machine_memory, parsed_size
from parity.errors import ParityError


@pytest.fixture(autouse=True)
def wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a sandbox wanted, whatever the other tests run with."""
    monkeypatch.delenv(OFF, raising=False)


def test_options_hold_as_long_as_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(OFF, raising=False)
    monkeypatch.setenv(MEMORY, "3G")
    with sandboxed(off=True, memory="2G"):
        box = sandbox.sandbox(tmp_path, tmp_path, device="cuda")
        assert box.memory == 2 << 30
        assert box.environment({"GITHUB_TOKEN": "a"}) == {"GITHUB_TOKEN": "a"}
        assert box.descriptors == ()
    assert OFF not in os.environ
    assert os.environ[MEMORY] == "3G"


def test_memory_is_that_of_the_machine_but_on_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(MEMORY, raising=False)
    assert sandbox.sandbox(tmp_path, tmp_path, device="cuda").memory == 0
    assert sandbox.sandbox(tmp_path, tmp_path, device="cpu").memory == (
        machine_memory() if sys.platform == "linux" else 0
    )


@pytest.mark.parametrize("text", ["", "-1", "0", "16 Q", "nan", "1e3", "9" * 400, "9999999T"])
def test_a_memory_that_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ParityError, match=r"^--worker-memory .*: give a size, such as 16G$"):
        parsed_size(text)


def test_a_wrong_memory_ends_the_command(parity_command: Callable[..., tuple[int, str, str]]) -> None:
    status, _, err = parity_command("freeze", "fcos_r50_1x", "--worker-memory", "much")
    assert (status, err) == (2, "parity: --worker-memory much: give a size, such as 16G\n")


def test_what_a_worker_sees_is_what_is_told() -> None:
    assert found({"network": 1, "write": 1, "memory": -1}) == "network, writes wherever its user may"


def test_the_script_needs_nothing_but_python() -> None:
    tree = ast.parse(Path(confine.__file__).read_text())
    named = {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    named |= {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    assert named <= set(sys.stdlib_module_names)
