"""The table of settings: each leaf of both configs in one row, what differs told, and what is known explained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import Tensor

from parity.cases.base import SETTINGS
from parity.cases.other_settings import OtherSetting
from parity.cases.registry import find_case
from parity.check import Checker
from parity.check_recipe import check_recipe
from parity.compare.laws import plain_text
from parity.compare.verdicts import Verdict, worst
from parity.engines.base import Run
from parity.engines.session import Session
from parity.engines.training_setup import canonical
from parity.errors import ParityError
from parity.mutants.families.settings import MUTANTS
from parity.records.freeze_recipe import freeze_recipe_stage
from parity.records.locate import default_fixtures
from parity.records.store import Record, write_record
from parity.settings.judge import KIND, Texts, results, table
from parity.settings.words import Dialect, Row, Unread, read

CASES = ("ddq_fcn_r50_36e", "ddq_rcnn_r50_12e", "ddq_detr_4scale_r50_12e")
Command = Callable[..., tuple[int, str, str]]


def texts(tensors: dict[str, Tensor]) -> Texts:
    return Texts(*(plain_text(tensors[name]) for name in ("dialect", "config", "in_force")))


def record_of(case: str) -> Record:
    return Record(default_fixtures() / case / "recipe")


@cache
def both(case: str) -> tuple[Texts, Texts]:
    """Return what the new engine says of its training, and what the legacy one said."""
    record = record_of(case)
    names = ("dialect", "config", "in_force")
    return texts(Session("mmdet3").recipe(case, SETTINGS).tensors), texts(
        {name: record.tensor(f"{SETTINGS}/{name}") for name in names}
    )


def judged(case: str, **changes: Any) -> dict[str, Any]:
    """Return name -> (verdict, note) of what does not pass, with leaves of the new config changed or taken out."""
    actual, expected = both(case)
    leaves = json.loads(actual.config)
    for key, value in changes.items():
        leaves[key] = value
        if value is None and key.startswith("-"):
            del leaves[key], leaves[key[1:]]
    found, _ = results(table(find_case(case), replace(actual, config=canonical(leaves)), expected))
    return {result.name: (result.verdict, result.note) for result in found if not result.verdict.passes}


@pytest.mark.parametrize("case", CASES)
def test_every_setting_of_both_published_configs_is_in_one_row(case: str) -> None:
    assert judged(case) == {}
    lines = table(find_case(case), *both(case))
    leaves = sum(len(json.loads(side.config)) for side in both(case))
    compared = sum(len(s.keys) for line in lines for s in (line.expected, line.actual) if s and s.keys != ("as built",))
    assert compared + sum(line.verdict is None for line in lines) == leaves
    assert all(line.note for line in lines if line.verdict is None)


@pytest.mark.parametrize("case", CASES)
def test_a_change_of_any_leaf_that_is_compared_is_told(case: str) -> None:
    lines = table(find_case(case), *both(case))
    keys = [key for line in lines if line.actual for key in line.actual.keys if key != "as built"]
    said = json.loads(both(case)[0].config)
    silent = [key for key in keys if not judged(case, **{key: other_than(said[key])})]
    assert len(keys) > 50
    assert silent == []


def other_than(value: Any) -> Any:
    """Return another value of about the kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    return f"{value}x" if isinstance(value, str) else "another"


@pytest.mark.parametrize("case", CASES)
def test_a_leaf_that_is_new_is_told(case: str) -> None:
    assert judged(case, compile=True)["compile"] == (Verdict.EXTRA, "in no row of the table (new config)")
    assert judged(case, **{"model.neck.extra": 1})["model.neck.extra"][0] is Verdict.EXTRA


def test_a_setting_that_the_new_config_lacks_is_told() -> None:
    found = judged(CASES[0], **{"-model.backbone.frozen_stages": None})
    note = "not said, expected 1 (model.backbone.frozen_stages)"
    assert found == {"model.backbone.frozen_stages": (Verdict.MISSING, note)}


def test_what_is_known_to_differ_is_another_difference_with_other_values() -> None:
    assert judged(CASES[0], **{"randomness.seed": 7})["seed"] == (
        Verdict.DIVERGED,
        "7 (randomness.seed), expected null (by default)",
    )


def test_a_known_difference_that_explains_nothing_fails() -> None:
    case = find_case(CASES[0])
    stale = OtherSetting("epochs", 36, 12, "a slip", "nowhere")
    found, notes = results(table(replace(case, other_settings=(*case.other_settings, stale)), *both(CASES[0])))
    assert [(r.name, r.verdict) for r in found if not r.verdict.passes] == [("epochs", Verdict.DIVERGED)]
    assert "explains nothing" in found[1].note
    assert any(note.startswith("workers_stay: known deviation: mmdet 3 keeps its workers") for note in notes)


def test_what_another_stage_compares_needs_that_stage() -> None:
    case = replace(find_case(CASES[0]), recipe_stages=(SETTINGS,))
    found, _ = results(table(case, *both(CASES[0])))
    assert worst(result.verdict for result in found) is Verdict.MISSING
    assert "which ddq_fcn_r50_36e does not have" in found[-1].note


def test_words_that_no_table_reads_are_refused() -> None:
    actual, expected = both(CASES[0])
    with pytest.raises(ParityError, match="no table of settings reads the configs of 'yolov5'"):
        table(find_case(CASES[0]), replace(actual, dialect="yolov5"), expected)


def test_a_row_takes_its_leaves_and_defaults_hold_for_what_is_not_said() -> None:
    rows = (Row(r"optimizer\.(.+)", r"optim.\1"), Unread("log", "it is shown"))
    reading = read({"optimizer.lr": 0.1, "log": 1, "new": 2}, Dialect(rows, {"clip": None, "optim.lr": 0.5}))
    assert {name: (s.value, s.keys) for name, s in reading.settings.items()} == {
        "optim.lr": (0.1, ("optimizer.lr",)),
        "clip": (None, ()),
    }
    assert (list(reading.unread), reading.unknown) == (["log"], ["new"])


# What is read back from what was built, beside the config's own words.
SOME = {
    "accumulation": ["accumulation", "in_force.accumulation"],
    "clip-kind": ["clip", "in_force.clip"],
    "ema": ["hooks", "in_force.hooks"],
    "infinite": ["in_force.images_twice"],
    "mixed-precision": ["mixed_precision", "in_force.mixed_precision"],
    "one-order": ["in_force.other_order_each_epoch"],
    "shapes": ["in_force.batches_of_two_shapes"],
    "shuffle": ["shuffle", "in_force.shuffled", "in_force.other_order_each_epoch"],
}


@pytest.mark.parametrize("name", SOME)
def test_a_planted_setting_is_caught(name: str) -> None:
    mutant = next(mutant for mutant in MUTANTS if mutant.id == f"settings-{name}")
    case = mutant.cases[-1]
    with mutant.apply():
        (result,) = check_recipe(Session("mmdet3"), find_case(case), record_of(case), [SETTINGS])
    assert not result.verdict.passes
    assert {tensor.name for tensor in result.tensors if not tensor.verdict.passes} >= set(SOME[name])


def test_the_stage_passes_for_the_unchanged_engine() -> None:
    (result,) = Checker(find_case(CASES[0])).check(
        record_of(CASES[0]), mode="isolated", dtype="fp64", stages=[SETTINGS]
    )
    assert result.verdict.passes
    assert result.tensors[0].name == KIND
    assert "settings are equal" in result.tensors[0].note


class StandIn:
    """A legacy session that says what the record says."""

    def __init__(self, said: dict[str, Tensor]) -> None:
        self.said = said

    def recipe(self, *_: Any) -> Run:
        return Run(self.said)

    def configure(self, **_: Any) -> dict[str, Any]:
        return {}

    def fingerprint(self) -> dict[str, str]:
        return {"engine": "a stand-in"}


def test_a_stage_is_added_to_a_recipe_and_all_else_stays_byte_for_byte(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(default_fixtures() / CASES[0] / "recipe", tmp_path / CASES[0] / "recipe"))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    record = Record(folder)
    said = {name: record.tensor(f"{SETTINGS}/{name}") for name in ("dialect", "config", "in_force")}
    said["in_force"] = said["in_force"][:-1]
    legacy: Any = StandIn(said)
    write_record(folder, *freeze_recipe_stage(find_case(CASES[0]), record, SETTINGS, legacy), force=True, adding=True)
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"manifest.json", "settings.safetensors"}
    again = Record(folder)
    assert len(again.tensor(f"{SETTINGS}/in_force")) == len(said["in_force"])
    assert again.manifest["recipe"][SETTINGS]["engines"]["legacy"] == {"engine": "a stand-in"}
    assert again.manifest["engines"] == record.manifest["engines"]
    assert {k: e for k, e in again.entries.items() if e.stage != SETTINGS} == {
        k: e for k, e in record.entries.items() if e.stage != SETTINGS
    }


def test_a_stage_that_is_there_or_that_there_is_not_is_refused(parity_command: Command, tmp_path: Path) -> None:
    freeze = ("freeze", CASES[0], "--legacy-root", tmp_path)
    status, _, err = parity_command(*freeze, "--stage", "settings", "--record", "recipe")
    assert (status, "has the stage settings; --force freezes it anew" in err) == (2, True)
    status, _, err = parity_command(*freeze, "--stage", "settings")
    assert (status, "--stage settings: it goes with --record recipe" in err) == (2, True)
    with pytest.raises(
        ParityError, match="--stage nothing: the recipe of ddq_fcn_r50_36e has no such stage; it has sch"
    ):
        freeze_recipe_stage(find_case(CASES[0]), SimpleNamespace(), "nothing", StandIn({}))  # type: ignore[arg-type]
