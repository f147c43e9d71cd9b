"""Predictions on disk: whatever is interrupted, what was written is whole."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest
from ap_stand_in import found_on

from parity.ap.frames import (
    Detections,
    PartWriter,
    count_frames,
    is_foreign,
    next_round,
    part_path,
    read_part,
    read_predictions,
)
from parity.errors import ParityError

IDENTITY, OTHER = "5a" * 32, "a5" * 32


def write(folder: Path, images: range, round_: int = 0, identity: str = IDENTITY) -> Path:
    path = part_path(folder, round_, 0)
    writer = PartWriter(path, identity)
    for image in images:
        writer.append(image, found_on(str(image)))
    writer.close()
    return path


def same(first: Detections, second: Detections) -> bool:
    pairs = [(getattr(first, name), getattr(second, name)) for name in ("boxes", "scores", "labels")]
    return all(a.dtype == b.dtype and a.tobytes() == b.tobytes() and a.shape == b.shape for a, b in pairs)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write(tmp_path, range(9))
    found = read_predictions(tmp_path, IDENTITY)
    assert list(found) == list(range(9))
    assert all(same(found[image], found_on(str(image))) for image in found)
    assert {len(one) for one in found.values()} >= {0, 3}  # images without any detection too


def test_a_torn_end_does_not_count_wherever_it_is_torn(tmp_path: Path) -> None:
    path = write(tmp_path, range(3))
    whole = path.read_bytes()
    ends = [count_frames(path)[1]]
    path.write_bytes(whole[: ends[0] - 1])
    ends.insert(0, count_frames(path)[1])
    for size in range(ends[0], len(whole)):
        path.write_bytes(whole[:size])
        assert [image for image, _ in read_part(path, IDENTITY)] == [0, 1]
        assert count_frames(path) == (2, ends[0])


def test_zeros_behind_the_last_frame_do_not_count(tmp_path: Path) -> None:
    path = write(tmp_path, range(3))
    counted = count_frames(path)
    path.write_bytes(path.read_bytes() + bytes(512))  # what some file systems leave when a machine goes down
    assert count_frames(path) == counted
    assert list(read_predictions(tmp_path, IDENTITY)) == [0, 1, 2]


def test_a_disk_that_is_full_ends_the_writing(tmp_path: Path) -> None:
    writer = PartWriter(part_path(tmp_path, 0, 0), IDENTITY)
    writer.append(0, found_on("0"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (part_path(tmp_path, 0, 0).stat().st_size + 9, limits[1]))
        with pytest.raises(ParityError, match=r"part-0-0\.frames cannot be written: no space is left"):
            writer.append(1, found_on("1"))
    finally:
        writer.close()
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert list(read_predictions(tmp_path, IDENTITY)) == [0]


def test_a_last_frame_that_is_damaged_is_done_again(tmp_path: Path) -> None:
    path = write(tmp_path, range(3))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert list(read_predictions(tmp_path, IDENTITY)) == [0, 1]


def test_damage_elsewhere_is_told(tmp_path: Path) -> None:
    path = write(tmp_path, range(3))
    content = bytearray(path.read_bytes())
    content[60] ^= 1
    path.write_bytes(content)
    with pytest.raises(ParityError, match=r"part-0-0\.frames is damaged at byte 48: remove the file"):
        read_predictions(tmp_path, IDENTITY)


def test_an_image_that_is_there_twice_is_told(tmp_path: Path) -> None:
    write(tmp_path, range(3))
    write(tmp_path, range(2, 4), round_=1)
    with pytest.raises(ParityError, match=r"part-1-0\.frames predicts image 2 a second time"):
        read_predictions(tmp_path, IDENTITY)


def test_no_writer_appends_to_what_is_there(tmp_path: Path) -> None:
    write(tmp_path, range(1))
    with pytest.raises(ParityError, match="File exists"):
        PartWriter(part_path(tmp_path, 0, 0), IDENTITY)
    assert next_round(tmp_path) == 1


def test_frames_are_counted_from_where_one_left_off(tmp_path: Path) -> None:
    path = write(tmp_path, range(4))
    first, place = count_frames(path)
    with path.open("ab") as file:
        file.write(write(tmp_path, range(4, 6), round_=1).read_bytes()[40:])
    assert (first, count_frames(path, place)[0]) == (4, 2)


def test_a_part_of_another_identity_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, range(3), identity=OTHER)
    write(tmp_path, range(1, 3), round_=1)
    assert list(read_predictions(tmp_path, IDENTITY)) == [1, 2]
    assert list(read_predictions(tmp_path, OTHER)) == [0, 1, 2]


def test_a_part_without_an_identity_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path, range(3))
    path.write_bytes(path.read_bytes()[40:])  # as an earlier version wrote it
    assert is_foreign(path, IDENTITY)
    assert read_predictions(tmp_path, IDENTITY) == {}


@pytest.mark.parametrize("size", [0, 1, 39])
def test_a_part_that_was_torn_before_its_identity_holds_nothing(tmp_path: Path, size: int) -> None:
    path = write(tmp_path, range(3))
    path.write_bytes(path.read_bytes()[:size])
    assert not is_foreign(path, IDENTITY)
    assert count_frames(path)[0] == 0
    assert read_predictions(tmp_path, IDENTITY) == {}
