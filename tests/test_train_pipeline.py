"""The stage of the training data: what it runs, and what it would see of a port's mistakes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from altered_engine import Altered, Change
from torch import Tensor

from parity.cases.base import Seen, base_name
from parity.cases.common import SQUARE_IMAGES
from parity.cases.registry import find_case
from parity.compare.pipeline import other_questions
from parity.compare.tensors import measure
from parity.engines.mmdet3 import Mmdet3Engine
from parity.engines.train_pipeline import train_pipeline
from parity.errors import ParityError
from parity.records.odd_coco import ODD, Odd, odd_coco

DETR, NORMAL, WITH_CROPS = "ddq_detr_4scale_r50_12e", "ddq_fcn_r50_12e", "ddq_fcn_r50_36e"
IMAGES = (ODD[0], ODD[2], ODD[5])  # usual, crowd and boxes beyond the edge; without an object; too small


def run(
    case: str,
    change: Change = lambda config: None,
    *,
    forced: dict[str, Tensor] | None = None,
    seed: int = 1,
    images: Sequence[Odd] = IMAGES,
) -> dict[str, Tensor]:
    files, annotations = odd_coco(1, images)
    engine = Altered(change)
    found = train_pipeline(
        engine, find_case(case), files=files, annotations=annotations, epochs=1, seed=seed, forced=forced
    )
    return found.tensors


@cache
def reference(case: str) -> dict[str, Tensor]:
    return run(case)


def draws(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if base_name(name) == "draws"}


def differing(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> set[str]:
    """Return the names, without index, of what is not the very same."""
    names = actual.keys() | expected.keys()
    same = {
        name
        for name in actual.keys() & expected.keys()
        if actual[name].shape == expected[name].shape and measure(actual[name], expected[name]).max_abs == 0.0
    }
    return {base_name(name) for name in names - same}


@pytest.mark.parametrize("case", [DETR, NORMAL, WITH_CROPS])
def test_the_same_draws_give_the_same_data_whatever_the_seed(case: str) -> None:
    assert differing(run(case, seed=3), reference(case)) >= {"draws", "pixels_sums"}
    assert differing(run(case, seed=3, forced=draws(reference(case))), reference(case)) == set()


def scales(config: Any) -> Any:
    return config.train_dataloader.dataset.pipeline[3].transforms[1]


MISTAKES: dict[str, tuple[str, Change, set[str]]] = {
    "one scale less": (DETR, lambda c: scales(c)[2].scales.pop(), {"draws"}),
    "a scale more": (DETR, lambda c: scales(c)[0].scales.append((601, 1333)), {"draws"}),
    "another scale": (DETR, lambda c: scales(c)[2].update(scales=[(479, 1333)] * 11), {"img_shape"}),
    "another crop": (DETR, lambda c: scales(c)[1].update(crop_size=(384, 601)), {"draws"}),
    "no keeping of the ratio": (DETR, lambda c: scales(c)[2].update(keep_ratio=False), {"img_shape"}),
    "a flip too seldom": (DETR, lambda c: c.train_dataloader.dataset.pipeline[2].update(prob=0.4), {"draws"}),
    "vertical flips": (
        NORMAL,
        lambda c: c.train_dataloader.dataset.pipeline[3].update(direction="vertical"),
        {"pixels_sums", "boxes"},
    ),
    "boxes not clipped": (
        NORMAL,
        lambda c: c.train_dataloader.dataset.pipeline[2].update(clip_object_border=False),
        {"boxes"},
    ),
    "another interpolation": (
        NORMAL,
        lambda c: c.train_dataloader.dataset.pipeline[2].update(interpolation="area"),
        {"pixels_sums", "batch_sums"},
    ),
    "BGR": (NORMAL, lambda c: c.model.data_preprocessor.update(bgr_to_rgb=False), {"batch_sums"}),
    "another mean": (
        NORMAL,
        lambda c: c.model.data_preprocessor.update(mean=[123.675, 116.28, 103.5300001]),
        {"batch_sums"},
    ),
    "padding to 64": (NORMAL, lambda c: c.model.data_preprocessor.update(pad_size_divisor=64), {"batch_shape"}),
    "empty images kept": (
        NORMAL,
        lambda c: c.train_dataloader.dataset.filter_cfg.update(filter_empty_gt=False),
        {"image_ids"},
    ),
    "empty images left out": (
        DETR,
        lambda c: c.train_dataloader.dataset.filter_cfg.update(filter_empty_gt=True),
        {"image_ids"},
    ),
    "small images kept": (DETR, lambda c: c.train_dataloader.dataset.filter_cfg.update(min_size=0), {"image_ids"}),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_config_shows(mistake: str) -> None:
    case, change, where = MISTAKES[mistake]
    found = differing(run(case, change, forced=draws(reference(case))), reference(case))
    assert where <= found


def test_one_pixel_off_by_one_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the sums, wherever it is: of 3 million values, few are samples."""
    from mmdet.datasets.transforms import PackDetInputs

    pack = PackDetInputs.transform

    def worn(self: Any, results: dict[str, Any]) -> Any:
        results["img"][5, 7, 1] ^= 1
        return pack(self, results)

    expected = reference(NORMAL)
    monkeypatch.setattr(PackDetInputs, "transform", worn)
    assert differing(run(NORMAL, forced=draws(expected)), expected) == {"pixels_sums", "batch_sums"}


def test_what_is_parsed_is_what_cocos_own_fields_say() -> None:
    """Of the first image: its ordinary objects and the two cut by the edge; no box outside; the crowd apart."""
    tensors = reference(NORMAL)
    assert tensors["image_ids"].tolist() == [1]
    assert len(tensors["parsed_boxes[0]"]) == 3 + 2
    assert tensors["parsed_ignored_boxes[0]"].tolist() == [[40.0, 40.0, 90.0, 80.0]]
    annotations = json.loads(odd_coco(1, IMAGES)[1])["annotations"]
    first = annotations[0]["bbox"]
    assert tensors["parsed_boxes[0]"][0, 2].item() == pytest.approx(first[0] + first[2], rel=1e-6)


def test_every_oddity_is_in_the_data_set() -> None:
    files, annotations = odd_coco(1)
    content = json.loads(annotations)
    assert len(files) == len(content["images"]) == len(ODD)
    assert files == odd_coco(1)[0]
    counts = [sum(thing["image_id"] == image["id"] for thing in content["annotations"]) for image in content["images"]]
    assert min(counts) == 0
    assert max(counts) == 100


def test_another_question_is_named() -> None:
    expected = draws(reference(DETR))
    assert other_questions(expected, expected) == ()
    table = torch.tensor([[0.0, 2.0, 1.0, 0.5], [0.0, 11.0, 4.0, 1 / 11]], dtype=torch.float64)
    fewer = torch.tensor([[0.0, 2.0, 1.0, 0.5], [0.0, 3.0, 2.0, 1 / 3]], dtype=torch.float64)
    (note,) = other_questions({"draws[7]": fewer}, {"draws[7]": table})
    assert note == (
        "draws[7]: at draw 1 the new engine asks for a number from 0 to 2, 2 having probability 0.333333,"
        " the legacy engine asked for a number from 0 to 10, 4 having probability 0.0909091"
    )
    (note,) = other_questions({"draws[7]": table[:1]}, {"draws[7]": table})
    assert "at draw 1 the new engine asks for nothing more" in note


def test_many_notes_are_counted() -> None:
    expected = draws(reference(DETR))
    many = {f"draws[{number}]": table for number in range(8) for table in list(expected.values())[:1]}
    notes = other_questions({}, many)
    assert len(notes) == 6
    assert notes[-1] == "… and in 3 more examples"


def test_files_that_do_not_fit_the_annotations_are_refused() -> None:
    files, annotations = odd_coco(1, IMAGES)
    with pytest.raises(ParityError, match="2 image files for annotations that list 3"):
        train_pipeline(Mmdet3Engine(), find_case(DETR), files=files[:2], annotations=annotations, epochs=1, seed=0)


WIDE, HIGH = True, False


def grouped(actual: list[bool], sizes: list[tuple[int, int]]) -> Seen:
    """Return what the deviation sees of three images whose batching the legacy engine does as WIDE, HIGH, HIGH."""
    images = [{"id": 7 + place, "height": high, "width": wide} for place, (high, wide) in enumerate(sizes)]
    text = json.dumps({"images": images}).encode()
    truth = {
        "train_pipeline/annotations": torch.frombuffer(bytearray(text), dtype=torch.uint8),
        "train_pipeline/image_ids": torch.tensor([7, 8, 9]),
    }
    expected = torch.tensor([WIDE, HIGH, HIGH])
    return Seen("train_pipeline", "batched_with_first", torch.tensor(actual), expected, truth=truth)


@pytest.mark.parametrize(
    ("actual", "explained"),
    [
        ([WIDE, WIDE, HIGH], True),
        ([WIDE, WIDE, WIDE], False),  # one that is not square, too
        ([WIDE, WIDE], False),
    ],
)
def test_only_square_images_may_be_batched_otherwise(actual: list[bool], explained: bool) -> None:
    seen = grouped(actual, [(40, 60), (40, 40), (60, 40)])
    assert SQUARE_IMAGES.explains(seen) is explained
    assert SQUARE_IMAGES.concerns(seen)


@pytest.mark.parametrize("sizes", [[(40, 60), (50, 40), (60, 40)], [(40, 40), (50, 40), (60, 40)]])
def test_batching_need_not_differ_without_a_square_image_behind_another(sizes: list[tuple[int, int]]) -> None:
    assert not SQUARE_IMAGES.concerns(grouped([WIDE, HIGH, HIGH], sizes))


def test_mmdet_3_batches_square_images_with_wide_ones() -> None:
    wide, square, high = Odd(40, 60, objects=1), Odd(40, 40, objects=1), Odd(60, 40, objects=1)
    tensors = run(NORMAL, images=(wide, square, high))
    assert tensors["batched_with_first"].tolist() == [True, True, False]
