"""Results files that are damaged in every way a seed draws, and what must hold of each: one line, or whole output."""

from __future__ import annotations

import copy
import io
import json
import random
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from parity.cli import main
from parity.report.gather import keep
from parity.report.history_log import open_log, read_history
from parity.report.results import read_report

TOKENS = {
    '"<NaN>"': "NaN",
    '"<inf>"': "Infinity",
    '"<huge>"': "1" + 400 * "0",
    '"<longer>"': "1" + 5000 * "0",
    '"<float>"': "1e999",
    '"<surrogate>"': '"\\ud800"',
    '"<deep>"': 20_000 * "[" + 20_000 * "]",
    '"<keys>"': 20_000 * '{"a":' + "1" + 20_000 * "}",
}
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 10**18, 10**30, 1e308, -1e308, 5e-324),
    *(
        "",
        "\0",
        "a" * 100_000,
        "\u202e",
        "é\n\r\u2028",
        "inf",
        "-inf",
        "nan",
        "equal",
        "diverged",
        "</script><script>x",
    ),
    *([], {}, [[]], [None], {"": None}, {"\0": []}),
    *(token.strip('"') for token in TOKENS),
)


def mutant(plain: Any, draw: random.Random) -> bytes:
    """Return a results file with some places of its content or of its bytes changed."""
    changed = copy.deepcopy(plain)
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        _change(changed, draw)
    text = json.dumps(changed)
    for token, written in TOKENS.items():
        text = text.replace(token, written)
    content = text.encode()
    return draw.choice((_same, _same, _same, _flipped, _cut, _doubled))(content, draw)


def _change(plain: Any, draw: random.Random) -> None:
    places = list(_places(plain))
    inside, key = draw.choice(places)
    what = draw.randrange(5)
    if what == 0:
        del inside[key]
    elif what == 1 and isinstance(inside, dict):
        inside[draw.choice(("", "unknown", "schema", "\0", f"{key} "))] = inside.pop(key)
    elif what == 2:
        elsewhere, other = draw.choice(places)
        inside[key] = copy.deepcopy(elsewhere[other])
    else:
        inside[key] = copy.deepcopy(draw.choice(VALUES))


def _places(plain: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (container, key or index) of everything in a JSON value."""
    for key in list(plain) if isinstance(plain, dict) else range(len(plain)):
        yield plain, key
        if isinstance(plain[key], (dict, list)):
            yield from _places(plain[key])


def _same(content: bytes, draw: random.Random) -> bytes:
    return content


def _flipped(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 8))):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _cut(content: bytes, draw: random.Random) -> bytes:
    start, end = sorted(draw.randrange(len(content) + 1) for _ in range(2))
    return content[:start] + content[end:]


def _doubled(content: bytes, draw: random.Random) -> bytes:
    start, end = sorted(draw.randrange(len(content) + 1) for _ in range(2))
    return content[:end] + content[start:]


class _Page(HTMLParser):
    """Finds the data of a page, and its end."""

    def __init__(self) -> None:
        super().__init__()
        self.data = ""
        self.ended = self._inside = False
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = ("type", "application/json") in attrs
        self.scripts += tag == "script"

    def handle_endtag(self, tag: str) -> None:
        self._inside = False
        self.ended = tag == "html"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.data += data


def complaints(content: bytes, folder: Path, *, others: set[str]) -> Iterator[str]:
    """Yield what does not hold of a results file put into a folder of runs as the run ``mutant``.

    Args:
        others: names of the runs whose folders are gone: only the history has them.
    """
    run = folder / "mutant"
    run.mkdir(exist_ok=True)
    (run / "results.json").write_bytes(content)
    yield from _of_command(run, folder / "page")
    with open_log(folder) as file:
        log = keep(folder, file)
    names = {one.name for one in log.history.runs}
    if not others <= names:
        yield f"the history lost {sorted(others - names)}"
    if "mutant" not in names and "mutant" not in log.unreadable:
        yield "the run is neither in the history nor named"
    again = read_history(folder)
    if again.history.runs != log.history.runs or any(name.startswith("history") for name in again.unreadable):
        yield "the history is not read as it was written"


def _of_command(run: Path, out: Path) -> Iterator[str]:
    """Make the page of a run by the command; yield what does not hold of what it says and writes."""
    said, wrong = io.StringIO(), io.StringIO()
    with redirect_stdout(said), redirect_stderr(wrong):
        status = main(["report", str(run), "--out", str(out)])
    lines = wrong.getvalue().splitlines()
    if status == 2:
        if len(lines) != 1 or not lines[0].startswith("parity: ") or len(lines[0]) > 1100 or "fault" in lines[0]:
            yield f"not one line: {lines[-1:]} of {len(lines)}"
    elif status != 0 or lines:
        yield f"status {status}, {lines[-1:]}"
    else:
        yield from _of_page(out)


def _of_page(out: Path) -> Iterator[str]:
    page = _Page()
    page.feed((out / "index.html").read_text("utf-8"))
    compared = bool(read_report(out / "results.json").results)
    if not page.ended or page.scripts != 2 * compared:  # a page of nothing draws nothing
        yield f"the page is not whole, or has {page.scripts} scripts"
    if compared:
        json.loads(page.data)


def known_runs(folder: Path, write: Callable[[Path], None]) -> set[str]:
    """Let some runs be known to the history alone; return their names."""
    write(folder)
    with open_log(folder) as file:
        runs = keep(folder, file).history.runs
    for run in runs:
        (folder / run.name / "results.json").unlink()
    return {run.name for run in runs}
