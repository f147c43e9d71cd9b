"""What a file is, told by how it begins: so that what is no checkpoint is called what it is."""

from __future__ import annotations

import json
import re
import tarfile
import zipfile
from pathlib import Path
from typing import Any

from parity.errors import ParityError
from parity.text import shown
from parity.weights.archive import is_old

ZIP, OLD, PICKLE, SAFETENSORS, INDEX = "zip", "old", "pickle", "safetensors", "index"
_HEAD = 4096
_MOST_JSON = 1 << 26
_MOST_HEADER = 1 << 28  # of safetensors, whose own reader takes 100 MB
_POINTER = b"version https://git-lfs.github.com/spec/"
_BEGINNINGS = (
    (b"\x1f\x8b", "a gzip file: unpack it first"),
    (b"BZh", "a bzip2 file: unpack it first"),
    (b"\xfd7zXZ\x00", "an xz file: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file: unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive: unpack it first"),
    (b"Rar!", "a RAR archive: unpack it first"),
    (b"\x89HDF\r\n", "an HDF5 file, such as Keras writes"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"GGUF", "a GGUF file"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"%PDF", "a PDF document"),
    (b"\x7fELF", "a program"),
    (b"SQLite format 3", "an SQLite database"),
    (b"PAR1", "a Parquet table"),
)


def kind_of(path: Path) -> str:
    """Return how a file is to be read: ``ZIP`` or ``OLD`` (of torch), ``PICKLE``, ``SAFETENSORS`` or ``INDEX``.

    Raises:
        ParityError: it is none of these, cannot be read or is a folder; it is named, and called what it is.
    """
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise ParityError(f"{path} is a folder, not a checkpoint{_inside(path)}")
        if not path.is_file():
            raise ParityError(f"{path} is no ordinary file: name the checkpoint itself")
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise ParityError(f"{path}: {error.strerror or error}") from None
    kind, what = _kind(path, head, size)
    if not kind:
        raise ParityError(f"{path} is no checkpoint but {what}")
    return kind


def _kind(path: Path, head: bytes, size: int) -> tuple[str, str]:
    """Return how to read a file, or else what it is."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not size:
        return "", "an empty file (0 bytes)"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip(path)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < _MOST_HEADER:
        return SAFETENSORS, ""
    if head.startswith(_POINTER):
        length = re.search(rb"size (\d{1,18})", head)
        of = f" of {int(length[1]):,} bytes" if length else ""
        return "", f"the Git LFS pointer to a file{of}: `git lfs pull` fetches the file itself"
    if re.match(rb"<(!doctype|html|head|body|\?xml)", text, re.IGNORECASE):
        title = re.search(rb"<title[^>]*>([^<]*)", head, re.IGNORECASE)
        called = f" ({shown(title[1].decode('utf-8', 'replace').strip())})" if title else ""
        return "", f"an HTML page{called}: the download gave a page, perhaps of a login; download it anew"
    if text[:1] in (b"{", b"["):
        return _json(path, size)
    for beginning, what in _BEGINNINGS:
        if head.startswith(beginning):
            return "", what
    if head[257:262] == b"ustar":
        return "", f"a tar archive{_tar(path)}: unpack it first"
    if head[:1] == b"\x80":
        return (OLD if is_old(head) else PICKLE), ""
    return "", _unknown(head)


def _inside(folder: Path) -> str:
    """Return which of a folder's files could be meant."""
    endings = ("*.index.json", "*.safetensors", "*.pth", "*.pt", "*.bin", "*.ckpt")
    names = [path.name for ending in endings for path in sorted(folder.glob(ending))[:3]]
    return f": name a file in it, such as {shown(names[0])}" if names else ""


def _zip(path: Path) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError):
        return "", "a zip file that is damaged or cut short: download or copy it anew"
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        return ZIP, ""
    held = ", ".join(map(shown, names[:3])) or "nothing"
    return "", f"a zip file of {held}{' …' if len(names) > 3 else ''}: unpack it first"


def _tar(path: Path) -> str:
    try:
        with tarfile.open(path) as archive:
            first = archive.next()
    except (tarfile.TarError, OSError, ValueError):
        return ""
    return f" of {shown(first.name)} and the like" if first else ""


def _json(path: Path, size: int) -> tuple[str, str]:
    content = read_json(path) if size <= _MOST_JSON else None
    if isinstance(content, dict) and isinstance(content.get("weight_map"), dict):
        return INDEX, ""
    if isinstance(content, dict):
        keys = ", ".join(map(shown, list(content)[:3])) or "nothing"
        return "", f"a JSON file with {keys}{' …' if len(content) > 3 else ''}"
    return "", "a JSON file" if content is not None else "text that begins like JSON"


def read_json(path: Path) -> Any:
    """Return what a JSON file holds, or ``None`` if it is none."""
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError, OSError):
        return None


def _unknown(head: bytes) -> str:
    if all(byte >= 32 or byte in b"\t\r\n" for byte in head) and not _is_binary(head):
        return f"a text file that begins {shown(head.decode('utf-8', 'replace').strip()[:40])}"
    return f"a file of an unknown kind that begins with the bytes {head[:8].hex(' ')}"


def _is_binary(head: bytes) -> bool:
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start < len(head) - 4  # a letter that the end of what was read cuts through is none
    return False
