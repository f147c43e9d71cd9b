"""What no checkpoint is, is called what it is; safetensors are read; a damaged or greedy file is refused."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import random
import struct
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from parity.errors import ParityError
from parity.weights.checkpoint import read_checkpoint, write_checkpoint

State = dict[str, Tensor]


def weights(value: float = 1.0) -> State:
    return {"conv.weight": torch.full((2, 3), value), "bn.running_mean": torch.full((2,), value)}


def refusal(path: Path, **given: Any) -> str:
    """Return the one line that refuses a file."""
    with pytest.raises(ParityError) as refused:
        read_checkpoint(path, **given)
    text = str(refused.value)
    assert str(path) in text
    assert text.isprintable()
    assert len(text) < 1500
    return text


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def tarred(name: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    return file.getvalue()


def saved(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def arrays() -> bytes:
    file = io.BytesIO()
    np.savez(file, a=np.ones(2))
    return file.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 412345678\n"
NO_CHECKPOINT: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "an empty file (0 bytes)"),
    "lfs": (POINTER % (b"0" * 64), "the Git LFS pointer to a file of 412,345,678 bytes: `git lfs pull`"),
    "lfs without a size": (b"version https://git-lfs.github.com/spec/v1\n", "the Git LFS pointer to a file: `git"),
    "html": (b"<!DOCTYPE html><title>Sign\nin</title>", r"an HTML page ('Sign\nin'): the download gave a page"),
    "html without a title": (b"\n\n  <HTML lang=en>", "an HTML page: the download gave a page"),
    "xml": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an HTML page"),
    "gzip": (gzip.compress(saved(weights())), "a gzip file: unpack it first"),
    "xz": (b"\xfd7zXZ\x00rest", "an xz file: unpack it first"),
    "bzip2": (b"BZh91AY", "a bzip2 file: unpack it first"),
    "zip": (zipped(**{"a.txt": b"x", "b.pth": b"y"}), "a zip file of 'a.txt', 'b.pth': unpack it first"),
    "zip of nothing": (zipped(), "a zip file of nothing: unpack it first"),
    "npz": (arrays(), "a zip file of 'a.npy': unpack it first"),
    "tar": (tarred("model.pth"), "a tar archive of 'model.pth' and the like: unpack it first"),
    "hdf5": (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    "npy": (b"\x93NUMPY\x01\x00", "a NumPy array"),
    "png": (b"\x89PNG\r\n", "a PNG image"),
    "json": (b'{"images": [], "annotations": []}', "a JSON file with 'images', 'annotations'"),
    "json list": (b"[1, 2]", "a JSON file"),
    "nested json": (b"[" * 100_000, "text that begins like JSON"),
    "long number": (b'{"a": ' + b"9" * 5000 + b"}", "text that begins like JSON"),
    "text": (b"epoch 12 done\n", r"a text file that begins 'epoch 12 done'"),
    "old pickle": (b"cos\nsystem\n(S'touch was_run'\ntR.", "a text file that begins"),
    "noise": (bytes(range(200, 256)), "a file of an unknown kind that begins with the bytes c8 c9 ca"),
    "pickle": (
        pickle.dumps({"model": {"a": [1.0]}}),
        "a pickle that torch.save did not write, a dict of 1 with 'model'",
    ),
    "pickled arrays": (
        pickle.dumps({"model": {"a": np.ones(2)}}, protocol=4),
        "a pickle that torch.save did not write",
    ),
    "cut zip": (saved(weights())[:-30], "a zip file that is damaged or cut short"),
}


@pytest.mark.parametrize("kind", NO_CHECKPOINT)
def test_what_is_no_checkpoint_is_called_what_it_is(kind: str, tmp_path: Path) -> None:
    data, what = NO_CHECKPOINT[kind]
    path = tmp_path / "model.pth"
    path.write_bytes(data)
    text = refusal(path)
    assert f"model.pth is no checkpoint but {what}" in text
    assert "--trust-pickle" not in text
    assert "--trust-pickle" not in refusal(path, trust_pickle=True) or kind in ("pickle", "pickled arrays")


def test_a_folder_a_device_and_a_link_to_itself_are_named(tmp_path: Path) -> None:
    (tmp_path / "model-00001-of-00002.safetensors").touch()
    assert "is a folder, not a checkpoint: name a file in it, such as 'model-00001" in refusal(tmp_path)
    assert "is no ordinary file" in refusal(Path("/dev/null"))
    (tmp_path / "loop.pth").symlink_to("loop.pth")
    assert "loop.pth: Too many levels of symbolic links" in refusal(tmp_path / "loop.pth")


class Whole(torch.nn.Module):
    """A model of the user's own, which a pickle names."""


ODD: dict[str, tuple[Any, str]] = {
    "numbers for keys": (
        {0: torch.ones(1), 10**400: torch.ones(1)},
        "2 names of its state dict are no text: number 0, n",
    ),
    "below state_dict": ({"state_dict": {1.5: torch.ones(1)}}, "1 names of its state dict are no text: number 1.5"),
    "tuples for keys": ({"model": {(1, "a"): torch.ones(1)}}, "1 names of its state dict are no text: tuple of 2"),
    "nothing for a key": ({"model": {None: torch.ones(1)}}, "1 names of its state dict are no text: None"),
    "a NUL in a name": ({"a\0b": torch.ones(1)}, r"1 names of its state dict are none of a parameter ['a\x00b']"),
    "half a letter": ({"a\ud800": torch.ones(1)}, r"1 names of its state dict are none of a parameter ['a\ud800']"),
    "a line in a name": ({"a\nb": torch.ones(1)}, r"1 names of its state dict are none of a parameter ['a\nb']"),
    "no name": ({"": torch.ones(1)}, "1 names of its state dict are none of a parameter ['']"),
    "a name of a megabyte": (
        {"a" * 1_000_000: torch.ones(1)},
        "1 names of its state dict are none of a parameter ['aaa",
    ),
    "list": ([torch.ones(1)], "holds no state dict but a list of 1"),
    "tensor": (torch.ones(2, 3), "holds no state dict but a tensor of shape (2, 3)"),
    "number": (10**400, "holds no state dict but a number of 1329 bits"),
    "text": ("weights", "holds no state dict but a text of 7 letters"),
    "nothing": (None, "holds no state dict but a None"),
    "array": (np.ones(3), "holds no state dict but a NumPy array"),
    "optimizer only": (
        {"optimizer": {"state": {}}, "epoch": 3},
        "holds no state dict: no state_dict, no model, not only",
    ),
    "state dict of a list": ({"state_dict": [1, 2]}, "holds no state dict: .* it has state_dict"),
    "state dict in a state dict": (
        {"state_dict": {"model": weights()}},
        "are no tensors ['model'], the first a dict of 2",
    ),
    "scalars": ({"state_dict": {"a": 1}}, "1 entries of its state dict are no tensors ['a'], the first a number 1"),
    "whole model": (Whole(), "its pickle asks for test_checkpoint_kinds.Whole"),
    "whole layer": (
        torch.nn.Linear(2, 2),
        "torch.nn.modules.linear.Linear: a whole pickled model, whose code would be run",
    ),
    "meta": ({"a": torch.ones(2, device="meta")}, "1 entries of its state dict are on the meta device, without values"),
    "sparse": ({"a": torch.ones(2, 2).to_sparse()}, "1 entries of its state dict are sparse ['a']"),
    "larger than the file": ({"a": torch.ones(1).expand(10**6, 10**6)}, "its tensors take 4,000,000,000,000 bytes of"),
}


@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("kind", ODD)
def test_an_odd_checkpoint_is_refused_with_what_is_in_it(kind: str, tmp_path: Path, new_format: bool) -> None:
    content, what = ODD[kind]
    if kind == "number" and not new_format:
        content = {"epoch": 10**400}
        what = "it has epoch"
    torch.save(content, tmp_path / "model.pth", _use_new_zipfile_serialization=new_format)
    text = refusal(tmp_path / "model.pth")
    for part in what.split(" .* "):
        assert part in text
    assert ("--trust-pickle" in text) == kind.startswith("whole")


def test_a_deep_configuration_and_a_deep_checkpoint_are_read(tmp_path: Path) -> None:
    nested: Any = {}
    for _ in range(5000):
        nested = {"ema": nested}
    texts = ["(" * 5000, "f(" * 500 + ")" * 500, "-" * 100_000 + "1", "a" + ".a" * 100_000, "\0"]
    for index, config in enumerate(texts):
        meta = {"config": config, "mmcv_version": "1.4.7"}
        state = {"a.b": torch.ones(1), "ema_a_b": torch.zeros(1)}
        torch.save({"meta": meta, "state_dict": state}, tmp_path / f"{index}.pth")
        assert read_checkpoint(tmp_path / f"{index}.pth").state["a.b"].item() == 1
    assert read_nested(tmp_path / "deep.pth", 30_000).keys() == {"a"}


def read_nested(path: Path, depth: int) -> State:
    """Read a checkpoint with dictionaries one in another, as no pickler writes them but an unpickler reads."""
    tensor = saved({"a": torch.ones(1)})
    with zipfile.ZipFile(io.BytesIO(tensor)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = next(name for name in members if name.endswith("data.pkl"))
    deep = b"X\x03\x00\x00\x00emaX\x03\x00\x00\x00ema" + b"}" + b"X\x01\x00\x00\x00k}" * depth + b"s" * depth
    # {"model": <what was there>, "ema": {"k": {"k": …}}}
    body = members[name][2:-1]
    outer = b"\x80\x02}X\x05\x00\x00\x00model" + body + b"s" + deep[8:] + b"s."
    path.write_bytes(zipped(**{**members, name: outer}))
    return read_checkpoint(path).state


def test_any_tensor_is_read_as_torch_reads_it(tmp_path: Path) -> None:
    draw = random.Random(0)
    dtypes = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16]
    dtypes += [torch.int8, torch.uint8, torch.bool, torch.complex64]
    in_zip_only = [torch.uint16, torch.float8_e5m2]  # torch does not read back what it writes of them in its old format
    for index in range(60):
        state: State = OrderedDict()
        for number, dtype in enumerate(draw.sample([*dtypes, *(in_zip_only if index % 3 else [])], 4)):
            shape = [draw.randint(0, 4) for _ in range(draw.randint(0, 3))]
            base = torch.randint(0, 2, (2, *shape)).to(dtype)
            value = draw.choice([base[0], base[1], base, base.transpose(0, -1), base[:, None]])
            state[f"a.{number}"] = torch.nn.Parameter(value) if value.is_floating_point() and index % 2 else value
            state[f"tied.{number}"] = value
        path = tmp_path / "a.pth"
        torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=bool(index % 3))
        expected = torch.load(path, weights_only=True)["state_dict"]
        actual = read_checkpoint(path).state
        assert list(actual) == list(expected)
        for name, value in actual.items():
            assert (value.dtype, value.shape) == (expected[name].dtype, expected[name].shape)
            assert value.tolist() == expected[name].tolist()
            assert value.is_contiguous()
            assert value.untyped_storage().nbytes() == value.numel() * value.element_size()


def test_safetensors_are_read_whole_and_in_shards(tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "model.safetensors")
    whole = read_checkpoint(tmp_path / "model.safetensors")
    assert whole.origin == "weights of a safetensors file"
    assert {name: value.tolist() for name, value in whole.state.items()} == {
        name: value.tolist() for name, value in weights().items()
    }
    index = tmp_path / "pytorch_model.bin.index.json"
    save_file({"a": torch.ones(2)}, tmp_path / "1.safetensors")
    torch.save({"b": torch.zeros(2)}, tmp_path / "2.bin")
    index.write_text(json.dumps({"metadata": {}, "weight_map": {"b": "2.bin", "a": "1.safetensors"}}))
    assert {name: value.tolist() for name, value in read_checkpoint(index).state.items()} == {"b": [0, 0], "a": [1, 1]}


SHARDS: dict[str, tuple[dict[str, Any], str]] = {
    "absent": ({"a": "9.safetensors"}, "its shard '9.safetensors' is not beside it"),
    "elsewhere": ({"a": "../1.safetensors"}, "the shard of 'a' is no name of a file beside it"),
    "absolute": ({"a": "/etc/passwd"}, "the shard of 'a' is no name of a file beside it"),
    "itself": ({"a": "model.safetensors.index.json"}, "the shard of 'a' is no name of a file beside it"),
    "another index": ({"a": "other.json"}, "other.json is an index of shards where a shard belongs"),
    "a number": ({"a": 3}, "the shard of 'a' is no name of a file beside it"),
    "a name too many": (
        {"a": "1.safetensors", "b": "1.safetensors"},
        "and its shard 1.safetensors differ in 1 names ['b']",
    ),
    "none": ({}, "holds no state dict"),
}


@pytest.mark.parametrize("kind", SHARDS)
def test_an_index_that_does_not_fit_its_shards_is_refused(kind: str, tmp_path: Path) -> None:
    named, what = SHARDS[kind]
    save_file({"a": torch.ones(2)}, tmp_path / "1.safetensors")
    (tmp_path / "other.json").write_text(json.dumps({"weight_map": {"a": "1.safetensors"}}))
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": named}))
    with pytest.raises(ParityError) as refused:
        read_checkpoint(index)
    assert what in str(refused.value)
    assert str(tmp_path) in str(refused.value)


@pytest.mark.parametrize("change", ["cut", "header", "long header", "dtype"])
def test_damaged_safetensors_are_refused(change: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(weights(), path)
    data = path.read_bytes()
    damaged = {
        "cut": data[:-5],
        "header": data[:8] + b"{" + data[9:].replace(b'"', b"'", 3),
        "long header": struct.pack("<Q", 1 << 27) + data[8:],
        "dtype": data.replace(b"F32", b"F99", 1),
    }
    path.write_bytes(damaged[change])
    assert "is a damaged safetensors file: " in refusal(path)


def members_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def test_every_damaged_byte_of_a_zip_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    good = saved({"state_dict": weights()})
    path = tmp_path / "model.pth"
    path.write_bytes(good)
    expected = {name: value.tolist() for name, value in read_checkpoint(path).state.items()}
    refused = 0
    for place in range(len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0x40]) + good[place + 1 :])
        try:
            actual = {name: value.tolist() for name, value in read_checkpoint(path).state.items()}
        except ParityError:
            refused += 1
        else:
            assert actual == expected
    assert refused > 300


def test_a_damaged_value_is_told_by_its_checksum(tmp_path: Path) -> None:
    data = saved({"a": torch.full((64,), 1.5)})
    path = tmp_path / "model.pth"
    value, other = struct.pack("<f", 1.5), struct.pack("<f", 2.5)
    path.write_bytes(data.replace(value * 64, value * 63 + other))
    assert "is damaged or no checkpoint: its zip is damaged or cut short (Bad CRC-32 for file" in refusal(path)


def test_a_file_without_checksums_is_read_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(weights(), tmp_path / "model.pth")
    finally:
        torch.serialization.set_crc32_options(before)
    no_sums = ("the file has no checksums: a damaged byte in it could not be noticed",)
    assert read_checkpoint(tmp_path / "model.pth").remarks == no_sums
    torch.save(weights(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert read_checkpoint(tmp_path / "old.pth").remarks == no_sums
    torch.save(weights(), tmp_path / "new.pth")
    assert read_checkpoint(tmp_path / "new.pth").remarks == ()


def test_a_compressed_zip_is_refused_however_large_it_would_be(tmp_path: Path) -> None:
    members = members_of(saved({"a": torch.zeros(1 << 18)}))
    path = tmp_path / "model.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    assert path.stat().st_size < 10_000
    assert "members are compressed, which torch.save never does" in refusal(path)


def test_two_entries_for_the_same_bytes_are_refused(tmp_path: Path) -> None:
    """Many entries of a zip's directory may point at one place: a file of a megabyte that holds a thousand."""
    path = tmp_path / "model.pth"
    path.write_bytes(saved({"a": torch.zeros(1 << 14)}))
    with zipfile.ZipFile(path, "a") as archive:
        info = next(info for info in archive.infolist() if info.filename.endswith("/data/0"))
        for number in range(1, 4):
            twin = zipfile.ZipInfo(info.filename.replace("/data/0", f"/data/{number}"))
            for name in ("CRC", "file_size", "compress_size", "header_offset"):
                setattr(twin, name, getattr(info, name))
            archive.filelist.append(twin)
            archive.NameToInfo[twin.filename] = twin
        archive._didModify = True  # type: ignore[attr-defined]
    assert "its zip members are larger than the file" in refusal(path)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (
            lambda pkl: pkl.replace(b"K\x02K\x03\x86", b"K\x02K\x63\x86"),
            "a tensor of shape (2, 99) in a storage of 24 bytes",
        ),
        (
            lambda pkl: pkl.replace(b"cpuq\x06K\x06t", b"cpuq\x06K\x7ft"),
            "a storage is said to have 508 bytes and has 24",
        ),
        (lambda pkl: pkl.replace(b"X\x01\x00\x00\x000q", b"X\x01\x00\x00\x009q"), "data/9' is missing"),
        (lambda pkl: pkl[:-9] + b".", "in its pickle"),
        (lambda pkl: pkl.replace(b"q\x00", b"r\xff\xff\xff\xff", 1), None),
        (lambda pkl: pkl.replace(b"q\x00", b"p99999999999999\n", 1), "a place of the memo that no pickle has"),
    ],
)
def test_a_pickle_that_does_not_fit_its_storages_is_refused(
    change: Callable[[bytes], bytes], what: str | None, tmp_path: Path
) -> None:
    members = members_of(saved({"conv.weight": torch.ones(2, 3)}))
    name = next(name for name in members if name.endswith("data.pkl"))
    changed = change(members[name])
    assert changed != members[name]
    (tmp_path / "model.pth").write_bytes(zipped(**{**members, name: changed}))
    if what is None:
        assert read_checkpoint(tmp_path / "model.pth").state.keys() == {"conv.weight"}
    else:
        assert what in refusal(tmp_path / "model.pth")


def test_a_key_whose_hash_never_ends_is_refused_at_once(tmp_path: Path) -> None:
    """A tuple of twice the same tuple, 60 times over: its hash takes 2**60 steps."""
    members = members_of(saved({"a": torch.ones(1)}))
    name = next(name for name in members if name.endswith("data.pkl"))
    bomb = b"\x80\x02}(K\x01" + b"2\x86" * 60 + b"K\x01u."
    (tmp_path / "model.pth").write_bytes(zipped(**{**members, name: bomb}))
    assert "holds no state dict: no state_dict, no model, not only tensors; it has tuple of 2" in refusal(
        tmp_path / "model.pth"
    )


def test_what_other_packages_allow_makes_no_difference(tmp_path: Path) -> None:
    torch.save({"state_dict": weights(), "meta": Path("x")}, tmp_path / "model.pth")
    with torch.serialization.safe_globals([type(Path("x"))]):
        assert "its pickle asks for pathlib.PosixPath, which no checkpoint" in refusal(tmp_path / "model.pth")


def test_a_view_of_a_large_buffer_makes_a_small_file(tmp_path: Path) -> None:
    large = torch.zeros(1000, 1000)
    torch.save({"state_dict": {"a": large[:2, :3], "b": large[5:7]}}, tmp_path / "in.pth")
    state = read_checkpoint(tmp_path / "in.pth").state
    write_checkpoint(tmp_path / "out.pth", state, source=tmp_path / "in.pth", meta={}, left=None)
    assert (tmp_path / "in.pth").stat().st_size > 4_000_000
    assert (tmp_path / "out.pth").stat().st_size < 20_000


def test_narrow_values_and_those_that_are_none_are_told(tmp_path: Path) -> None:
    state = {
        "a": torch.ones(2).half(),
        "b": torch.tensor([1.0, float("nan"), float("inf")]).bfloat16(),
        "c": torch.ones(2),
        "d": torch.ones(2).to(torch.float8_e4m3fn),
        "e": torch.ones(2, dtype=torch.float64),
        "n": torch.tensor(3),
    }
    torch.save(state, tmp_path / "model.pth")
    found = read_checkpoint(tmp_path / "model.pth")
    assert found.remarks == (
        "1 of 6 tensors are float16, such as 'a': they stay float16",
        "1 of 6 tensors are bfloat16, such as 'b': they stay bfloat16",
        "1 of 6 tensors are float8_e4m3fn, such as 'd': they stay float8_e4m3fn",
        "1 of 6 tensors are float64, such as 'e': they stay float64",
        "1 tensors hold NaN or infinities, such as 2 of 3 values of 'b': they stay so",
    )
    write_checkpoint(tmp_path / "out.pth", found.state, source=tmp_path / "model.pth", meta={}, left=None)
    written = torch.load(tmp_path / "out.pth", weights_only=True)["state_dict"]
    assert {name: value.dtype for name, value in written.items()} == {
        name: value.dtype for name, value in state.items()
    }
