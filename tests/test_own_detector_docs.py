"""docs/own-detector.md is run as it stands: every command, with the output that it shows."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

import parity.cases
from parity.cases.registry import all_cases

PAGE = Path(__file__).resolve().parents[1] / "docs" / "own-detector.md"


def blocks(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield every command of the page with the lines that it shows, and files as ``(name, lines)``."""
    for kind, content in re.findall(r"```(console|python)\n(.*?)```", text, flags=re.S):
        first, *rest = content.rstrip("\n").split("\n")
        yield (first if kind == "console" else first.replace("# ", "file ")), rest


def absent(shown: list[str], printed: str) -> list[str]:
    """Return the lines shown that were not printed; ``…`` stands for anything."""
    lines = [line.strip() for line in printed.splitlines()]
    patterns = [line.strip().replace("[", "[[]").replace("…", "*") for line in shown]
    return [pattern for pattern in patterns if not any(fnmatchcase(line, pattern) for line in lines)]


def test_a_line_that_is_not_printed_is_found() -> None:
    assert absent(["same: … of 20", "not so [0, 1]"], "same: 20 of 20\nso [0, 1]") == ["not so [[]0, 1]"]
    assert list(blocks("```console\n$ parity cases\nout\n```\n```python\n# a.py\nx = 1\n```")) == [
        ("$ parity cases", ["out"]),
        ("file a.py", ["x = 1"]),
    ]


@pytest.mark.legacy
@pytest.mark.xdist_group("live")
def test_the_page_is_true(
    mmdet2: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    parity_command: Callable[..., tuple[int, str, str]],
) -> None:
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "mmdet2").symlink_to(Path(mmdet2).parents[1])
    monkeypatch.setenv("PARITY_ENVS", str(tmp_path / "envs"))
    monkeypatch.chdir(tmp_path)
    before = list(parity.cases.__path__)
    try:
        for command, shown in blocks(PAGE.read_text()):
            if command.startswith("file "):
                Path(command.removeprefix("file ")).write_text("\n".join(shown) + "\n")
            elif not command.startswith("$ parity env"):  # made already, or this would not run
                _, out, err = parity_command(*shlex.split(command.removeprefix("$ parity ")))
                assert not absent(shown, out), f"{command}\n{out}{err}"
    finally:
        parity.cases.__path__[:] = before
        all_cases.cache_clear()
