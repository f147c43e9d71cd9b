"""Requirements are locked: of every package, the files that may be installed are named by their hashes."""

from __future__ import annotations

import re
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from parity.engines import environment
from parity.engines.environment import install
from parity.errors import ParityError

REQUIREMENTS = Path(environment.__file__).parent / "requirements"
ROOT = Path(__file__).parents[1]
PINS = [*REQUIREMENTS.glob("*.in"), *(ROOT / ".ci").glob("*.in"), ROOT / "requirements-dev.in"]


@pytest.mark.parametrize("pins", PINS, ids=lambda path: path.stem)
def test_every_pin_is_locked_by_the_hashes_of_its_files(pins: Path) -> None:
    wanted = [Requirement(line) for line in pins.read_text().splitlines() if line and not line.startswith("#")]
    locked = re.split(r"\n(?=\S)", pins.with_suffix(".txt").read_text().strip())
    found: dict[str, list[str]] = {}
    for entry in locked:
        pin, *hashes = entry.split("\\\n")
        assert hashes, entry
        assert all(re.fullmatch(r" *--hash=sha256:[0-9a-f]{64} ?", line) for line in hashes), entry
        match = re.fullmatch(r"([\w.-]+)==([^ ;]+)( ;.*)? ", pin)
        assert match, pin
        name, version = match.group(1, 2)
        found.setdefault(canonicalize_name(name), []).append(version)
    for requirement in wanted:
        versions = found[canonicalize_name(requirement.name)]
        assert all(version in requirement.specifier for version in versions), requirement


def test_torch_is_of_another_index_where_there_is_no_build_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def run(command: list[str], engine: str, *keep: int) -> None:
        assert "--require-hashes" in command
        ran.append(Path(command[-1]).name)
        if ran[-1] == refused:
            raise ParityError("a step failed", detail=detail)

    monkeypatch.setattr(environment, "_run", run)
    refused, detail = "mmdet3-torch-cpu.txt", "ERROR: No matching distribution found for torch==2.13.0+cpu\n"
    install("mmdet3", "python", lambda line: None)
    assert ran == ["mmdet3-build.txt", "mmdet3-torch-cpu.txt", "mmdet3-torch.txt", "mmdet3.txt"]
    detail = "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.\n"
    with pytest.raises(ParityError, match="a step failed"):
        install("mmdet3", "python", lambda line: None)
    refused, detail = "mmdet3-torch.txt", "No matching distribution found"
    ran.clear()
    install("mmdet3", "python", lambda line: None)
    assert ran == ["mmdet3-build.txt", "mmdet3-torch-cpu.txt", "mmdet3.txt"]


def test_a_file_that_is_not_the_one_locked_is_not_installed(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "toy-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("toy.py", "")
        wheel.writestr("toy-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
        wheel.writestr("toy-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("toy-1.0.dist-info/RECORD", "")
    (tmp_path / "toy.txt").write_text(f"toy==1.0 --hash=sha256:{'0' * 64}\n")
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "--find-links", str(tmp_path)]
    with pytest.raises(ParityError) as caught:
        environment._run([*pip, "--require-hashes", "-r", str(tmp_path / "toy.txt")], "mmdet3")
    assert "DO NOT MATCH THE HASHES" in caught.value.detail
