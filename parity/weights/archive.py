"""The two files that ``torch.save`` makes: a zip of one pickle and its storages, and what was written before torch 1.6.

Of a zip every member's checksum is computed before anything of it is believed. The older format has none.
"""

from __future__ import annotations

import io
import pickletools
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from parity.weights.claims import STORAGE_NAMES, TABLE, Claim, Storage
from parity.weights.opcodes import Damaged, Name, read_pickle

MAGIC = 0x1950A86A20F9469CFC6C  # torch.serialization.MAGIC_NUMBER
_PROTOCOL = 1001
_PIECE = 1 << 22
_ENDIAN = "byteorder"


@dataclass(frozen=True)
class Content:
    """What a file of torch's holds.

    Attributes:
        value: what was saved, with a ``Claim`` for each tensor.
        read: makes a tensor of a claim.
        checked: whether the file has checksums, which then were right.
    """

    value: Any
    read: Callable[[Claim], Tensor]
    checked: bool


def read_zip(path: Path) -> Content:
    """Return what a zip of ``torch.save`` holds.

    Raises:
        Damaged: it is cut short, a checksum is wrong, or it is not such a zip; says which.
        RefusedName: its pickle asks for something else than data.
    """
    try:
        with path.open("rb") as raw, zipfile.ZipFile(raw) as archive:
            members = _members(archive, path.stat().st_size)
            checked = _check_sums(archive, members)
            prefix = next(name for name in members if name.rpartition("/")[2] == "data.pkl").removesuffix("data.pkl")
            if f"{prefix}{_ENDIAN}" in members and archive.read(f"{prefix}{_ENDIAN}") != b"little":
                raise Damaged("its numbers are in the order of a big-endian machine, which is not read here")
            value = read_pickle(io.BytesIO(archive.read(f"{prefix}data.pkl")), table=TABLE, persistent=_persistent)
    except (zipfile.BadZipFile, struct.error, EOFError, NotImplementedError, ValueError, OverflowError) as error:
        raise Damaged(f"its zip is damaged or cut short ({error})") from None
    storages = _Storages(lambda storage: _member(path, f"{prefix}data/{storage.key}"))
    return Content(value, lambda claim: claim.tensor(storages), checked)


def _members(archive: zipfile.ZipFile, size: int) -> Mapping[str, zipfile.ZipInfo]:
    """Return the members of a zip that torch wrote, none of which takes more memory than disk."""
    members = {info.filename: info for info in archive.infolist()}
    pickles = [name for name in members if name.rpartition("/")[2] == "data.pkl" and name.count("/") <= 1]
    if len(pickles) != 1 or len(members) < len(archive.infolist()):
        raise Damaged("a zip file that torch.save did not write")
    if any(name.startswith(pickles[0].removesuffix("data.pkl") + "code/") for name in members):
        raise Damaged("a TorchScript program, not a state dict: save the module's state_dict() instead")
    packed = [info.filename for info in members.values() if info.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise Damaged(f"{len(packed)} of its zip members are compressed, which torch.save never does; save it anew")
    if sum(info.file_size for info in members.values()) > size:
        raise Damaged("its zip members are larger than the file")
    return members


def _check_sums(archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo]) -> bool:
    """Read every member whole, which compares its checksum; return whether there are any.

    ``torch.serialization.set_crc32_options(False)`` writes 0 for each of them.
    """
    has_sums = any(info.CRC for info in members.values())
    for info in members.values():
        if not has_sums:
            info.CRC = None  # type: ignore[assignment]  # zipfile then compares none
        with archive.open(info) as member:
            while member.read(_PIECE):
                pass
    return has_sums


def _member(path: Path, name: str) -> Tensor:
    with zipfile.ZipFile(path) as archive:
        try:
            info = archive.getinfo(name)
        except KeyError:
            raise Damaged(f"the storage {name[-40:]!r} is missing") from None
        info.CRC = None  # type: ignore[assignment]  # compared already
        data = bytearray(info.file_size)
        with archive.open(info) as member:
            if member.readinto(memoryview(data)) != len(data):  # type: ignore[attr-defined]
                raise Damaged("a storage is cut short")
    return _bytes(data)


def _bytes(data: bytearray) -> Tensor:
    return torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)


class _Storages:
    """Reads storages once each, so that what shared memory shares it again, and holds their sizes against the file."""

    def __init__(self, read: Callable[[Storage], Tensor]) -> None:
        self._read = read
        self._kept: dict[str, Tensor] = {}

    def __call__(self, storage: Storage) -> Tensor:
        if storage.key not in self._kept:
            self._kept[storage.key] = self._read(storage)
        size = storage.size * storage.dtype.itemsize
        if size > len(self._kept[storage.key]):
            raise Damaged(f"a storage is said to have {size} bytes and has {len(self._kept[storage.key])}")
        return self._kept[storage.key][:size]


def _persistent(identity: Any) -> Storage:
    if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
        raise Damaged("a storage that is none, or a whole module, which is not its weights")
    _, kind, key, _, size, *view = identity
    known = isinstance(kind, Name) and kind.full in STORAGE_NAMES
    if not known or not isinstance(key, str) or not isinstance(size, int) or not 0 <= size < 1 << 62:
        raise Damaged("a storage of an unknown kind")
    if view and view[0] is not None:
        raise Damaged("storages that are parts of others, as torch before 0.4 wrote them: save it anew")
    return Storage(key, STORAGE_NAMES[kind.full], size)


def read_old(path: Path) -> Content:
    """Return what a file of torch before 1.6 holds: five pickles, then the storages, one behind the other.

    Raises:
        Damaged, RefusedName: as ``read_zip``.
    """
    named: dict[str, Storage] = {}

    def persistent(identity: Any) -> Storage:
        storage = _persistent(identity)
        return named.setdefault(storage.key, storage)

    with path.open("rb") as file:
        for expected in (MAGIC, _PROTOCOL):
            if read_pickle(file, table={}, persistent=persistent) != expected:
                raise Damaged("not of torch.save")
        system = read_pickle(file, table=TABLE, persistent=persistent)
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise Damaged("its numbers are in the order of a big-endian machine, which is not read here")
        value = read_pickle(file, table=TABLE, persistent=persistent)
        keys = read_pickle(file, table={}, persistent=persistent)
        places = _places(file, keys, named, path.stat().st_size)
    storages = _Storages(lambda storage: _slice(path, places.get(storage.key)))
    return Content(value, lambda claim: claim.tensor(storages), checked=False)


def _places(file: IO[bytes], keys: Any, named: Mapping[str, Storage], size: int) -> dict[str, tuple[int, int]]:
    """Return storage key -> where its bytes begin and how many they are."""
    places: dict[str, tuple[int, int]] = {}
    if not isinstance(keys, list) or any(not isinstance(key, str) or key not in named for key in keys):
        raise Damaged("a list of storages that is none")
    for key in keys:
        head = file.read(8)
        count = struct.unpack("<q", head)[0] if len(head) == 8 else -1
        length = count * named[key].dtype.itemsize
        if count != named[key].size or file.tell() + length > size:
            raise Damaged("it is cut short, or a storage has another size than its pickle says")
        places[key] = (file.tell(), length)
        file.seek(length, io.SEEK_CUR)
    if file.tell() != size:
        raise Damaged(f"{size - file.tell()} bytes follow its last storage")
    return places


def _slice(path: Path, place: tuple[int, int] | None) -> Tensor:
    if place is None:
        raise Damaged("a storage is missing")
    with path.open("rb") as file:
        file.seek(place[0])
        return _bytes(bytearray(file.read(place[1])))


def is_old(head: bytes) -> bool:
    """Return whether a file that begins so was written by torch before 1.6."""
    try:
        numbers = [argument for operation, argument, _ in pickletools.genops(head[:40]) if operation.name == "LONG1"]
    except ValueError:  # what follows the first pickle is cut off; genops ends at its end mark
        return False
    return numbers[:1] == [MAGIC]
