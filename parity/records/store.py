"""The frozen store: one folder a record, ``manifest.json`` beside one safetensors file a stage.

A record is written to a temporary folder next to its place and renamed when it is complete. Reading
believes nothing: schema, paths, shapes, dtypes and the SHA-256 of every tensor are checked.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from parity.cases.base import LOSS, TRAJECTORY, Case
from parity.cases.patterns import item
from parity.compare.budgets import Noise
from parity.compare.tensors import measure
from parity.errors import ParityError
from parity.locks import locked_folder
from parity.records.kinds import RECIPE, TRAINING, Checks, checks_said, kind_by_name, require_kind
from parity.records.listing import MANIFEST, digest, listed_as, require_listed
from parity.records.schema import require_schema
from parity.text import one_line, shown

SCHEMA = 1
# Relative: sums of the same numbers in another order, of float32 ones in float32.
SAME_FIGURE = {torch.float64: 1e-9, torch.float32: 1e-5}
NOISE = "noise.safetensors"  # of the tables; measured anew while the truth's own files stay as they are
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float64, torch.float32, torch.int64, torch.int32, torch.bool, torch.uint8)
}


@dataclass(frozen=True)
class Entry:
    """What the manifest says of one stored tensor.

    Attributes:
        name: the tensor's name in the case, without what says how it is kept.
        stage: the stage that made it (or, for a sliced input, the one that is fed it).
        role: ``output``, ``input`` (sliced for the isolated replay, or ground truth), ``decision``, ``image``,
            ``noise`` (of a table: greatest and RMS error of every row), or ``unpromoted…`` (samples of a
            replay with float32 islands left in).
        kind: ``whole``, ``samples``, ``projections`` or ``sketch``.
        modes: which comparisons it is the truth of.
        of_shape: the shape of the tensor that ``samples`` and ``projections`` are taken from.
        noise: mode -> the legacy engine's own float32 error.
        rows: for a table, the list in the manifest's ``rows`` that names what each row is about.
    """

    name: str
    stage: str
    role: str
    kind: str
    modes: tuple[str, ...]
    file: str
    shape: tuple[int, ...]
    of_shape: tuple[int, ...]
    dtype: str
    meaning: str
    unit: str
    sha256: str
    max: float
    rms: float
    noise: Mapping[str, Noise] = field(default_factory=dict)
    rows: str = ""


def sha256(tensor: Tensor) -> str:
    """Return the SHA-256 of a tensor's bytes."""
    return (
        hashlib.sha256(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
        if (tensor.numel())
        else hashlib.sha256(b"").hexdigest()
    )


def write_record(
    folder: Path,
    manifest: Mapping[str, Any],
    entries: Mapping[str, Entry],
    tensors: Mapping[str, Tensor],
    *,
    force: bool,
    truth: Path | None = None,
    adding: bool = False,
) -> None:
    """Write a whole record, or nothing.

    ``truth`` is the folder of a record whose files are to be taken byte for byte, all but those of the noise.
    With ``adding``, files of which ``tensors`` has nothing are those of the record that is there, byte for byte.

    Raises:
        ParityError: the record exists and ``force`` is false, or the disk does not take it.
    """
    if folder.exists() and not force and not adding:
        raise ParityError(f"record {folder} exists; --force replaces it")
    fixtures = folder.absolute().parent.parent
    part: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked_folder(fixtures):
            part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
            for file in sorted({entry.file for entry in entries.values()}):
                keys = [key for key, entry in entries.items() if entry.file == file]
                source = folder if adding and not any(key in tensors for key in keys) else truth
                if source is None or (source is truth and file == NOISE):
                    save_file({key: tensors[key].contiguous() for key in keys}, part / file)
                else:
                    shutil.copyfile(source / file, part / file)
                (part / file).chmod(0o644)  # safetensors lets only the owner read
            described = {
                **manifest,
                "schema": SCHEMA,
                "tensors": {key: _plain(entry) for key, entry in entries.items()},
            }
            text = (json.dumps(described, indent=1, sort_keys=True) + "\n").encode()
            (part / MANIFEST).write_bytes(text)
            part.chmod(0o755)
            with listed_as(folder, text):
                _put_in_place(part, folder)
    except (OSError, SafetensorError) as error:
        raise ParityError(f"record {folder} could not be written: {error}") from error
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)


def _put_in_place(part: Path, folder: Path) -> None:
    """Rename a complete record to its place; one that is there goes only once the new one stands.

    ``finish_replacements`` puts the old one back where a kill comes between the two renames.
    """
    if not folder.exists():
        part.rename(folder)
        return
    old = part.with_name(f".old{part.name}")
    folder.rename(old)
    try:
        part.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _plain(entry: Entry) -> dict[str, Any]:
    plain = asdict(entry)
    plain["noise"] = {mode: asdict(noise) for mode, noise in entry.noise.items()}
    return plain


def _require_parts_of(kind: str, manifest: Mapping[str, Any]) -> None:
    """Raise ``KeyError`` or ``TypeError`` where something is lacking that only this kind of record has."""
    if kind == RECIPE:
        if not isinstance(manifest["recipe"], dict):
            raise TypeError("part 'recipe'")
        return
    training = ("steps", "per_step") if kind in (TRAINING, TRAJECTORY) else ()
    for part, needed in (("batch", (*training, "scale")), ("weights", ("sha256", "seed", "shapes"))):
        for name in needed:
            if manifest[part][name] is None:  # of what type it is, the schema has looked at
                raise TypeError(f"part '{part}.{name}'")


def _decoded(path: Path, content: bytes) -> dict[str, Any]:
    """Return a manifest as JSON has it.

    Raises:
        ParityError: it is no JSON, or of another schema.
    """
    try:
        manifest = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ParityError(f"{path} is not readable as a manifest: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        number = manifest.get("schema") if isinstance(manifest, dict) else None
        raise ParityError(
            f"{path} has schema {shown(repr(number))[1:-1]}, this version reads {SCHEMA}: freeze the record again"
        )
    return manifest


def _checked(content: bytes) -> tuple[str, str, dict[str, Entry]]:
    """Return case, record and entries of a manifest that follows the schema; ``ValueError`` says what does not."""
    manifest = require_schema(content)
    entries = {}
    for key, entry in manifest.tensors.items():
        noise = {str(mode): Noise(figures.max, figures.rms) for mode, figures in entry.noise.items()}
        entries[key] = Entry(**{**msgspec.structs.asdict(entry), "noise": noise})
    return manifest.case, manifest.record, entries


class Record:
    """One frozen record, read lazily and checked at every step.

    Attributes:
        manifest: everything but the tensors' own entries.
        entries: key -> entry; a key is ``stage/name`` plus ``#kind`` for digests.
        kind: ``inference``, ``training``, ``trajectory`` or ``recipe``.
        digest: the SHA-256 of the manifest.
        listed: whether the list of the folder of records names it (``records.sha256``).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / MANIFEST
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise ParityError(f"{path} is missing: `parity freeze` makes a record") from None
        except OSError as error:
            raise ParityError(f"{path} is not readable as a manifest: {error}") from None
        self.listed = require_listed(folder, content)
        self.digest = digest(content)
        self.manifest = _decoded(path, content)
        try:
            self.case, self.id, self.entries = _checked(content)
            self.kind = str(self.manifest.get("kind") or kind_by_name(self.id))
            require_kind(self.kind, where=str(path))
            _require_parts_of(self.kind, self.manifest)
            if self.listed and self.id != folder.resolve().name:
                raise ValueError(f"it is that of the record {shown(self.id)}")
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            kind = self.manifest.get("kind")
            said = f" (it says that it is of the kind {shown(str(kind))})" if kind else ""
            problem = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else one_line(str(error), most=300)
            raise ParityError(f"{path} is damaged: {problem}{said}; restore or freeze it again") from None
        del self.manifest["tensors"]
        self._families: dict[str, dict[str, Noise]] = {}
        for file in dict.fromkeys(entry.file for entry in self.entries.values()):
            self._path(file)

    @property
    def identity(self) -> dict[str, Any]:
        """The SHA-256 of the manifest and whether ``records.sha256`` lists it: what a result says it was judged by."""
        return {"sha256": self.digest, "listed": self.listed}

    def _path(self, file: str) -> Path:
        try:
            path = (self.folder / file).resolve()
        except (OSError, RuntimeError, ValueError) as error:  # a symbolic link that leads to itself, a name with a NUL
            raise ParityError(f"{self.folder / MANIFEST} names the file {shown(file)}: {error}; restore it") from None
        if Path(file).name != file or path.parent != self.folder.resolve():
            raise ParityError(f"{self.folder / MANIFEST} names the file {shown(file)} outside of its folder: refused")
        return path

    def tensor(self, key: str) -> Tensor:
        """Return one stored tensor, after checking it against the manifest.

        Raises:
            ParityError: the file is missing, cut short, altered, or holds what is not finite.
        """
        entry = self.entries[key]
        path = self._path(entry.file)
        try:
            with safe_open(path, framework="pt") as file:
                tensor: Tensor = file.get_tensor(key)
        except FileNotFoundError:
            raise ParityError(f"{path} is missing: restore it or freeze the record again") from None
        except (OSError, SafetensorError) as error:
            raise ParityError(f"{path} is damaged ({error}): restore it or freeze the record again") from None
        if tuple(tensor.shape) != entry.shape or tensor.dtype is not _DTYPES.get(entry.dtype):
            raise ParityError(f"{path}: {key} is {tuple(tensor.shape)} {tensor.dtype}, not what the manifest says")
        if sha256(tensor) != entry.sha256:
            raise ParityError(f"{path}: {key} does not have the SHA-256 of the manifest: restore the file")
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ParityError(f"{path}: {key} holds a NaN or an infinity: a record of that proves nothing")
        _require_same_size(tensor, entry, where=f"{self.folder / MANIFEST}: {key}")
        return tensor

    def noise(self, key: str, mode: str) -> Noise | None:
        """Return the legacy engine's float32 noise of an array, pooled over its family; ``None`` without any.

        A floor is as good as its sample. Four runs of one number (the coarsest level's only score) may all
        come out right by luck; so the levels, layers and images of one tensor share the largest noise that
        any of them shows relative to its size.
        """
        if mode not in self._families:
            self._families[mode] = _pooled(self.entries, mode)
        entry = self.entries[key]
        pooled = self._families[mode].get(_pool(key, entry))
        return None if pooled is None else Noise(pooled.max * entry.max, pooled.rms * entry.rms)

    def checks(self, case: Case) -> Checks:
        """Return the checks that this record is for.

        Raises:
            ParityError: it is of another case, or for checks that the case does not have.
        """
        if self.case != case.id:
            raise ParityError(
                f"{self.folder / MANIFEST} is of the case {shown(self.case)}, not of {case.id}: restore it"
            )
        limits = self.manifest.get("checks", {})
        return checks_said(case, self.id, kind=self.kind, limits=limits, where=str(self.folder / MANIFEST))

    def rows(self, key: str) -> list[str]:
        """Return what the rows of a table are about; empty where it is none.

        Raises:
            ParityError: the manifest lacks the list.
        """
        entry = self.entries[key]
        names = [str(name) for name in self.manifest.get("rows", {}).get(entry.rows, ())]
        if entry.rows and len(names) != entry.shape[0]:
            raise ParityError(f"{self.folder / MANIFEST} is damaged: {key} has rows that it does not name")
        return names

    def until_step(self, steps: int) -> Record:
        """Return this record of a trajectory as if it had been shorter."""
        shorter = copy.copy(self)
        shorter.entries = {key: entry for key, entry in self.entries.items() if _step_of(entry.name) < steps}
        return shorter

    def keys(self, *, stage: str, role: str, mode: str | None = None) -> list[str]:
        """Return the keys of one stage and role, in the order in which they came."""
        return [
            key
            for key, entry in self.entries.items()
            if entry.stage == stage and entry.role == role and (mode is None or mode in entry.modes)
        ]

    def image_files(self, stage: str) -> list[str]:
        """Return the keys of a stage's encoded images, in the order of the batch: by name, 10 comes before 2."""
        found = self.keys(stage=stage, role="image")
        return [f"{stage}/{item('file', index)}" for index in range(len(found))]


def _step_of(name: str) -> int:
    """Return the step of a trajectory that a tensor is of; -1 where it is of none."""
    found = re.match(r"step\[(\d{1,9})\](\.|$)", name)
    return int(found[1]) if found else -1


def family(key: str) -> str:
    """Return a key without its numbers.

    >>> family("decoder/references[3]"), family("query_selection.sort.4/scores")
    ('decoder/references[*]', 'query_selection.sort.*/scores')
    """
    return re.sub(r"\d+", "*", key)


def _pool(key: str, entry: Entry) -> str:
    """Return what an array's noise is pooled with: its family, and all terms of a loss, which are one number each."""
    return LOSS if entry.stage == LOSS and not entry.shape else family(key)


def _pooled(entries: Mapping[str, Entry], mode: str) -> dict[str, Noise]:
    """Return family -> greatest noise of its arrays, each relative to the array's own size."""
    pooled: dict[str, Noise] = {}
    for key, entry in entries.items():
        noise = entry.noise.get(mode)
        if noise is not None and entry.max and entry.rms:
            before = pooled.get(_pool(key, entry), Noise(0.0, 0.0))
            pooled[_pool(key, entry)] = Noise(
                max(before.max, noise.max / entry.max), max(before.rms, noise.rms / entry.rms)
            )
    return pooled


def _require_same_size(tensor: Tensor, entry: Entry, *, where: str) -> None:
    """Raise ``ParityError`` where a stored tensor does not have the greatest value and the RMS that its entry says."""
    size = measure(torch.zeros_like(tensor), tensor)
    for said, is_really in ((entry.max, size.expected_max), (entry.rms, size.expected_rms)):
        if not abs(said - is_really) <= SAME_FIGURE.get(tensor.dtype, 1e-9) * is_really:  # a NaN is not, either
            raise ParityError(f"{where} is said to have the size {said:g}, and has {is_really:g}: restore the manifest")
