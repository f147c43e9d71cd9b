"""Image files beside what an annotation file says of them: whether they are there, and of which size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PureWindowsPath

from PIL import Image, UnidentifiedImageError

from parity.coco.entries import Listed
from parity.coco.problems import BEFORE_TURN, NO_FILE_NAME, UNLIKE_FILE, Problems

_ORIENTATION, _LYING = 0x0112, (5, 6, 7, 8)  # EXIF: these turn a picture by a quarter


def check_names(problems: Problems, listed: Sequence[Listed]) -> None:
    """Add what is wrong with the names and sizes of images by themselves."""
    for image in listed:
        where = f"image {image.id}"
        if not image.file_name:
            problems.add(NO_FILE_NAME, where)
        elif Path(image.file_name).is_absolute() or PureWindowsPath(image.file_name).is_absolute():
            problems.add("file name that is absolute", f"{where}: {image.file_name}")
        elif "\\" in image.file_name:
            problems.add("file name with a backslash", f"{where}: {image.file_name}")
        if image.size is None:
            problems.add("image without width and height", where)
        elif min(image.size) <= 0:
            problems.add("image of no size", f"{where}: {image.width} x {image.height}")


def check_files(problems: Problems, listed: Sequence[Listed], folder: Path) -> None:
    """Add which images are not there, cannot be read or are of another size than is said."""
    present(problems, "image file missing", folder, [image.file_name for image in listed if image.file_name])
    for image in listed:
        path = folder / (image.file_name or "")
        if image.file_name and path.is_file():
            _check_file(problems, image, path)


def _check_file(problems: Problems, image: Listed, path: Path) -> None:
    try:
        stored, shown = sizes_of(path)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        problems.add("image file cannot be read", f"{image.file_name}: {error}")
        return
    if image.size in (None, shown):
        return
    kind = BEFORE_TURN if image.size == stored else UNLIKE_FILE
    width, height = shown
    problems.add(kind, f"image {image.id}: {image.width} x {image.height}, {image.file_name} is {width} x {height}")


def sizes_of(path: Path) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return (width, height) of an image file as it is stored, and as readers show it after its EXIF turn.

    Raises:
        OSError: it is no image.
    """
    with Image.open(path) as picture:
        width, height = picture.size
        turned = picture.getexif().get(_ORIENTATION) in _LYING
    return (width, height), ((height, width) if turned else (width, height))


def present(problems: Problems, kind: str, folder: Path, names: Sequence[str]) -> None:
    """Add which of the names are no files of a folder."""
    there = {path.name for path in folder.iterdir()}  # one call, not one for each of 118,287 files
    for name in names:
        if name not in there and not (folder / name).is_file():
            problems.add(kind, name)
