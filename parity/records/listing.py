"""The list of a folder of records: one line a record with the SHA-256 of its manifest, as ``sha256sum`` writes it.

The manifest holds the hashes of the tensors and the figures that judge them; this list holds the manifest. It is
one committed file, ``fixtures/records.sha256``, so whatever changes in a manifest shows there, or is refused. What
it lists is expected: a record that is listed and not there is missing, not forgotten. ``parity freeze`` keeps the
list; after records were merged by hand, ``cd fixtures && sha256sum */*/manifest.json > records.sha256`` makes it anew.

Imports nothing heavy: pytest's collection asks here.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from parity.atomic import sweep, write_text
from parity.errors import ParityError
from parity.locks import locked_folder

LISTING = "records.sha256"
MANIFEST = "manifest.json"
_LINE = re.compile(r"([0-9a-f]{64})  ([^/\0]+/[^/\0]+)/manifest\.json")

# What ``write_record`` makes on its way: the new record, and the old one that it takes the place of.
_UNFINISHED = re.compile(r"\.(?P<old>old\.)?(?P<record>.+)\.[a-z0-9_]{8}")

Listed = dict[str, frozenset[str]]


def read_listing(fixtures: Path) -> Listed:
    """Return ``case/record`` -> digests of its manifest; empty where the folder has no list.

    A record has two digests only while it is replaced: that of the old manifest and that of the new one.

    Raises:
        ParityError: the list is not readable or empty, or a line of it says nothing that is understood.
    """
    path = fixtures / LISTING
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ParityError(f"{path} is not readable as a list of records: {error}; restore it") from None
    if not lines:
        raise ParityError(f"{path} is empty: restore it, or remove it if there are no records")
    listed: Listed = {}
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise ParityError(f"{path}, line {number}: not a SHA-256 and the manifest it is of; restore the file")
        listed[match[2]] = listed.get(match[2], frozenset()) | {match[1]}
    return listed


def digest(manifest: bytes) -> str:
    """Return the SHA-256 of a manifest's bytes."""
    return hashlib.sha256(manifest).hexdigest()


def require_listed(folder: Path, manifest: bytes) -> bool:
    """Return whether there is a list beside a record's case; it has to name this record, and this manifest.

    Raises:
        ParityError: the list does not name the record, or names another manifest.
    """
    try:
        folder = folder.resolve()
    except (OSError, RuntimeError) as error:  # a symbolic link that leads to itself
        raise ParityError(f"{folder}: {error}") from None
    fixtures = folder.parent.parent
    listed = read_listing(fixtures)
    digests = listed.get(_name(folder))
    if digests is None and listed:
        raise ParityError(
            f"{fixtures / LISTING} does not list {_name(folder)}: restore the list, or freeze the record again"
        )
    if digests is not None and digest(manifest) not in digests:
        raise ParityError(
            f"{folder / MANIFEST} is not the manifest that {fixtures / LISTING} lists:"
            " restore it, or freeze the record again"
        )
    return digests is not None


def missing_records(fixtures: Path, case: str) -> list[str]:
    """Return the names of a case's records that are listed and not there, sorted."""
    names = (name.split("/") for name in read_listing(fixtures))
    return sorted(record for of, record in names if of == case and not (fixtures / of / record / MANIFEST).is_file())


@contextmanager
def listed_as(folder: Path, manifest: bytes) -> Iterator[None]:
    """List a record whose folder is put in its place within the block; call it while all records are locked.

    While a record is replaced, the old manifest and the new one are both listed, so that a kill at any moment leaves
    a record that is read. A new one is listed once it stands: what never was there is not missing.

    Raises:
        OSError: the disk does not take the list.
    """
    fixtures, name = folder.absolute().parent.parent, _name(folder)
    before, new = read_listing(fixtures), frozenset({digest(manifest)})
    replaces = folder.exists() and name in before
    if replaces:
        _write(fixtures, {**before, name: before[name] | new})
    try:
        yield
    except BaseException:
        if replaces:
            _write(fixtures, before)
        raise
    _write(fixtures, {**before, name: new})


def finish_replacements(fixtures: Path) -> None:
    """Finish or undo what a writer that was killed left in a folder of records.

    A record that was taken away for a new one, which did not come, is put back; what was never complete goes. Where
    the folder cannot be written to, it is left as it is.
    """
    if fixtures.is_dir():
        sweep(fixtures / LISTING)
    if not any(_UNFINISHED.fullmatch(path.name) for path in fixtures.glob("*/.*")):
        return
    with locked_folder(fixtures), contextlib.suppress(OSError):
        for path in sorted(fixtures.glob("*/.*")):
            match = _UNFINISHED.fullmatch(path.name)
            if match is None or not path.is_dir():
                continue
            place = path.with_name(match["record"])
            if match["old"] and not place.exists():
                path.rename(place)
            else:
                shutil.rmtree(path, ignore_errors=True)


def _name(folder: Path) -> str:
    return "/".join(folder.absolute().parts[-2:])


def _write(fixtures: Path, listed: Mapping[str, frozenset[str]]) -> None:
    lines = [f"{one}  {name}/{MANIFEST}\n" for name, digests in sorted(listed.items()) for one in sorted(digests)]
    write_text(fixtures / LISTING, "".join(lines))
