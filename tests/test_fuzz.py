"""The fuzzer itself, without a legacy engine: what it draws, how it shrinks, what it says and keeps."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.cases.base import Batch, Case, Picture, TrainingBatch
from parity.cases.registry import find_case
from parity.compare.verdicts import Verdict
from parity.engines.host import RemoteSession
from parity.errors import EngineError, NoTruthError, ParityError
from parity.fuzz.command import fuzz_live
from parity.fuzz.live import Kind, Live, Outcome, SteadySession
from parity.fuzz.saving import save
from parity.fuzz.search import Search, search
from parity.fuzz.situations import (
    CLASSES,
    MOST_IMAGES,
    MOST_PIXELS,
    batches,
    features,
    read_situation,
    to_json,
    weight_kinds,
)
from parity.fuzz.telling import told
from parity.records.images import drawn_objects, encoded_images, painted
from parity.records.locate import default_fixtures
from parity.records.store import Record
from parity.report.results import StageResult, TensorResult

RETINA, FCN = find_case("stock_retinanet_r50_1x"), find_case("ddq_fcn_r50_12e")
SAME = Outcome(Kind.SAME)
PLAIN = Batch(seed=0, pictures=(Picture((32, 32)),))
STEP = TrainingBatch(seed=0, pictures=(Picture((32, 40), ((0.0, 4.0, 9.5, 8.0),), (7,), 2),), objects=(1,))
DIVERGED = StageResult(
    RETINA.id,
    "situation",
    "neck",
    "isolated",
    "fp64",
    "cpu",
    0.0,
    (TensorResult("p3", Verdict.DIVERGED, (1,), max_abs=1.0, count=1, over=1, worst_index=(0,)),),
)


@given(st.sampled_from([RETINA, FCN]).flatmap(batches))
def test_every_situation_is_possible(batch: Batch) -> None:
    sizes = [picture.size for picture in batch.pictures]
    assert 1 <= len(sizes) <= MOST_IMAGES
    assert all(side >= 16 for size in sizes for side in size)
    assert len(sizes) * max(height for height, _ in sizes) * max(width for _, width in sizes) <= MOST_PIXELS
    for picture in batch.pictures:
        height, width = picture.size
        assert len(picture.boxes) == len(picture.labels)
        assert all(0 <= left <= right <= width for left, _, right, _ in picture.boxes)
        assert all(0 <= top <= bottom <= height for _, top, _, bottom in picture.boxes)
        assert all(0 <= label < CLASSES for label in picture.labels)
    if isinstance(batch, TrainingBatch):
        assert batch.objects == tuple(len(picture.boxes) for picture in batch.pictures)


def drawn(case: Case, *, seed: int = 0, examples: int = 40, training: bool | None = None) -> list[Batch]:
    situations = batches(case, training=training)
    return list(search(lambda _: SAME, situations, examples=examples, seed=seed).outcomes)


def test_the_same_seed_draws_the_same_situations_and_another_one_others() -> None:
    first = drawn(FCN, examples=12)
    assert drawn(FCN, examples=12) == first
    assert set(drawn(FCN, examples=12, seed=1)) - set(first)


def test_a_small_search_meets_every_sort_of_situation() -> None:
    met = {feature for batch in drawn(FCN, examples=60) for feature in features(batch, FCN)}
    for word in ("padding", "crowd", "the same box twice", "box at a border", "image without objects", "training step"):
        assert word in met
    for word in ("a side below 32", "image beyond 4:1", "box beyond 8:1", "box without area", "tied weights"):
        assert word in met


def test_only_a_case_that_declares_its_training_is_trained() -> None:
    assert not any(isinstance(batch, TrainingBatch) for batch in drawn(RETINA))
    assert all(isinstance(batch, TrainingBatch) for batch in drawn(FCN, training=True))


def test_tied_weights_see_nothing() -> None:
    kinds = weight_kinds(RETINA)
    assert set(kinds) == {"usual", "tied"}
    assert set(weight_kinds(FCN)) == {"usual", "tied", "crowded", "nothing", "limits"}
    assert next((fill.pattern, fill.spread) for fill in kinds["tied"]) == ("bbox_head.retina_cls.weight", 0.0)


def test_a_picture_is_painted_as_it_says() -> None:
    image = painted(STEP.pictures[0])
    assert image.size == (40, 32)
    assert image.getpixel((5, 6)) == image.getpixel((8, 7)) != image.getpixel((20, 20))
    assert painted(Picture((20, 24))).getcolors() == [(480, (114, 114, 114))]
    assert len(encoded_images(STEP, seed=0)) == 1


def test_the_boxes_of_a_picture_are_its_ground_truth() -> None:
    objects = drawn_objects(STEP)
    assert objects["gt_boxes[0]"].tolist() == [[0.0, 4.0, 9.5, 8.0]]
    assert objects["gt_labels[0]"].tolist() == [7]
    nothing = drawn_objects(TrainingBatch(seed=0, pictures=PLAIN.pictures))
    assert nothing["gt_boxes[0]"].shape == (0, 4)
    assert nothing["gt_labels[0]"].dtype is torch.int64


@given(st.sampled_from([RETINA, FCN]).flatmap(batches))
@settings(max_examples=30)
def test_a_situation_comes_back_from_its_file(tmp_path_factory: pytest.TempPathFactory, batch: Batch) -> None:
    path = tmp_path_factory.mktemp("situation") / "one.json"
    path.write_text(to_json(batch))
    assert read_situation(path) == batch


@pytest.mark.parametrize("content", [None, "", "{}", '{"kind": "inference", "seed": 0, "fills": [], "pictures": [1]}'])
def test_a_file_that_holds_no_situation_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "one.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ParityError, match=r"one\.json holds no situation .*--save-failing"):
        read_situation(path)


def without_area(batch: Batch) -> Outcome:
    """Stand in for two engines that part ways where a box of an image wider than high has no area."""
    bad = any(
        min(box[2] - box[0], box[3] - box[1]) == 0
        for picture in batch.pictures
        if picture.size[1] > picture.size[0]
        for box in picture.boxes
    )
    return Outcome(Kind.DIVERGED, (DIVERGED,)) if bad else SAME


def test_a_failing_situation_is_made_small() -> None:
    found = search(without_area, batches(RETINA), examples=200, shrinks=400)
    assert found.failing is not None
    (picture,) = found.failing.pictures
    assert (len(picture.boxes), picture.labels, picture.ground) == (1, (0,), 0)
    assert found.failing.seed == 0
    assert found.drawn < len(found.outcomes)
    assert not found.outcomes[found.failing].kind.passes


def test_where_all_are_the_same_nothing_fails() -> None:
    found = search(lambda _: SAME, batches(RETINA), examples=30)
    assert found.failing is None
    assert found.drawn == len(found.outcomes) > 20


def test_no_situation_is_run_twice_and_shrinking_ends_after_so_many() -> None:
    judged: list[Batch] = []

    def judge(batch: Batch) -> Outcome:
        judged.append(batch)
        return without_area(batch)

    found = search(judge, batches(RETINA), examples=200, shrinks=0)
    assert len(judged) == len(set(judged)) == found.drawn
    assert found.failing == judged[-1]
    found = search(judge, batches(RETINA), examples=200, shrinks=7)
    assert len(found.outcomes) == found.drawn + 7


def test_an_error_of_the_environment_ends_the_search_as_itself() -> None:
    asked = []

    def broken(batch: Batch) -> Outcome:
        asked.append(batch)
        raise ParityError("no such program")

    with pytest.raises(ParityError, match="no such program"):
        search(broken, batches(RETINA), examples=30)
    assert len(asked) == 1


class StandIn:
    """A legacy engine that fails at every situation with the given error."""

    closed = False

    def __init__(self, error: Exception, shapes: dict[str, list[int]] | None = None) -> None:
        self.error, self.shapes = error, shapes or {}

    def load(self, *_: object) -> dict[str, list[int]]:
        return self.shapes

    def configure(self, **_: object) -> None:
        raise self.error

    def close(self) -> None:
        self.closed = True


def judged(monkeypatch: pytest.MonkeyPatch, error: Exception, new: Exception | None) -> Outcome:
    def run_new(_: Live, __: Batch) -> None:
        if new is not None:
            raise new

    monkeypatch.setattr(Live, "_run_new", run_new)
    with Live(RETINA, lambda: StandIn(error)) as live:  # type: ignore[arg-type, return-value]
        return live.judge(PLAIN)


def test_what_both_engines_refuse_is_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = judged(monkeypatch, EngineError("legacy: too small"), ValueError("too\nsmall"))
    assert (outcome.kind, outcome.reason) == (Kind.REFUSED, "legacy: too small; new engine: ValueError: too small")
    assert outcome.kind.passes


def test_what_only_the_legacy_engine_refuses_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = judged(monkeypatch, EngineError("legacy: too small", detail="Traceback"), None)
    assert (outcome.kind, outcome.reason, outcome.detail) == (Kind.LEGACY_FAILS, "legacy: too small", "Traceback")
    assert not outcome.kind.passes


@pytest.mark.parametrize("batch", [PLAIN, STEP])
def test_what_the_legacy_engine_refuses_the_new_one_is_really_given(batch: Batch) -> None:
    record = Record(default_fixtures() / FCN.id / "tiny")
    legacy = StandIn(EngineError("the worker died"), record.manifest["weights"]["shapes"])
    with Live(FCN, lambda: legacy) as live:  # type: ignore[arg-type, return-value]
        assert live.judge(batch) == Outcome(Kind.LEGACY_FAILS, reason="the worker died")
        impossible = replace(batch, pictures=(Picture((32, 32), ((0.0, 0.0, 1.0, 1.0),)),))  # a box without a class
        with pytest.raises(ValueError, match="shorter"):
            live._run_new(impossible)


def test_a_harness_that_stumbles_is_a_failure_and_a_truth_that_is_none_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert judged(monkeypatch, IndexError("of bounds"), None).kind is Kind.NO_RECORD
    assert not Kind.NO_RECORD.passes
    assert judged(monkeypatch, NoTruthError("a NaN"), None).kind is Kind.NO_TRUTH


def test_a_legacy_engine_that_died_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Live, "_run_new", lambda *_: None)
    started = []

    def connect() -> Any:
        started.append(StandIn(EngineError("the worker died")))
        return started[-1]

    with Live(RETINA, connect) as live:
        live.judge(PLAIN)
        live.judge(PLAIN)
        assert len(started) == 1
        started[-1].close()
        live.judge(PLAIN)
    assert len(started) == 2
    assert started[-1].closed


def failing_checker(error: Exception) -> Any:
    def check(*_: object, **__: object) -> Any:
        raise error

    return SimpleNamespace(check=check)


def as_retina(folder: Path) -> Record:
    """Return a record as if it were one of the case that is fuzzed."""
    record = Record(folder)
    record.case = RETINA.id
    return record


def test_what_only_the_new_engine_refuses_is_a_difference(record_folder: Path) -> None:
    live = Live(RETINA, lambda: StandIn(EngineError("")))  # type: ignore[arg-type, return-value]
    live.checker = failing_checker(RuntimeError("stride\nmismatch"))
    outcome = live._checked(as_retina(record_folder))
    assert (outcome.kind, outcome.reason) == (Kind.NEW_FAILS, "RuntimeError: stride mismatch")
    live.checker = failing_checker(ParityError("constant buffers differ"))
    with pytest.raises(ParityError, match="constant buffers differ"):
        live._checked(as_retina(record_folder))


def test_comparing_nothing_is_not_the_same(record_folder: Path) -> None:
    live = Live(RETINA, lambda: StandIn(EngineError("")))  # type: ignore[arg-type, return-value]
    live.checker = SimpleNamespace(check=lambda *_, **__: [])  # type: ignore[assignment]
    assert live._checked(as_retina(record_folder)).kind is Kind.DIVERGED


def test_a_detector_is_built_and_filled_only_where_that_changes_something(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(RemoteSession, "load", lambda *_: asked.append("load") or {})
    monkeypatch.setattr(RemoteSession, "fill", lambda *_: asked.append("fill") or "")
    monkeypatch.setattr(RemoteSession, "train", lambda *_, **__: asked.append("train"))
    session = SteadySession.__new__(SteadySession)
    for seed, dtype in ((0, "fp64"), (0, "fp64"), (1, "fp64"), (1, "fp32")):
        session.load("case", dtype)
        session.fill(seed)
    assert asked == ["load", "fill", "fill", "load", "fill"]
    session.train({})
    session.load("case", "fp32")
    session.fill(1)
    assert asked[5:] == ["train", "load", "fill"]


def stand_in_live(record_folder: Path, outcome: Outcome) -> Any:
    """Return a ``Live`` whose situations all end so, and whose records are copies of a committed one."""

    def freeze(batch: Batch, folder: Path, name: str) -> Record:
        return Record(Path(shutil.copytree(record_folder, folder / RETINA.id / name)))

    return SimpleNamespace(case=RETINA, judge=lambda _: outcome, freeze=freeze)


def options(**given: object) -> Any:
    return SimpleNamespace(**{"situation": None, "examples": 5, "seed": 0, "kind": None, "save_failing": None, **given})


def test_a_difference_is_kept_as_a_record_with_the_command_that_shows_it(tmp_path: Path, record_folder: Path) -> None:
    live = stand_in_live(record_folder, Outcome(Kind.DIVERGED, (DIVERGED,)))
    found = fuzz_live(live, options(save_failing=tmp_path))
    assert not found.passed
    (kept,) = (path for path in (tmp_path / RETINA.id).iterdir() if path.is_dir())
    assert kept.name.startswith("fuzz-neck-")
    text = "\n".join(found.lines)
    again = f"parity check {RETINA.id} --fixtures {tmp_path} --stage neck --mode isolated --dtype fp64"
    assert f"to reproduce: {again}" in text
    assert f"saved: {kept}" in text
    assert f"live again: parity fuzz {RETINA.id} --situation {kept}.json" in text
    assert read_situation(kept.with_suffix(".json")) == PLAIN
    assert not fuzz_live(live, options(situation=kept.with_suffix(".json"))).passed


def test_an_engine_that_fails_alone_leaves_the_situation_and_says_why(tmp_path: Path, record_folder: Path) -> None:
    live = stand_in_live(record_folder, Outcome(Kind.LEGACY_FAILS, (), "it aborts", "line 1\nline 2"))
    text = "\n".join(fuzz_live(live, options(save_failing=tmp_path)).lines)
    (kept,) = (tmp_path / RETINA.id).iterdir()
    assert kept.name.startswith("fuzz-error-")
    assert f"it aborts\n  line 1\n  line 2\nto reproduce: parity fuzz {RETINA.id} --situation {kept}" in text


def test_without_a_folder_nothing_is_kept_and_the_message_says_how(
    record_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "\n".join(fuzz_live(stand_in_live(record_folder, Outcome(Kind.DIVERGED, (DIVERGED,))), options()).lines)
    assert "to reproduce: the same with --save-failing DIR" in text
    assert "saved" not in text
    assert capsys.readouterr().out == f"{RETINA.id}: NOT the same in situation 1; looks for smaller ones\n"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, record_folder: Path) -> None:
    (tmp_path / "file").write_text("")
    live = stand_in_live(record_folder, SAME)
    with pytest.raises(ParityError, match=r"--save-failing: .*could not be written"):
        save(live, PLAIN, Outcome(Kind.DIVERGED, (DIVERGED,)), tmp_path / "file")


def test_the_summary_counts_situations_and_what_is_special_about_them() -> None:
    refused = Outcome(Kind.REFUSED, reason="both too small")
    outcomes = {PLAIN: SAME, STEP: SAME, Batch(seed=1, pictures=PLAIN.pictures): refused}
    lines = list(told(Search(outcomes, drawn=3, seconds=4.2), FCN, None))
    assert lines[0] == f"{FCN.id}: 3 situations, 2 the same, 1 refused by both engines (4 s)"
    assert "3 usual weights" in lines[1]
    assert "1 training step" in lines[1]
    assert lines[-1] == "  refused by both engines, 1 times: both too small"


def test_a_situation_that_failed_is_described() -> None:
    outcome = Outcome(Kind.NEW_FAILS, (), "ValueError: no")
    text = "\n".join(told(Search({STEP: outcome}, STEP, 1), FCN, None))
    assert "an error in the new engine alone; the smallest such situation of 0 tried after the first:" in text
    assert "a training step, weights of seed 0\n  image of 32x40 on ground 2: class 7 at (0, 4, 9.5, 8)" in text


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--examples", "0"), "--examples 0: one situation or more"),
        (("--kind", "training"), "stock_retinanet_r50_1x declares no training"),
        (("--situation", "none.json"), "none.json holds no situation"),
        (("--legacy-python", "/no/python"), "--legacy-python /no/python: no such program"),
    ],
)
def test_a_wrong_call_is_one_line(
    words: tuple[str, ...], line: str, parity_command: Callable[..., tuple[int, str, str]]
) -> None:
    status, _, err = parity_command("fuzz", RETINA.id, *words)
    assert status == 2
    assert line in err
    assert err.count("\n") == 1
