"""``parity bisect`` on small repositories and environments: what it names, and what it does not believe."""

from __future__ import annotations

import subprocess
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from parity.bisect.packages import BUILD as BY_PIP
from parity.bisect.packages import differences, read_requirements, tell_environment
from parity.bisect.probe import Check, Outcome, Told
from parity.errors import ParityError

Command = Callable[..., tuple[int, str, str]]


class Repository:
    """A git repository whose every commit writes a few files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commits: list[str] = []
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *words: str) -> str:
        who = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org", "-c", "commit.gpgsign=false")
        command = ["git", "-C", str(self.folder), *who, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, subject: str, **files: str) -> str:
        for name, text in files.items():
            (self.folder / name).write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", subject)
        self.commits.append(self.git("rev-parse", "HEAD"))
        return self.commits[-1]

    def state(self) -> tuple[str, ...]:
        told = self.git("status", "--porcelain"), self.git("worktree", "list"), self.git("for-each-ref")
        kept = {path.name for path in (self.folder / ".git").iterdir()} - {"packed-refs"}
        return (*told, self.git("rev-parse", "HEAD"), *sorted(kept))


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    (tmp_path / "repository").mkdir()
    monkeypatch.chdir(tmp_path / "repository")
    return Repository(tmp_path / "repository")


def history(repository: Repository, texts: Sequence[str]) -> None:
    for at, text in enumerate(texts):
        repository.commit(f"change {at}", state=text)


def test_it_names_the_commit_and_leaves_everything_as_it_was(repository: Repository, parity_command: Command) -> None:
    history(repository, ["good"] * 5 + ["bad"] * 4)
    (repository.folder / "state").write_text("what I am working on")
    (repository.folder / "untracked").write_text("mine")
    repository.git("worktree", "prune")
    before = repository.state()
    status, out, err = parity_command("bisect", repository.commits[0], "main", "--", "grep -q good state")
    assert (status, err) == (0, "")
    assert f"broken by {repository.commits[5][:12]} change 5 (Somebody, " in out
    assert repository.state() == before
    assert (repository.folder / "state").read_text() == "what I am working on"
    assert out.count("(exit ") <= 2 + 3, "it looked at more commits than a search by halves does"


def test_the_command_runs_in_the_commit_with_its_own_package_first(
    repository: Repository, parity_command: Command
) -> None:
    for at in range(4):
        (repository.folder / "package_under_test.py").write_text(f"value = {at}\n")
        repository.commit(f"change {at}")
    check = ("python3", "-c", "import package_under_test as p, sys; sys.exit(p.value > 2)")
    status, out, _ = parity_command("bisect", "main~3", "main", "--repeat", "1", "--", *check)
    assert status == 0
    assert f"broken by {repository.commits[3][:12]}" in out


def test_what_the_check_changes_is_in_nobodys_way(repository: Repository, parity_command: Command) -> None:
    history(repository, ["good 1", "good 2", "bad 3", "bad 4"])
    check = "grep -q good state; found=$?; echo spoilt > state; echo more > left_behind; exit $found"
    status, out, _ = parity_command("bisect", "main~3", "main", "--repeat", "1", "--", check)
    assert status == 0
    assert "change 2 (Somebody" in out


def test_a_commit_that_cannot_be_told_is_passed_over(repository: Repository, parity_command: Command) -> None:
    history(repository, ["good", "good", "broken build", "bad", "bad"])
    check = "grep -q broken state && exit 2; grep -q good state"
    status, out, _ = parity_command("bisect", "main~4", "main", "--", check)
    assert status == 1
    assert "broken by one of:\n" in out
    assert f"  {repository.commits[2][:12]} change 2" in out
    assert f"  {repository.commits[3][:12]} change 3" in out
    assert f"not believed: {repository.commits[2][:12]} change 2" in out
    assert "cannot be told (exit 2)" in out


def test_a_commit_beside_the_way_that_cannot_be_told_does_no_harm(
    repository: Repository, parity_command: Command
) -> None:
    history(repository, ["good", "good", "broken build", "good", "bad"])
    check = "grep -q broken state && exit 125; grep -q good state"
    status, out, _ = parity_command("bisect", "main~4", "main", "--", check)
    assert status == 0
    assert "change 4 (Somebody" in out.split("broken by")[1]


def test_a_flaky_result_is_not_believed(repository: Repository, parity_command: Command, tmp_path: Path) -> None:
    history(repository, ["good", "good", "flaky", "bad", "bad"])
    count = tmp_path / "count"
    check = f"grep -q flaky state || exec grep -q good state; echo >> {count}; test $(wc -l < {count}) -ne 2"
    status, out, _ = parity_command("bisect", "main~4", "main", "--repeat", "3", "--", check)
    assert status == 1
    assert f"not believed: {repository.commits[2][:12]} change 2" in out
    assert "flaky (exit 0, 1)" in out
    assert f"  {repository.commits[3][:12]} change 3" in out


def test_every_result_is_repeated(repository: Repository, parity_command: Command, tmp_path: Path) -> None:
    history(repository, ["good", "bad"])
    check = f"echo >> {tmp_path / 'runs'}; grep -q good state"
    status, out, _ = parity_command("bisect", "main~1", "main", "--repeat", "3", "--", check)
    assert status == 0
    assert "(exit 0, 0, 0)" in out
    assert len((tmp_path / "runs").read_text()) == 6


def test_the_setup_runs_first_and_where_it_fails_nothing_is_told(
    repository: Repository, parity_command: Command
) -> None:
    history(repository, ["good", "no", "bad"])
    words = ("bisect", "main~2", "main", "--setup", "grep -vq no state && cp state made", "--", "grep -q good made")
    status, out, _ = parity_command(*words)
    assert status == 1
    assert f"{repository.commits[1][:12]} change 1 (Somebody" in out.split("not believed")[1]


def test_a_run_beyond_its_time_limit_tells_nothing(repository: Repository, parity_command: Command) -> None:
    history(repository, ["good", "bad"])
    status, _, err = parity_command("bisect", "main~1", "main", "--time-limit", "0.2", "--", "sleep 30 | sleep 30")
    assert status == 2
    assert "cannot tell anything of main~1, cannot be told (exit time limit)" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("main", "main~2", "--", "grep -q good state"), "main is not good, `grep -q good state` is bad (exit 1, 1)"),
        (("main~2", "main~1", "--", "grep -q good state"), "main~1 is not bad"),
        (("main~2", "main~2", "--", "true"), "main~2 and main~2 are the same commit"),
        (("main~2", "nowhere", "--", "true"), "no such commit 'nowhere'"),
        (("--", "main~2", "--output=x", "true"), "no such commit '--output=x'"),
        (("main~2", "main", "--", "no-such-program"), "cannot tell anything of main~2, cannot be told (exit 127)"),
        (("main~2", "main", "--", "no-such-program", "-x"), "cannot be told (exit 127)"),
        (("main~2", "main", "--repeat", "0", "--", "true"), "--repeat 0: it takes one run at least"),
        (("main~2", "main", "--build", "true", "--", "true"), "--build goes with --environments"),
        (("main~2", "main"), "the following arguments are required: COMMAND"),
    ],
)
def test_a_bad_range_or_call_is_told_in_one_line(
    words: tuple[str, ...], message: str, repository: Repository, parity_command: Command
) -> None:
    history(repository, ["good", "good", "bad"])
    status, _, err = parity_command("bisect", *words)
    assert status == 2
    assert message in err.splitlines()[-1]
    assert sum(line.startswith("parity: ") for line in err.splitlines()) == 1
    assert repository.git("worktree", "list").count("\n") == 0


def test_an_end_that_is_flaky_is_refused(repository: Repository, parity_command: Command, tmp_path: Path) -> None:
    history(repository, ["good", "bad"])
    check = f"echo >> {tmp_path / 'count'}; test $(wc -l < {tmp_path / 'count'}) -eq 1"
    status, _, err = parity_command("bisect", "main~1", "main", "--", check)
    assert status == 2
    assert "is flaky at main~1, flaky (exit 0, 1): make it repeatable first" in err


def test_outside_a_repository_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parity_command: Command
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    status, _, err = parity_command("bisect", "a", "b", "--", "true")
    assert status == 2
    assert "is no git repository" in err


# The environments are folders with a copy of the requirements; the check greps in them. pip is what --build names.
BUILD = "mkdir -p {folder}/bin && cp {requirements} {folder}/bin/list && ! grep -q impossible {requirements}"
CHECK = "PATH_OF_LIST=${PATH%%:*}/list; "


def files(folder: Path, good: str, bad: str) -> tuple[Path, Path]:
    (folder / "good.txt").write_text(good)
    (folder / "bad.txt").write_text(bad)
    return folder / "good.txt", folder / "bad.txt"


def packages(command: Command, ends: tuple[Path, Path], check: str, *words: str) -> tuple[int, str, str]:
    return command("bisect", "--environments", *ends, "--build", BUILD, *words, "--", CHECK + check)


GOOD = "a==1\nb==1\nc==1\nd==1\nsame==7\n"
BAD = "a==2\nb==2\nC==2  # a comment\ne==1\nsame==7\n"


def test_it_names_the_package(tmp_path: Path, parity_command: Command) -> None:
    status, out, _ = packages(parity_command, files(tmp_path, GOOD, BAD), "! grep -qi c==2 $PATH_OF_LIST")
    assert status == 0
    assert "broken by c: c==1 -> C==2\n" in out
    assert "it alone does it: the other 4 that differ do not matter" in out


@pytest.mark.parametrize(
    ("check", "named"),
    [
        ("! grep -q e==1 $PATH_OF_LIST", "broken by e: not there -> e==1"),
        ("grep -q d==1 $PATH_OF_LIST", "broken by d: d==1 -> not there"),
    ],
)
def test_a_package_that_came_or_went_is_named(check: str, named: str, tmp_path: Path, parity_command: Command) -> None:
    status, out, _ = packages(parity_command, files(tmp_path, GOOD, BAD), check)
    assert status == 0
    assert named in out


def test_two_that_break_it_together_are_told(tmp_path: Path, parity_command: Command) -> None:
    check = "! (grep -q a==2 $PATH_OF_LIST && grep -q b==2 $PATH_OF_LIST)"
    status, out, _ = packages(parity_command, files(tmp_path, GOOD, BAD), check)
    assert status == 0
    assert "broken by b: b==1 -> b==2" in out
    assert "with it alone the check is good: it takes one of a as well" in out


def test_mixtures_that_cannot_be_made_are_passed_over(tmp_path: Path, parity_command: Command) -> None:
    build = "mkdir -p {folder}/bin && cp {requirements} {folder}/bin/list && "
    build += "! (grep -q b==2 {requirements} && grep -q c==1 {requirements})"
    ends = files(tmp_path, GOOD, BAD)
    words = ("--environments", *ends, "--build", build, "--", CHECK + "! grep -q b==2 $PATH_OF_LIST")
    status, out, _ = parity_command("bisect", *words)
    assert status == 1
    assert "broken by one of:\n  b: b==1 -> b==2\n  c: c==1 -> C==2\n" in out
    assert "the mixtures between told nothing" in out


@pytest.mark.parametrize(
    ("good", "bad", "check", "message"),
    [
        (GOOD, GOOD, "true", "ask for the same packages"),
        (GOOD, BAD, "false", "good.txt is not good"),
        (GOOD, BAD, "true", "bad.txt is not bad"),
        (GOOD, "-r other.txt\n", "true", "bad.txt, line 1: '-r other.txt' names no package"),
        (GOOD, "impossible==1\n", "true", "cannot tell anything of"),
    ],
)
def test_bad_environments_are_told_in_one_line(
    good: str, bad: str, check: str, message: str, tmp_path: Path, parity_command: Command
) -> None:
    status, _, err = packages(parity_command, files(tmp_path, good, bad), check)
    assert status == 2
    assert err.count("\n") == 1
    assert message in err


def test_requirements_are_read_by_the_name_that_pip_knows(tmp_path: Path) -> None:
    path = tmp_path / "r.txt"
    path.write_text("# all\nSome_Package.x==1.0\n\ntorch @ file:///wheels/torch.whl#sha256=ab\nnumpy==2.0 # why\n")
    assert read_requirements(path) == {
        "some-package-x": "Some_Package.x==1.0",
        "torch": "torch @ file:///wheels/torch.whl#sha256=ab",
        "numpy": "numpy==2.0",
    }
    assert [str(change) for change in differences({"a": "a==1"}, {"a": "a==1", "b": "b==1"})] == [
        "b: not there -> b==1"
    ]
    with pytest.raises(ParityError, match=r"none\.txt cannot be read .*: `pip freeze > none\.txt` writes one"):
        read_requirements(tmp_path / "none.txt")


def test_pip_makes_the_environment_unless_told_otherwise(tmp_path: Path) -> None:
    wheel = toy_wheel(tmp_path, 1)
    check = Check(("python", "-c", "import toy, sys; sys.exit(toy.value != 1)"), repeat=1)
    assert tell_environment({"toy": f"toy @ {wheel.as_uri()}"}, check, BY_PIP) == Told(Outcome.GOOD, (0,))


def toy_wheel(folder: Path, version: int) -> Path:
    path = folder / f"toy-{version}-py3-none-any.whl"
    info = f"toy-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("toy.py", f"value = {version}\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: toy\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path
