"""What is needed to judge a case: images, weights and the legacy engine's predictions; or what is missing of it."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata, util
from pathlib import Path
from typing import Any

from parity.ap.run import Image, Job, Run
from parity.ap.settings import Settings
from parity.cases.base import Case
from parity.cases.outside import outside_folders
from parity.engines.environment import legacy_python
from parity.engines.session import engine_class
from parity.errors import DAMAGE, ParityError
from parity.records.locate import default_fixtures

ANNOTATIONS, IMAGES = "annotations/instances_val2017.json", "val2017"
WEIGHTS, PREDICTIONS, DRAWN = "weights.safetensors", "legacy.safetensors", "drawn.json"
_OUR_CODE = ("engines", "ports", "cases", "weights")
_PACKAGES = ("torch", "mmcv", "mmengine", "mmdet", "numpy")
_TELL_VERSIONS = """
import importlib.metadata, sys
named = {str(found.metadata["Name"]): found.version for found in importlib.metadata.distributions()}
print("Python %s" % sys.version.split()[0], *("%s %s" % pair for pair in sorted(named.items())), sep=", ")
"""


class Missing(Exception):
    """Something that the user has to supply is not there; says what to put where, in one line."""


@dataclass(frozen=True)
class Subject:
    """A case with all that it needs.

    Attributes:
        coco: root of the data.
        checkpoint: the user's file, or the small weights that come with this package.
        shipped: the folder of what comes with this package for a small case; ``None`` for the others.
        root, python: the legacy engine; no Python where its committed predictions stand in.
    """

    case: Case
    coco: Path
    checkpoint: Path
    shipped: Path | None
    root: str
    python: str

    @property
    def annotations(self) -> Path:
        """The annotation file."""
        return self.coco / ANNOTATIONS


def shipped_folder(case: Case) -> Path | None:
    """Return where a small case's weights and predictions are, or ``None`` for a case that has none."""
    folder = default_fixtures() / "ap" / case.id
    return folder if (folder / WEIGHTS).is_file() else None


def find_subject(case: Case, settings: Settings) -> Subject:
    """Return the case with all that it needs.

    Raises:
        Missing: something is not there.
    """
    root = settings.root(case.legacy)
    shipped = shipped_folder(case)
    if shipped:
        python = _python(case, settings) if root else ""
        return Subject(case, settings.folder / "drawn-coco", shipped / WEIGHTS, shipped, root, python)
    checkpoint = settings.checkpoints.get(case.id)
    if checkpoint is None or not checkpoint.is_file():
        place = f"put it at {checkpoint}, or " if checkpoint else ""
        raise Missing(
            f"{case.id} has no checkpoint: {place}name the legacy engine's .pth with --checkpoint {case.id}=FILE"
        )
    for part in (ANNOTATIONS, IMAGES):
        if not (settings.coco / part).exists():
            raise Missing(
                f"COCO val2017 is not there: put {part} below {settings.coco}, or name its root with --coco-root"
            )
    engine = engine_class(case.legacy)
    if engine.checkout and not root:
        raise Missing(
            f"{case.id} needs {engine.checkout} (it has {engine.checkout_file}): name its folder with --legacy-root"
            " or in full_ap.toml"
        )
    return Subject(case, settings.coco, checkpoint, None, root, _python(case, settings))


def _python(case: Case, settings: Settings) -> str:
    try:
        return legacy_python(case.legacy, settings.pythons.get(case.legacy))
    except ParityError as error:
        raise Missing(str(error)) from None


def images_of(subject: Subject, names: Mapping[int, str]) -> list[Image]:
    """Return the images with their paths.

    Raises:
        ParityError: an image file is not there.
    """
    folder = subject.coco / IMAGES
    absent = [name for name in names.values() if not (folder / name).is_file()]
    if absent:
        raise ParityError(
            f"{folder} lacks {len(absent)} of {len(names)} images of {subject.annotations}, such as {absent[0]}"
        )
    return [Image(number, str((folder / name).resolve())) for number, name in sorted(names.items())]


def make_run(subject: Subject, engine: str, weights: Path, images: list[Image], settings: Settings) -> Run:
    """Return the run of one engine, with everything in its identity that its predictions depend on."""
    case, is_legacy = subject.case, engine == subject.case.legacy
    job = Job(
        engine=engine,
        case=case.id,
        weights=str(weights.resolve()),
        python=subject.python if is_legacy else "",
        root=str(Path(subject.root).resolve()) if is_legacy and subject.root else "",
        threads=0 if settings.gpus else 1,
        time_limit=settings.time_limit,
    )
    identity = {
        "case": case.id,
        "engine": engine,
        "device": "cuda" if settings.gpus else "cpu",
        "weights": sha256(weights),
        "annotations": sha256(subject.annotations),
        "images": _contents(tuple(image.path for image in images)),
        **(_legacy_code(job) if is_legacy else _new_code()),
    }
    return Run(settings.folder / case.id / engine, job, images, identity)


def _legacy_code(job: Job) -> dict[str, str]:
    theirs = [Path(job.root) / "projects"] if job.root else []
    return {"code": _code(theirs), "python": job.python, "versions": _versions_of(job.python)}


def _new_code() -> dict[str, str]:
    """Return what the new engine is: a port that is being worked on changes without any version saying so."""
    mmdet = util.find_spec("mmdet")
    if mmdet is None or mmdet.origin is None:
        raise ParityError("the new engine is not here: mmdet cannot be found; `tox run -e prove` sets it up")
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in _PACKAGES)
    return {"code": _code([Path(mmdet.origin).parent]), "versions": versions}


def _code(theirs: list[Path]) -> str:
    """Return one SHA-256 over an engine's code, ours, and the cases from outside this package."""
    ours = [Path(__file__).resolve().parents[1] / name for name in _OUR_CODE]
    return sources([*theirs, *ours, *map(Path, outside_folders())])


@cache
def _versions_of(python: str) -> str:
    """Return the packages of another interpreter: one that was updated is another engine. Nothing where it is remote.

    Raises:
        ParityError: it does not start.
    """
    if "=" in python:
        return ""
    try:
        done = subprocess.run([python, "-c", _TELL_VERSIONS], capture_output=True, text=True, check=False)
    except OSError as error:
        raise ParityError(f"--legacy-python {python} cannot be started: {error.strerror}") from None
    if done.returncode:
        raise ParityError(f"--legacy-python {python} does not say what is installed in it", detail=done.stderr)
    return done.stdout.strip()


@cache
def _contents(paths: tuple[str, ...]) -> str:
    """Return one SHA-256 over the names and contents of some files."""
    digest = hashlib.sha256()
    for path in map(Path, paths):
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def sources(folders: list[Path]) -> str:
    """Return one SHA-256 over all Python files below some folders."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def sha256(path: Path) -> str:
    """Return a file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def data_digest(coco: Path) -> str:
    """Return one SHA-256 over the annotations and all images of a small data set."""
    digest = hashlib.sha256((coco / ANNOTATIONS).read_bytes())
    for path in sorted((coco / IMAGES).iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def read_drawn(shipped: Path) -> dict[str, Any]:
    """Return what is known of a small case: how its data is drawn, and what its predictions were made from."""
    try:
        said = json.loads((shipped / DRAWN).read_text())
    except DAMAGE as error:
        raise ParityError(f"{shipped / DRAWN} cannot be read: {error}") from None
    if not isinstance(said, dict) or said.get("schema") != 1:
        raise ParityError(f"{shipped / DRAWN} is of another schema")
    return said
