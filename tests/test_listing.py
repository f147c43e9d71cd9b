"""The list of records: an altered manifest is refused, a record that is gone is missed, a kill loses nothing."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from kills import hidden, killed_at_each_step
from test_records import write

from parity.errors import ParityError
from parity.records.listing import LISTING, missing_records, read_listing
from parity.records.locate import default_fixtures, find_records
from parity.records.store import Record

NEW = {"neck/new": torch.ones(2)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "a_case" / "toy")


def test_all_committed_records_are_listed() -> None:
    fixtures = default_fixtures()
    manifests = sorted(fixtures.glob("*/*/manifest.json"))
    listed = {f"{path.parts[-3]}/{path.parts[-2]}": hashlib.sha256(path.read_bytes()).hexdigest() for path in manifests}
    assert {name: set(digests) for name, digests in read_listing(fixtures).items()} == {
        name: {one} for name, one in listed.items()
    }, "`cd fixtures && sha256sum */*/manifest.json > records.sha256` makes the list anew"
    assert len(manifests) >= 68


def test_a_record_that_is_written_is_listed_as_sha256sum_would(folder: Path) -> None:
    manifest = folder / "manifest.json"
    digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
    assert (folder.parents[1] / LISTING).read_text() == f"{digest}  a_case/toy/manifest.json\n"
    assert (Record(folder).listed, Record(folder).digest) == (True, digest)


def test_a_record_beside_no_list_is_read_and_says_so(folder: Path) -> None:
    (folder.parents[1] / LISTING).unlink()
    assert Record(folder).listed is False


@pytest.mark.parametrize(
    "edit",
    [
        lambda plain: plain["tensors"]["neck/float64"]["noise"]["isolated"].update(max=2.5e8),
        lambda plain: plain["tensors"]["neck/float64"].update(max=3.0e13),
        lambda plain: plain["tensors"].pop("neck/float32"),
        lambda plain: plain.update(islands=[["neck", "somewhere", 1]]),
    ],
)
def test_an_altered_manifest_is_refused(folder: Path, edit: Callable[[dict], object]) -> None:
    path = folder / "manifest.json"
    plain = json.loads(path.read_text())
    edit(plain)
    path.write_text(json.dumps(plain, indent=1, sort_keys=True) + "\n")
    with pytest.raises(
        ParityError, match=r"toy/manifest\.json is not the manifest that .*records\.sha256 lists: restore"
    ):
        Record(folder)


def test_no_bit_of_a_manifest_can_be_flipped(folder: Path) -> None:
    path = folder / "manifest.json"
    content = path.read_bytes()
    for place in random.Random(7).sample(range(8 * len(content)), 400):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(ParityError, match=r"is not the manifest that .*records\.sha256 lists"):
            Record(folder)
    path.write_bytes(content)
    assert Record(folder).listed


@pytest.mark.parametrize(
    "line", ["", "no digest", f"{'0' * 64} a_case/toy/manifest.json", f"{'0' * 64}  ../x/y/manifest.json"]
)
def test_a_line_that_is_not_understood_is_refused(folder: Path, line: str) -> None:
    (folder.parents[1] / LISTING).write_text(f"{line}\n")
    with pytest.raises(ParityError, match=r"records\.sha256, line 1: not a SHA-256 and the manifest"):
        Record(folder)


def test_a_record_that_is_gone_is_missing(folder: Path) -> None:
    write(folder.with_name("other"))
    assert missing_records(folder.parents[1], "a_case") == []
    (folder / "manifest.json").unlink()
    assert missing_records(folder.parents[1], "a_case") == ["toy"]
    assert missing_records(folder.parents[1], "another") == []


def test_replacing_a_record_lists_the_new_one_alone(folder: Path) -> None:
    write(folder, NEW, force=True)
    assert read_listing(folder.parents[1]) == {"a_case/toy": frozenset({Record(folder).digest})}


def test_between_the_two_renames_nothing_is_lost(folder: Path) -> None:
    """As a kill leaves it: the old record under a hidden name, the new one not yet in its place."""
    before = Record(folder).digest
    folder.rename(folder.with_name(".old.toy.abcd1234"))
    (folder.with_name(".toy.abcd1234")).mkdir()
    assert find_records(folder.parents[1]) == [folder]
    assert Record(folder).digest == before
    assert [path.name for path in folder.parent.iterdir()] == ["toy"]


def test_an_old_record_whose_place_was_taken_goes(folder: Path) -> None:
    folder.with_name(".old.toy.abcd1234").mkdir()
    assert find_records(folder.parents[1]) == [folder]
    assert [path.name for path in folder.parent.iterdir()] == ["toy"]


def test_other_hidden_folders_stay(folder: Path) -> None:
    folder.with_name(".git").mkdir()
    find_records(folder.parents[1])
    assert folder.with_name(".git").is_dir()


REPLACER = """
import sys
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[2])
from test_records import write
print("ready", flush=True)
number = 0
while True:
    number += 1
    write(Path(sys.argv[1]), {"neck/new": torch.full((2,), float(number))}, force=True)
"""


def test_a_kill_at_any_moment_leaves_a_record_that_is_read(folder: Path) -> None:
    moments = random.Random(3)
    words = [sys.executable, "-c", REPLACER, str(folder), str(Path(__file__).parent)]
    for _ in range(int(os.environ.get("PARITY_KILLS", "4"))):
        with subprocess.Popen(words, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            time.sleep(0.05 + 0.2 * moments.random())
            writer.send_signal(signal.SIGKILL)
        assert find_records(folder.parents[1]) == [folder]
        record = Record(folder)
        assert record.listed
        assert all(record.tensor(key) is not None for key in record.entries)
        assert [path.name for path in folder.parent.iterdir()] == ["toy"]


def test_a_kill_before_each_thing_it_does_to_files_leaves_a_record_that_is_read(folder: Path) -> None:
    fixtures, before = folder.parents[1], Record(folder).digest

    def checked() -> None:
        assert find_records(fixtures) == [folder]
        record = Record(folder)
        assert record.listed
        assert all(record.tensor(key) is not None for key in record.entries)
        assert list(hidden(fixtures)) == []

    assert killed_at_each_step(lambda: write(folder, NEW, force=True), fixtures, checked) > 8
    assert Record(folder).digest != before
