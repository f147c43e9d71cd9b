"""A bug that only several processes show is found on a committed record of two, and by nothing else of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from parity.mutants.outcomes import read_outcomes
from parity.records.listing import listed_as
from parity.records.locate import default_fixtures

FCN = "ddq_fcn_r50_12e"


def test_a_normaliser_of_each_process_alone_is_found_on_the_committed_record(
    tmp_path: Path, parity_command: Callable[..., tuple[int, str, str]]
) -> None:
    folder = tmp_path / "fixtures" / FCN / "train-two-ranks"
    manifest = (default_fixtures() / FCN / folder.name / "manifest.json").read_bytes()
    folder.parent.mkdir(parents=True)
    with listed_as(folder, manifest):
        shutil.copytree(default_fixtures() / FCN / folder.name, folder)
    words = ("mutate", FCN, "--fixtures", tmp_path / "fixtures", "--harness-only", "--mutant", "loss-processes-own")
    status, out, err = parity_command(*words, "--json", tmp_path / "out.json")
    assert (status, err) == (0, "")
    assert "caught 1 of 1, the right stage first in 1" in out
    (outcome,) = read_outcomes([tmp_path / "out.json"]).outcomes
    assert outcome.catch is not None
    assert (outcome.catch.record, outcome.catch.stage, outcome.catch.dtype) == (folder.name, "loss", "fp64")
