"""Large JSON files: read without making objects of everything, written whole or not at all, never over an input.

``msgspec.Raw`` is a piece of the file's own bytes that has been checked to be JSON and is otherwise left alone: of
instances_train2017.json (450 MB) one needs the ids, and the polygons pass through byte for byte.
"""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Raw

from parity.atomic import writing
from parity.coco.repeated import repeated_outside
from parity.errors import ParityError

Kind = TypeVar("Kind")
_TOGETHER = 4096  # entries written in one go


def read(path: Path, *, repeated: list[str] | None = None) -> dict[str, Raw] | list[Raw]:
    """Return a file's outermost object or list, what is inside it undecoded; a byte order mark is left away.

    Args:
        repeated: where the keys go that the outermost object has twice, of which the last is kept.

    Raises:
        ParityError: the file cannot be read, is damaged, no UTF-8, or holds neither; a key is there twice and there is
            no ``repeated``.
    """
    try:
        content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise ParityError(f"{path}: {error.strerror}") from None
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, b"{\0", b"[\0", b"\0")):
        raise ParityError(f"{path} is UTF-16 or UTF-32 text: save it as UTF-8")
    if content[:64].lstrip().startswith(b"["):
        return decode(content, list[Raw], where=str(path))
    pairs = decode(content, dict[str, Raw], where=str(path))
    twice = repeated_outside(content, pairs)
    if twice and repeated is None:
        raise ParityError(f"{path} has {' and '.join(twice)} twice, of which readers keep the last: keep one")
    if repeated is not None:
        repeated += twice
    return pairs


def decode(content: bytes | Raw, kind: type[Kind], *, where: str) -> Kind:
    """Return decoded JSON; ``where`` names it if it is damaged or something else."""
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        raise ParityError(f"{where} is not in COCO's format: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        number = _no_number(content)
        if number:
            raise ParityError(f"{where}: {number}, which is no JSON: replace it by a number") from None
        raise ParityError(f"{where} is damaged or no JSON: {error}") from None


def _no_number(content: bytes | Raw) -> str:
    """Return where the first NaN or infinity is that Python's ``json`` would have written, or nothing."""
    try:
        return next(_not_finite(json.loads(bytes(content)), ""), "")
    except (ValueError, RecursionError):
        return ""


def _not_finite(value: object, place: str) -> Iterator[str]:
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{place or 'it'} is {value}"
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _not_finite(inner, f"{place}.{key}".lstrip("."))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _not_finite(inner, f"{place}[{index}]")


def each(entries: Iterable[Raw], kind: type[Kind], *, where: str) -> Iterator[Kind]:
    """Decode a list's entries one at a time; a field that ``kind`` does not name is skipped, not made an object.

    Raises:
        ParityError: an entry lacks a field or has another type in it; ``where`` and its index name it.
    """
    decoder = msgspec.json.Decoder(kind)
    for index, entry in enumerate(entries):
        try:
            yield decoder.decode(entry)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ParityError(f"{where}[{index}] is not in COCO's format: {error}") from None


def object_chunks(content: Mapping[str, Raw | Iterable[bytes | Raw]]) -> Iterator[bytes]:
    """Yield the bytes of an object whose values are JSON already, or lists of it."""
    for index, (key, value) in enumerate(content.items()):
        yield b"%s%s: " % (b", " if index else b"{", msgspec.json.encode(key))
        if isinstance(value, Raw):
            yield bytes(value)
        else:
            yield from list_chunks(value)
    yield b"}" if content else b"{}"


def list_chunks(entries: Iterable[bytes | Raw]) -> Iterator[bytes]:
    """Yield the bytes of a list whose entries are JSON already."""
    waiting: list[bytes | Raw] = []
    separator = b"["
    for entry in entries:
        waiting.append(entry)
        if len(waiting) == _TOGETHER:
            yield separator + b", ".join(waiting)
            waiting, separator = [], b", "
    if waiting:
        yield separator + b", ".join(waiting)
    yield b"]" if waiting or separator != b"[" else b"[]"


def write(contents: Mapping[Path, Iterable[bytes]], *, inputs: Sequence[Path]) -> None:
    """Write files, each whole or not at all, and none unless all could be written.

    Raises:
        ParityError: an output is an input, or cannot be written; nothing has been written then.
    """
    expect_different(list(contents), inputs=inputs)
    parts: dict[Path, Path] = {}
    with ExitStack() as unfinished:
        for path, chunks in contents.items():
            try:
                parts[path], file = unfinished.enter_context(writing(path))
                file.writelines(chunks)
                file.flush()
            except OSError as error:
                raise ParityError(f"{path} cannot be written: {error.strerror}") from None
        for path, part in parts.items():
            try:
                part.replace(path)
            except OSError as error:
                raise ParityError(f"{path} cannot be written: {error.strerror}") from None


def expect_different(outputs: Sequence[Path], *, inputs: Sequence[Path]) -> None:
    """Refuse an output that is an input, or another output, under whatever name.

    Raises:
        ParityError: the file is named.
    """
    for index, output in enumerate(outputs):
        if output.exists() and any(path.exists() and output.samefile(path) for path in inputs):
            raise ParityError(f"{output} is an input: name another output")
        if output.resolve() in {path.resolve() for path in outputs[:index]}:
            raise ParityError(f"{output} is named for two outputs")
