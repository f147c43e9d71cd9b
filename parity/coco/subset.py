"""A part of a COCO: some of its images, with their annotations byte for byte as they were.

An instances file and the panoptic file of the same images are cut alike, in one go.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec import Raw

from parity.coco import jsonfile
from parity.coco.annotations import AnnotationFile, Image
from parity.errors import ParityError

Choice = Callable[[AnnotationFile], set[int]]
Content = dict[str, Raw | list[Raw]]


@dataclass(frozen=True)
class Kept:
    """How much of a file was kept."""

    output: Path
    images: int
    of_images: int
    annotations: int
    of_annotations: int

    def line(self) -> str:
        """Return it in words."""
        return (
            f"{self.output}: {self.images} of {self.of_images} images,"
            f" {self.annotations} of {self.of_annotations} annotations"
        )


def cut(source: Path, output: Path, choice: Choice, *, panoptic: tuple[Path, Path] | None = None) -> list[Kept]:
    """Write the images that ``choice`` picks from ``source``, in their order there.

    Args:
        panoptic: a panoptic file and where the same images of it go.

    Raises:
        ParityError: a file cannot be read or written, an annotation's image is missing, nothing is chosen, or the
            panoptic file lacks an image.
    """
    pairs = [(source, output), *([panoptic] if panoptic else [])]
    jsonfile.expect_different([target for _, target in pairs], inputs=[path for path, _ in pairs])
    files = [AnnotationFile(path) for path, _ in pairs]
    chosen = choice(files[0])
    if not chosen:
        raise ParityError(f"{source}: no image is chosen, so nothing is written")
    outputs = [target for _, target in pairs]
    parts = [_part(file, chosen) for file in files]
    contents = {target: jsonfile.object_chunks(part) for target, part in zip(outputs, parts, strict=True)}
    jsonfile.write(contents, inputs=[path for path, _ in pairs])
    return [
        Kept(target, len(part["images"]), len(file.images), len(part.get("annotations", ())), len(file.annotations))
        for target, file, part in zip(outputs, files, parts, strict=True)
    ]


def _part(file: AnnotationFile, chosen: Collection[int]) -> Content:
    """Return what goes into the output: everything but what belongs to other images."""
    images = [image.id for image in file.read_images()]
    missing = sorted(set(chosen) - set(images))
    if missing:
        raise ParityError(f"{file.path} lacks {len(missing)} of the chosen images, {_few(missing)}")
    owners = [owner.image_id for owner in file.read_owners()]
    known = set(images)
    for index, owner in enumerate(owners):
        if owner not in known:
            raise ParityError(
                f"{file.path}: annotations[{index}] belongs to image {owner}, which is not there;"
                " `parity coco check` finds all such"
            )
    part: Content = dict(file.top)
    part["images"] = [entry for entry, number in zip(file.images, images, strict=True) if number in chosen]
    if "annotations" in part:
        part["annotations"] = [entry for entry, owner in zip(file.annotations, owners, strict=True) if owner in chosen]
    return part


def _few(numbers: Sequence[object]) -> str:
    return ", ".join(map(str, numbers[:5])) + (", …" if len(numbers) > 5 else "")


def first(count: int) -> Choice:
    """Choose the first images of the file; more than there are is an error."""
    return lambda file: {image.id for image in _at_most(file, count)[:count]}


def sample(count: int, *, seed: int) -> Choice:
    """Choose images by chance. It depends on seed and ids alone, and a larger sample holds every smaller one."""

    def rank(image: Image) -> tuple[bytes, int]:
        return hashlib.sha256(f"{seed}/{image.id}".encode()).digest(), image.id

    return lambda file: {image.id for image in sorted(_at_most(file, count), key=rank)[:count]}


def _at_most(file: AnnotationFile, count: int) -> list[Image]:
    images = list(file.read_images())
    if not 0 < count <= len(images):
        raise ParityError(f"{file.path} has {len(images)} images: {count} cannot be chosen")
    return images


def given(ids: Collection[int]) -> Choice:
    """Choose images by their ids."""

    def choose(file: AnnotationFile) -> set[int]:
        missing = sorted(set(ids) - {image.id for image in file.read_images()})
        if missing:
            raise ParityError(f"{file.path} has no image with id {_few(missing)}")
        return set(ids)

    return choose


def one(name: str) -> Choice:
    """Choose one image by its file name or its id."""

    def choose(file: AnnotationFile) -> set[int]:
        found = {image.id for image in file.read_images() if name in (image.file_name, str(image.id))}
        if not found:
            raise ParityError(f"{file.path} has no image with the file name or id {name}")
        return found

    return choose


def with_objects(*, wanted: bool, crowds: bool = False) -> Choice:
    """Choose the images that have objects, or those that have none.

    A crowd gives no box to learn and counts as no object unless ``crowds``. Of a panoptic file's segments the things
    count as objects, the stuff does not.
    """

    def choose(file: AnnotationFile) -> set[int]:
        occupied = set(_occupied(file, crowds=crowds))
        return {image.id for image in file.read_images() if (image.id in occupied) == wanted}

    return choose


def _occupied(file: AnnotationFile, *, crowds: bool) -> Iterator[int]:
    things = {category.id for category in file.read_categories() if category.isthing}
    for owner in file.read_owners():
        if owner.segments_info is None:
            if crowds or not owner.iscrowd:
                yield owner.image_id
        elif any(each.category_id in things and (crowds or not each.iscrowd) for each in owner.segments_info):
            yield owner.image_id
