"""Numerical settings: what was asked for is in force, is read back, and goes again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
import torch

from parity.cases.base import Case
from parity.check import Checker
from parity.engines import numerics
from parity.engines.host import RemoteSession
from parity.engines.session import Session
from parity.errors import ParityError

# Each the other way round from what torch starts with.
ASKED = {
    "threads": 3,
    "onednn": False,
    "cudnn_tf32": False,
    "cudnn": False,
    "cudnn_benchmark": True,
    "cudnn_deterministic": True,
    "deterministic_algorithms": True,
    "autocast_cuda": True,
    "flush_denormal": True,
}
NEWER = {"matmul_precision": "high", "matmul_tf32": True, "autocast_cpu": True}


@pytest.fixture
def session() -> Iterator[Session]:
    with closing(Session("mmdet3")) as session:
        yield session


def test_what_is_asked_for_is_read_back_and_afterwards_the_old_settings_are_back(session: Session) -> None:
    before = numerics.read()
    asked = {**ASKED, **NEWER}
    assert all(before[name] != value for name, value in asked.items())
    read_back = session.configure(**asked)
    assert {name: read_back[name] for name in asked} == asked
    assert numerics.read() == read_back
    assert (torch.backends.mkldnn.enabled, torch.get_num_threads()) == (False, 3)  # by torch's own word
    session.close()
    assert numerics.read() == before


def test_a_setting_lasts_until_the_session_ends(session: Session) -> None:
    session.configure(onednn=False)
    session.configure(threads=1)
    assert numerics.read()["onednn"] is False
    assert session.restore()["onednn"] is True


@pytest.mark.legacy
def test_a_legacy_interpreter_runs_with_what_was_asked_for(mmdet2: str) -> None:
    with closing(RemoteSession("mmdet2", python=mmdet2, root="")) as legacy:
        before = legacy.restore()
        asked = {**ASKED, "matmul_tf32": False}  # torch 1.9 starts with it on
        assert all(before[name] != value for name, value in asked.items())
        read_back = legacy.configure(**asked)
        assert {name: read_back[name] for name in asked} == asked
        assert legacy.configure() == read_back  # in a request of its own
        assert legacy.restore() == before


@pytest.mark.legacy
def test_what_an_old_torch_does_not_have_is_none_and_refused(mmdet2: str) -> None:
    with closing(RemoteSession("mmdet2", python=mmdet2, root="")) as legacy:
        assert legacy.configure(tf32=False)["matmul_precision"] is None
        message = r"matmul_precision was set to high and is None: what would be run is not what was asked for$"
        with pytest.raises(ParityError, match=message):
            legacy.configure(matmul_precision="high")


def test_a_setting_that_does_not_take_is_refused(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = numerics.SETTINGS["onednn"]._replace(write=lambda value: torch.backends.mkldnn.flags(enabled=value))
    monkeypatch.setitem(numerics.SETTINGS, "onednn", deaf)  # a context that nobody enters
    with pytest.raises(ParityError, match=r"^torch .*: onednn was set to False and is True: what would be run is not"):
        session.configure(onednn=False)


def test_an_unknown_setting_is_one_line(session: Session) -> None:
    with pytest.raises(ParityError, match=r"^no such numerical setting: one_dnn; there are threads, onednn, .*tf32$"):
        session.configure(one_dnn=False)


def test_tf32_stands_for_all_of_its_settings(session: Session) -> None:
    off = session.configure(tf32=False)
    assert (off["cudnn_tf32"], off["matmul_tf32"], off["matmul_precision"]) == (False, False, "highest")
    on = session.configure(tf32=True)
    assert (on["cudnn_tf32"], on["matmul_tf32"], on["matmul_precision"]) == (True, True, "high")


def test_a_block_of_settings_ends_with_an_error_as_well() -> None:
    before = numerics.read()

    def fails() -> None:
        with numerics.in_force({"onednn": False}) as settings:
            assert settings["onednn"] is False
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fails()
    assert numerics.read() == before


def test_tf32_set_for_all_of_torch_is_seen_in_convolutions() -> None:
    """By torch's newer way, whose word overrules ``cudnn.allow_tf32``."""
    code = (
        "import torch; torch.backends.cudnn.allow_tf32 = False; torch.backends.fp32_precision = 'tf32';"
        "from parity.engines import numerics; print(numerics.read()['cudnn_tf32'])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "True\n"


def test_a_check_runs_without_tf32_and_leaves_the_settings_as_they_were(case: Case, record: object) -> None:
    before = numerics.read()
    checker = Checker(case)
    results = checker.check(record, mode="isolated", dtype="fp32", stages=["preprocess"])  # type: ignore[arg-type]
    next(results)
    assert (before["cudnn_tf32"], numerics.read()["cudnn_tf32"]) == (True, False)
    results.close()  # type: ignore[attr-defined]
    assert (checker.settings["cudnn_tf32"], checker.settings["threads"]) == (False, torch.get_num_threads())
    assert numerics.read() == before


def test_tf32_on_a_device_that_has_none_is_one_line(parity_command: Callable[..., tuple[int, str, str]]) -> None:
    status, _, said = parity_command("check", "ddq_fcn_r50_12e", "--tf32")
    assert (status, said) == (
        2,
        "parity: --tf32: TF32 is arithmetic of CUDA devices, --device cpu has none; leave it out\n",
    )
