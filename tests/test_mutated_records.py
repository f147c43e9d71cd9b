"""Altered records, seeded: each is refused in one line or read as before; ``benchmarks/mutated_records.py`` goes on."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from record_mutations import LISTING, Mutation, edited, mutation, with_new_list
from record_reading import Outcome, Subject
from small_record import CASE, RECORD, case, write_small

from parity.cases.registry import find_case
from parity.errors import ParityError
from parity.records.kinds import checks_in
from parity.records.store import Record

COUNT, SEED = 400, 15
MANIFEST = f"{CASE}/{RECORD}/manifest.json"


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    for record in (RECORD, "another"):
        write_small(tmp_path, record)
    return Subject(tmp_path, case())


def test_an_altered_record_is_refused_in_one_line_or_read_as_before(subject: Subject) -> None:
    draw = random.Random(SEED)
    for number in range(COUNT):
        altered = mutation(subject.files, draw)
        read = subject.outcome(altered)
        assert read.outcome is not Outcome.FAULT, (number, altered.how, read.told)
        assert altered.listed_anew or read.outcome is not Outcome.DIFFERENT, (number, altered.how)
    assert subject.outcome(Mutation("", {})).outcome is Outcome.IDENTICAL


def relisted(subject: Subject, edit: Callable[[Any], object]) -> Mutation:
    """Return an edit of the manifest that somebody lists anew."""
    content = edited(subject.files[MANIFEST], lambda plain, _: edit(plain), random.Random(0))
    return Mutation("", with_new_list(subject.files, {MANIFEST: content}, random.Random(0)), listed_anew=True)


def as_json(subject: Subject, edit: Callable[[Any], object]) -> Mutation:
    """Return an edit of the manifest that the list does not know."""
    return Mutation("", {MANIFEST: edited(subject.files[MANIFEST], lambda plain, _: edit(plain), random.Random(0))})


def drop(inside: dict[str, Any], name: str) -> None:
    del inside[name]


def test_what_is_read_and_different_is_noticed_and_tried_on_both_engines(subject: Subject) -> None:
    def louder(plain: Any) -> None:
        for entry in plain["tensors"].values():
            for figures in entry["noise"].values():
                figures.update(max=2e4 * figures["max"], rms=2e4 * figures["rms"])

    for edit, told in (
        (louder, "the right engine passes, the wrong one passes in some checks"),
        (
            lambda plain: plain["checks"].update(stages=["backbone"]),
            "the right engine passes, the wrong one passes everywhere",
        ),
        (lambda plain: drop(plain["tensors"], "neck/p3"), "the right engine fails, the wrong one as before"),
        (lambda plain: plain["engines"].update(legacy={}), "the right engine passes, the wrong one as before"),
    ):
        altered = relisted(subject, edit)
        assert subject.outcome(altered).outcome is Outcome.DIFFERENT
        assert subject.told(altered) == told


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda plain: plain.update(record="another"), "is damaged: it is that of the record 'another'"),
        (
            lambda plain: plain.update(case="ddq_fcn_r50_36e"),
            "is of the case 'ddq_fcn_r50_36e', not of ddq_fcn_r50_12e",
        ),
        (lambda plain: plain.update(kind=None), r"is damaged: Expected `str`, got `null` - at `\$\.kind`"),
        (lambda plain: plain["decisions"]["predict.threshold.0"].update(kind="nms "), "Invalid enum value 'nms '"),
        (lambda plain: plain["decisions"]["predict.threshold.0"]["settings"].update(threshold="x"), "Expected `float`"),
        (lambda plain: drop(plain["weights"], "sha256"), "is damaged: 'sha256' is missing"),
        (lambda plain: plain["weights"].update(sha256=None), "is damaged: part 'weights.sha256'"),
        (lambda plain: plain["batch"].update(scale=[1]), r"is damaged: .*\$\.batch\.scale"),
        (
            lambda plain: plain["tensors"]["neck/p3"].update(file="a\0b"),
            r"is damaged: 'a\\x00b' is no name",
        ),
        (lambda plain: plain["tensors"]["neck/p3"].update(dtype="x" * 100_000), "Invalid enum value 'xxx"),
    ],
)
def test_what_can_be_held_against_something_else_is_refused_though_it_is_listed(
    subject: Subject, edit: Callable[[Any], object], told: str
) -> None:
    altered = relisted(subject, edit)
    read = subject.outcome(altered)
    assert read.outcome is Outcome.REFUSED
    assert re.search(told, read.told), read.told


def test_a_record_that_the_list_does_not_name_is_refused(tmp_path: Path, subject: Subject) -> None:
    lines = (tmp_path / LISTING).read_text().splitlines(keepends=True)
    (tmp_path / LISTING).write_text("".join(line for line in lines if RECORD not in line))
    with pytest.raises(
        ParityError, match=rf"records\.sha256 does not list {CASE}/{RECORD}: restore the list, or freeze"
    ):
        Record(tmp_path / CASE / RECORD)


def test_a_tensor_file_that_is_a_link_to_itself_is_one_line(tmp_path: Path, subject: Subject) -> None:
    path = tmp_path / CASE / RECORD / "neck.safetensors"
    path.unlink()
    path.symlink_to(path.name)
    with pytest.raises(ParityError, match=r"names the file 'neck\.safetensors': .*; restore it"):
        Record(tmp_path / CASE / RECORD)


@pytest.mark.parametrize(
    "edit",
    [
        lambda plain: plain["checks"].update(dtypes=["fp64"]),
        lambda plain: plain["checks"].update(stages=["backbone"]),
        lambda plain: plain.update(kind="recipe"),
        lambda plain: plain.update(limits="<deep>"),
    ],
)
def test_what_an_altered_manifest_says_keeps_no_check_from_reading_it(
    tmp_path: Path, subject: Subject, edit: Callable[[Any], object]
) -> None:
    """``parity check --stage neck --dtype fp32`` would pass over the record, and say that all is the same."""
    (content,) = as_json(subject, edit).changed.values()
    assert content is not None
    (tmp_path / MANIFEST).write_bytes(content)
    checks = checks_in(find_case(CASE), tmp_path / CASE / RECORD)
    assert "neck" in checks.stages
    assert "fp32" in checks.dtypes


def test_the_small_record_is_a_record(tmp_path: Path, subject: Subject) -> None:
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    roles = {entry["role"] for entry in manifest["tensors"].values()}
    kinds = {entry["kind"] for entry in manifest["tensors"].values()}
    assert roles == {"output", "decision", "input", "image", "noise", "unpromoted"}
    assert kinds == {"whole", "samples", "projections", "sketch"}


def test_a_list_that_is_empty_is_refused(tmp_path: Path, subject: Subject) -> None:
    (tmp_path / LISTING).write_text("")
    with pytest.raises(ParityError, match=r"records\.sha256 is empty: restore it, or remove it"):
        Record(tmp_path / CASE / RECORD)
