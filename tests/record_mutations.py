"""Records that are altered in every way a seed draws: bytes, words, figures, entries, files, with the list or not.

A mutation is made of the files' bytes, so that it can be put down and taken back in a moment.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutated_results import TOKENS, VALUES

LISTING = "records.sha256"
LINK = b"\0link"  # instead of a file's content: a symbolic link to itself
FOLDER = b"\0folder"

Files = Mapping[str, bytes]  # path below the folder of records -> content


@dataclass(frozen=True)
class Mutation:
    """One alteration.

    Attributes:
        how: names of what was done.
        changed: path -> new content; ``None`` for a file that is gone.
        listed_anew: whether the list names the altered manifest, as if somebody had made the list anew.
    """

    how: str
    changed: Mapping[str, bytes | None]
    listed_anew: bool = False


def read_files(fixtures: Path) -> dict[str, bytes]:
    """Return the content of all files below a folder of records."""
    return {
        str(path.relative_to(fixtures)): path.read_bytes() for path in sorted(fixtures.rglob("*")) if path.is_file()
    }


def put(fixtures: Path, changed: Mapping[str, bytes | None]) -> None:
    """Write, or remove, files below a folder of records."""
    for name, content in changed.items():
        path = fixtures / name
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        path.unlink(missing_ok=True)
        if content == FOLDER:
            path.mkdir()
        elif content == LINK:
            path.symlink_to(path.name)
        elif content is not None:
            path.write_bytes(content)


def mutation(files: Files, draw: random.Random) -> Mutation:
    """Return an alteration of the records of which these are the files, theirs and their list."""
    manifests = [name for name in files if name.endswith("/manifest.json")]
    manifest = draw.choice(manifests)
    kind = draw.choice(("bytes", "edit", "edit", "edit", "files", "list"))
    if kind == "bytes":
        name = draw.choice((manifest, _tensors_of(files, manifest, draw), LISTING))
        edit = draw.choice(BYTES)
        how, changed = f"{edit.__name__} {_sort_of(name)}", {name: edit(files[name], draw)}
    elif kind == "edit":
        edit_of = draw.choice(EDITS)
        how, changed = edit_of.__name__, {manifest: edited(files[manifest], edit_of, draw)}
    elif kind == "files":
        moved = draw.choice(MOVES)
        how, changed = moved.__name__, moved(files, manifest, draw)
    else:
        lines = draw.choice(LINES)
        how, changed = lines.__name__, {LISTING: lines(files[LISTING], draw)}
    if LISTING in changed or draw.random() < 0.5:
        return Mutation(how, changed)
    return Mutation(how, with_new_list(files, changed, draw), listed_anew=True)


def _tensors_of(files: Files, manifest: str, draw: random.Random) -> str:
    folder = manifest.rpartition("/")[0]
    return draw.choice([name for name in files if name.startswith(f"{folder}/") and name.endswith(".safetensors")])


def _sort_of(name: str) -> str:
    return "tensors" if name.endswith(".safetensors") else name.rpartition("/")[2]


def with_new_list(files: Files, changed: Mapping[str, bytes | None], draw: random.Random) -> dict[str, bytes | None]:
    """Return the changes with a list that names the manifests as they are then; some with the tensors' new hashes."""
    now: dict[str, bytes | None] = {**files, **changed}
    for name, content in list(changed.items()):
        if name.endswith(".safetensors") and content is not None and draw.random() < 0.7:
            manifest = f"{name.rpartition('/')[0]}/manifest.json"
            now[manifest] = _rehashed(now[manifest] or b"", name.rpartition("/")[2], content)
    lines = [
        f"{hashlib.sha256(content).hexdigest()}  {name}\n"
        for name, content in now.items()
        if name.endswith("/manifest.json") and content not in (None, LINK, FOLDER)
    ]
    altered = {name: content for name, content in now.items() if content != files.get(name)}
    return {**altered, **{name: None for name in changed if now.get(name) is None}, LISTING: "".join(lines).encode()}


def _rehashed(manifest: bytes, file: str, content: bytes) -> bytes:
    """Return a manifest that holds the hashes of the tensors in a file, where that can be read."""
    try:
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        plain = json.loads(manifest)
        for key, entry in plain["tensors"].items():
            if entry["file"] == file:
                start, end = header[key]["data_offsets"]
                entry["sha256"] = hashlib.sha256(content[8 + length :][start:end]).hexdigest()
    except (ValueError, KeyError, TypeError, RecursionError):
        return manifest
    return json.dumps(plain).encode()


# Of bytes.
def flipped(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content)
    changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def without_bytes(content: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(content))
    return content[:start] + content[start + draw.choice((1, 1, 2, 40)) :]


def cut_short(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content))]


def with_bytes(content: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(content) + 1)
    return content[:start] + draw.randbytes(draw.choice((1, 1, 4))) + content[start:]


def swapped_bytes(content: bytes, draw: random.Random) -> bytes:
    a, b, c = sorted(draw.randrange(len(content) + 1) for _ in range(3))
    return content[:a] + content[b:c] + content[a:b] + content[c:]


BYTES = (flipped, flipped, flipped, without_bytes, cut_short, with_bytes, swapped_bytes)


# Of what a manifest says.
def edited(content: bytes, edit: Callable[[Any, random.Random], object], draw: random.Random) -> bytes:
    """Return a manifest after an edit of its content; strings such as ``<NaN>`` become what JSON does not have."""
    plain = json.loads(content)
    doubled = edit(plain, draw)
    text = json.dumps(plain, indent=1, sort_keys=draw.random() < 0.5)
    for token, written in TOKENS.items():
        text = text.replace(token, written)
    if isinstance(doubled, str):
        text = text.replace('"tensors":', f'{doubled},\n"tensors":', 1)
    return (text + "\n").encode()


def _entry(plain: Any, draw: random.Random) -> Any:
    return draw.choice(list(plain["tensors"].values()))


def figure(plain: Any, draw: random.Random) -> None:
    entry, factor = _entry(plain, draw), 10.0 ** draw.choice((-9, -3, -1, 1, 2, 3, 4, 9, 13, 300))
    noisy = [entry for entry in plain["tensors"].values() if entry["noise"]]
    if noisy and draw.random() < 0.6:
        inside = draw.choice(list(draw.choice(noisy)["noise"].values()))
        for name in draw.choice((("max",), ("rms",), ("max", "rms"))):
            inside[name] *= factor
    else:
        name = draw.choice(("max", "rms"))
        entry[name] *= factor


def noise_of_all(plain: Any, draw: random.Random) -> None:
    factor = 10.0 ** draw.choice((-3, 1, 2, 3, 4, 9))
    for entry in plain["tensors"].values():
        for figures in entry["noise"].values():
            figures.update(max=figures["max"] * factor, rms=figures["rms"] * factor)


def word(plain: Any, draw: random.Random) -> None:
    entry, unknown = _entry(plain, draw), draw.choice(("Isolated", "both", "", "isolated ", "projection", "noise"))
    field = draw.choice(("modes", "kind", "role", "dtype", "stage", "name", "file", "decision"))
    if field == "modes":
        entry["modes"] = [*entry["modes"][1:], unknown]
    elif field == "decision" and plain["decisions"]:
        draw.choice(list(plain["decisions"].values()))["kind"] = unknown
    else:
        entry[field] = unknown


def other_known_word(plain: Any, draw: random.Random) -> None:
    known = {
        "kind": ("whole", "samples", "projections", "sketch"),
        "role": ("output", "input", "decision", "image", "annotations", "noise", "unpromoted"),
        "stage": ("neck", "backbone", "predict"),
        "modes": ([], ["isolated"], ["cascade"], ["isolated", "isolated"]),
    }
    field = draw.choice(list(known))
    _entry(plain, draw)[field] = copy.deepcopy(draw.choice(known[field]))


def gone(plain: Any, draw: random.Random) -> None:
    inside = plain[draw.choice(("tensors", "tensors", "decisions"))] or plain["tensors"]
    for key in draw.sample(list(inside), min(len(inside), draw.choice((1, 1, 2, 5)))):
        del inside[key]


def gone_of_one_kind(plain: Any, draw: random.Random) -> None:
    field, value = draw.choice((("kind", "projections"), ("kind", "samples"), ("kind", "sketch"), ("role", "decision")))
    plain["tensors"] = {key: entry for key, entry in plain["tensors"].items() if entry[field] != value}


def swapped(plain: Any, draw: random.Random) -> None:
    a, b = draw.sample(list(plain["tensors"]), 2)
    plain["tensors"][a], plain["tensors"][b] = plain["tensors"][b], plain["tensors"][a]


def other_part(plain: Any, draw: random.Random) -> None:
    """Alter a part beside the tensors."""
    value = copy.deepcopy(draw.choice(VALUES))
    inside, key = draw.choice(list(_places({**plain, "tensors": None})))
    if isinstance(inside, dict) and "tensors" in inside and inside is not plain:
        inside = plain
    inside[key] = value


def checks_limited(plain: Any, draw: random.Random) -> None:
    part, names = draw.choice((("stages", ["neck"]), ("modes", ["cascade"]), ("dtypes", ["fp64"]), ("stages", ["no"])))
    plain["checks"] = {part: names}


def kind_of_record(plain: Any, draw: random.Random) -> None:
    plain["kind"] = draw.choice(("training", "trajectory", "recipe", "inference", "", "unknown", None))


def identity(plain: Any, draw: random.Random) -> None:
    plain[draw.choice(("case", "record"))] = draw.choice(("another", "ddq_fcn_r50_36e", "tiny", ""))


def anything(plain: Any, draw: random.Random) -> None:
    for _ in range(draw.choice((1, 1, 2))):
        inside, key = draw.choice(list(_places(plain)))
        inside[key] = copy.deepcopy(draw.choice(VALUES))


def anything_gone(plain: Any, draw: random.Random) -> None:
    inside, key = draw.choice(list(_places(plain)))
    del inside[key]


def key_twice(plain: Any, draw: random.Random) -> str:
    """Return text that comes before what it repeats: a part of the manifest, altered."""
    part = draw.choice(("tensors", "decisions", "batch", "schema"))
    return f'"{part}": {json.dumps(draw.choice(({}, 1, plain.get(part), None)))}'


EDITS: tuple[Callable[[Any, random.Random], object], ...] = (
    *(figure, figure, figure, noise_of_all, word, word, other_known_word, gone, gone, gone_of_one_kind, swapped),
    *(other_part, checks_limited, kind_of_record, identity, anything, anything, anything_gone, key_twice),
)


def _places(plain: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(plain) if isinstance(plain, dict) else range(len(plain)):
        yield plain, key
        if isinstance(plain[key], (dict, list)):
            yield from _places(plain[key])


# Of files.
def file_gone(files: Files, manifest: str, draw: random.Random) -> dict[str, bytes | None]:
    return {draw.choice((_tensors_of(files, manifest, draw), manifest)): None}


def file_renamed(files: Files, manifest: str, draw: random.Random) -> dict[str, bytes | None]:
    name = draw.choice((_tensors_of(files, manifest, draw), manifest))
    return {name: None, f"{name}.bak": files[name]}


def file_replaced(files: Files, manifest: str, draw: random.Random) -> dict[str, bytes | None]:
    name = draw.choice((_tensors_of(files, manifest, draw), manifest))
    return {name: draw.choice((b"", FOLDER, LINK, b"version https://git-lfs.github.com/spec/v1\n", files[manifest]))}


def file_of_another(files: Files, manifest: str, draw: random.Random) -> dict[str, bytes | None]:
    """Swap two files of tensors, of one record or of two."""
    first = _tensors_of(files, manifest, draw)
    second = draw.choice([name for name in files if name.endswith(".safetensors") and name != first])
    return {first: files[second], second: files[first]}


def manifest_of_another(files: Files, manifest: str, draw: random.Random) -> dict[str, bytes | None]:
    """Have two records swap manifests, or everything, or one take the other's place."""
    other = draw.choice([name for name in files if name.endswith("/manifest.json") and name != manifest])
    ours, theirs = (name.rpartition("/")[0] for name in (manifest, other))
    if draw.random() < 0.3:
        return {manifest: files[other], other: files[manifest]}
    mine = {name: files[name] for name in files if name.startswith(f"{ours}/")}
    copied = {name.replace(theirs, ours, 1): files[name] for name in files if name.startswith(f"{theirs}/")}
    return {**dict.fromkeys(mine), **copied}


MOVES = (file_gone, file_renamed, file_replaced, file_of_another, manifest_of_another)


# Of the list.
def line_gone(content: bytes, draw: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    del lines[draw.randrange(len(lines))]
    return b"".join(lines)


def line_altered(content: bytes, draw: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    place = draw.randrange(len(lines))
    digest = re.sub(rb"^[0-9a-f]{64}", b"0" * 64, lines[place])
    altered = (digest, lines[place].upper(), lines[place].replace(b"  ", b" "), b"\n", b"../x/y\n")
    lines[place] = draw.choice((*altered, lines[place].replace(b"_", b"-", 1)))
    return b"".join(lines)


def line_twice(content: bytes, draw: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    return b"".join([*lines, draw.choice((lines[0], re.sub(rb"^[0-9a-f]{64}", b"0" * 64, lines[0]), b"\xff\xfe\n"))])


def lines_swapped(content: bytes, draw: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    draw.shuffle(lines)
    return b"".join(lines)


def digests_swapped(content: bytes, draw: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    a, b = draw.sample(range(len(lines)), 2) if len(lines) > 1 else (0, 0)
    lines[a], lines[b] = lines[b][:64] + lines[a][64:], lines[a][:64] + lines[b][64:]
    return b"".join(lines)


LINES = (line_gone, line_altered, line_altered, line_twice, lines_swapped, digests_swapped)
