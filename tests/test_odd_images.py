"""Images as cameras, phones and editors write them: each is what its name says, and is read as such."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from parity.cases.base import PREPROCESS, TRAIN_IMAGES, Batch, Case
from parity.cases.odd_images import PREFIX, WAYS
from parity.cases.registry import all_cases
from parity.engines.mmdet3 import Mmdet3Engine
from parity.errors import ParityError
from parity.mutants.families.images import READERS
from parity.mutants.plant import Plant
from parity.records.images import drawn, encoded_images
from parity.records.odd_coco import WRITTEN
from parity.records.odd_images import ENCODERS, is_quarter_turn, with_orientation, written_as

SIZE = (36, 52)
SCENE = drawn(*SIZE, seed=1, index=0)


def opened(content: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(content))
    picture.load()
    return picture


def read(content: bytes) -> np.ndarray:
    """Return pixels (height, width, 3) uint8 BGR, as the new engine's own reader gives them."""
    import mmcv

    pixels: np.ndarray = mmcv.imfrombytes(content, flag="color")
    return pixels


def test_every_way_is_written() -> None:
    assert tuple(ENCODERS) == WAYS
    assert {odd.form for odd in WRITTEN} == set(WAYS)
    with pytest.raises(ParityError, match="no image is written as 'jpeg upside down'; there are: jpeg turned 1; "):
        written_as("jpeg upside down", SCENE)
    with pytest.raises(ParityError, match="no image is written as 'tiff'"):
        encoded_images(Batch(seed=3, files=(f"{PREFIX}tiff",)), seed=3)


def test_every_case_is_compared_on_them() -> None:
    for case in all_cases().values():
        if case.records:
            record = case.records["odd-images"]
            assert record.files == tuple(PREFIX + way for way in WAYS)
            assert record.stages == (PREPROCESS,)


@pytest.mark.filterwarnings("ignore")  # of reading configs
def test_every_training_pipeline_is_compared_on_them_in_some_case() -> None:
    def pipeline(case: Case) -> list[Any]:
        steps: list[Any] = Mmdet3Engine().config(case).train_dataloader.dataset.pipeline
        return steps

    trained = [case for case in all_cases().values() if case.recipe_stages]
    shown = [case for case in trained if TRAIN_IMAGES in case.recipe_stages]
    assert {case.id.split("_r50")[0] for case in shown} == {"ddq_fcn", "ddq_rcnn", "ddq_detr_4scale"}
    assert len(trained) == 7
    for case in trained:
        assert any(pipeline(other) == pipeline(case) for other in shown), case.id


@pytest.mark.parametrize("way", WAYS)
def test_a_reader_shows_each_in_its_size(way: str) -> None:
    height, width = SIZE
    shown = (width, height) if is_quarter_turn(way) else (height, width)
    assert read(written_as(way, SCENE)).shape == (*shown, 3)


def orientation(way: str) -> int:
    return int(way.partition("turned ")[2][:1] or 1)


@pytest.mark.parametrize("way", WAYS)
def test_each_is_the_scene(way: str) -> None:
    """Exact where nothing is lost, near it elsewhere: a wrong turn or channel is further off than any loss."""
    picture = SCENE.convert("1" if "1 bit" in way else "L" if "grey" in way else "RGB").convert("RGB")
    picture.getexif()[0x0112] = orientation(way)
    expected = np.asarray(ImageOps.exif_transpose(picture), dtype=np.float64)[:, :, ::-1]
    actual = read(written_as(way, SCENE)).astype(np.float64)
    lost = 30.0 if way.startswith("jpeg") or way == "webp" or "palette" in way else 0.0
    assert np.abs(actual - expected).mean() <= lost
    for wrong in (actual[::-1], actual[:, ::-1], actual[::-1, ::-1], 255.0 - actual):
        assert np.abs(wrong - expected).mean() > 30.0


@pytest.mark.parametrize(
    ("way", "mode", "facts"),
    [
        ("jpeg progressive", "RGB", {"progressive": 1}),
        ("jpeg grey", "L", {}),
        ("jpeg cmyk", "CMYK", {"adobe_transform": 0}),
        ("png palette", "P", {}),
        ("png palette, transparent", "P", {}),
        ("png of 1 bit", "1", {}),
        ("png interlaced", "RGB", {"interlace": 1}),
        ("png interlaced with alpha", "RGBA", {"interlace": 1}),
        ("png with alpha", "RGBA", {}),
        ("png grey with alpha", "LA", {}),
        ("png of 16 bits, grey", "I;16", {}),
        ("png with a gamma", "RGB", {"gamma": 1.0}),
        ("webp with alpha", "RGBA", {}),
    ],
)
def test_each_has_the_form_of_its_name(way: str, mode: str, facts: dict[str, Any]) -> None:
    picture = opened(written_as(way, SCENE))
    assert picture.mode == mode
    assert {name: picture.info[name] for name in facts} == facts


def test_a_palette_runs_from_transparent_to_opaque() -> None:
    alpha = opened(written_as("png palette, transparent", SCENE)).info["transparency"]
    assert (alpha[:3], len(alpha)) == (b"\0\1\2", len(set(alpha)))


def test_bits_and_colour_types_are_written_as_asked() -> None:
    heads = {way: written_as(way, SCENE)[24:26] for way in WAYS if way.startswith("png of 16 bits")}
    assert {way: tuple(head) for way, head in heads.items()} == {
        "png of 16 bits, grey": (16, 0),
        "png of 16 bits": (16, 2),
        "png of 16 bits, grey with alpha": (16, 4),
        "png of 16 bits with alpha": (16, 6),
    }
    assert tuple(written_as("png palette of 4 bits", SCENE)[24:26]) == (4, 3)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pillow_turns_as_opencv_does(order: str, orientation: int) -> None:
    content = with_orientation(written_as("jpeg of whole colours", SCENE), orientation, order=order)
    turned = ImageOps.exif_transpose(opened(content))
    assert np.array_equal(read(content), np.asarray(turned)[:, :, ::-1])


def test_opencv_5_turns_a_webp_too() -> None:
    """OpenCV 4.5 of the old engines does not (docs/legacy-quirks.md), so that no record has such an image."""
    exif, content = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    SCENE.save(content, "WEBP", exif=exif)
    assert read(content.getvalue()).shape == (52, 36, 3)


OWN = [
    (name, plant) for name, plant, *_ in READERS if name not in ("exif-ignored", "pillow-reader")
]  # those set configs


@pytest.mark.parametrize("plant", [plant for _, plant in OWN], ids=[name for name, _ in OWN])
def test_a_wrong_reader_shows_on_some_way_and_on_no_ordinary_file(plant: Plant) -> None:
    files = {way: written_as(way, SCENE) for way in WAYS}
    right = {way: read(content) for way, content in files.items()}
    with plant():
        wrong = {way for way, content in files.items() if not np.array_equal(read(content), right[way])}
    assert wrong
    assert not wrong & {"jpeg turned 1", "jpeg progressive", "png interlaced", "webp"}
    assert all(np.array_equal(read(content), right[way]) for way, content in files.items())


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("setting", [{"flag": "color_ignore_orientation"}, {"flag": "color", "backend": "pillow"}])
def test_other_settings_of_the_reader_show_too(setting: dict[str, Any]) -> None:
    import mmcv

    def differs(content: bytes) -> bool:
        return not np.array_equal(mmcv.imfrombytes(content, **setting), read(content))

    wrong = {way for way in WAYS if differs(written_as(way, SCENE))}
    turned = {way for way in WAYS if orientation(way) in range(2, 9)}
    pillow = {"jpeg cmyk", "jpeg cmyk, turned 5", "png of 16 bits, grey", "png grey with alpha"}
    assert wrong == (pillow if "backend" in setting else turned)
