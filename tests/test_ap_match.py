"""Matching detections: identical ones all match; a shift, a class, a score that differs does not pass unseen."""

from __future__ import annotations

import numpy as np
import pytest

from parity.ap.frames import Detections, Predictions
from parity.ap.match import ALONE, RELABELLED, SAME, iou, match, match_image
from parity.errors import ParityError


def detections(count: int, *, seed: int = 0, least: float = 4.0, most: float = 300.0) -> Detections:
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 300, (count, 2))
    boxes = np.concatenate([corners, corners + random.uniform(least, most, (count, 2))], axis=1).astype(np.float32)
    return Detections(boxes, random.random(count, dtype=np.float32), random.integers(0, 80, count, dtype=np.int32))


def shifted(found: Detections, pixels: float) -> Detections:
    return Detections(found.boxes + np.float32([pixels, 0, pixels, 0]), found.scores, found.labels)


def several(images: int = 5, **sizes: float) -> Predictions:
    return {image: detections(40, seed=image, **sizes) for image in range(images)}


def test_identical_detections_all_match_in_any_order() -> None:
    expected = several()
    actual = {
        image: Detections(found.boxes[::-1], found.scores[::-1], found.labels[::-1])
        for image, found in expected.items()
    }
    matching = match(actual, expected)
    assert (matching.total.legacy, matching.total.new, matching.total.matched) == (200, 200, 200)
    assert matching.total.share == 1.0
    assert matching.relabelled == 0
    assert matching.shift == (0.0,) * 4
    assert matching.most_different(50) == []
    assert sum(tally.legacy for tally in matching.sizes.values()) == 200
    assert sum(tally.matched for tally in matching.classes.values()) == 200


def test_a_shift_of_half_a_pixel_loses_small_boxes_and_moves_large_ones() -> None:
    small, large = several(least=4, most=40), several(least=150, most=300)
    lost = match({image: shifted(found, 0.5) for image, found in small.items()}, small)
    assert lost.total.share < 0.1
    moved = match({image: shifted(found, 0.5) for image, found in large.items()}, large)
    assert moved.total.share > 0.9
    assert moved.shift == pytest.approx((0.5, 0, 0.5, 0), abs=1e-4)
    assert moved.greatest_offset == pytest.approx(0.5, abs=1e-4)


def test_another_class_is_told_apart_from_no_match() -> None:
    expected = detections(6)
    actual = Detections(expected.boxes, expected.scores, expected.labels.copy())
    actual.labels[2] = (actual.labels[2] + 1) % 80
    found = match_image(1, actual, expected)
    assert found.legacy.tolist() == [SAME, SAME, RELABELLED, SAME, SAME, SAME]
    assert found.difference == pytest.approx(2 * expected.scores[2])
    assert match({1: actual}, {1: expected}).relabelled == 1


def test_a_score_that_differs_by_more_than_the_allowance_does_not_match() -> None:
    expected = detections(4)
    for difference, state in ((5e-5, SAME), (2e-4, ALONE)):
        actual = Detections(expected.boxes, expected.scores + np.float32(difference), expected.labels)
        assert match_image(1, actual, expected).new.tolist() == [state] * 4


def test_boxes_that_coincide_are_paired_once_each() -> None:
    one = detections(1)
    doubled = Detections(one.boxes.repeat(2, 0), one.scores.repeat(2), np.array([3, 4], np.int32))
    assert match_image(1, doubled, doubled).legacy.tolist() == [SAME, SAME]
    thrice = Detections(one.boxes.repeat(3, 0), one.scores.repeat(3), np.array([3, 3, 4], np.int32))
    found = match_image(1, thrice, doubled)
    assert sorted(found.new.tolist()) == [SAME, SAME, ALONE]


def test_missing_and_extra_detections_lower_the_share_alike() -> None:
    expected = several(1)
    fewer = {0: Detections(*(getattr(expected[0], name)[:30] for name in ("boxes", "scores", "labels")))}
    assert match(fewer, expected).total.share == match(expected, fewer).total.share == 0.75


def test_the_images_that_differ_most_come_first() -> None:
    expected = several(4)
    actual = dict(expected)
    for image, count in ((1, 3), (2, 30)):
        found = expected[image]
        scores = found.scores.copy()
        scores[:count] += np.float32(0.01)
        actual[image] = Detections(found.boxes, scores, found.labels)
    assert [found.image for found in match(actual, expected).most_different(50)] == [2, 1]


def test_boxes_without_area_overlap_where_they_are_the_same() -> None:
    boxes = np.float32([[3, 3, 3, 9], [4, 4, 4, 4]])
    assert iou(boxes, boxes).tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_different_images_or_none_are_refused() -> None:
    with pytest.raises(ParityError, match=r"predicted different images, such as \[4\]"):
        match(several(4), several(5))
    with pytest.raises(ParityError, match="no predictions to match"):
        match({}, {})


def test_no_detections_at_all_are_the_same() -> None:
    empty = {0: detections(0)}
    assert match(empty, empty).total.share == 1.0
    assert match({0: detections(3)}, empty).total.share == 0.0


def test_an_image_differs_by_visible_offsets_too() -> None:
    expected = several(3, least=150, most=300)
    actual = dict(expected) | {1: shifted(expected[1], 0.5), 2: shifted(expected[2], 0.01)}
    assert [found.image for found in match(actual, expected).most_different(50)] == [1]
