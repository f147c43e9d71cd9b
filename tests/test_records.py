"""The frozen store: written whole or not at all, and nothing believed when it is read."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from small_record import entry_of
from torch import Tensor

from parity.compare.budgets import Noise
from parity.errors import ParityError
from parity.records import store
from parity.records.listing import LISTING
from parity.records.store import Entry, Record, _pooled, sha256, write_record

DTYPES = (torch.float64, torch.float32, torch.int64, torch.int32, torch.bool, torch.uint8)
MANIFEST = {
    "case": "a_case",
    "record": "toy",
    "engines": {},
    "decisions": {},
    "islands": [],
    "weights": {"sha256": "0" * 64, "seed": 3, "shapes": {}},
    "batch": {"seed": 3, "scale": [0, 0]},
}
Contents = dict[str, Tensor]


def contents() -> Contents:
    """One tensor of every dtype that a record may hold, an empty one and a scalar."""
    values = torch.arange(6).reshape(2, 3) % 4
    tensors = {f"neck/{str(dtype).removeprefix('torch.')}": values.to(dtype) for dtype in DTYPES}
    return {**tensors, "head/empty": torch.empty(0, 4), "head/scalar": torch.tensor(2.5)}


def entry(key: str, tensor: Tensor, **changed: Any) -> Entry:
    stage, name = key.split("/")
    return entry_of(tensor, **{"name": name, "stage": stage, "noise": {"isolated": Noise(0.025, 0.0125)}, **changed})


def write(folder: Path, tensors: Contents | None = None, *, force: bool = False) -> Path:
    tensors = contents() if tensors is None else tensors
    write_record(folder, MANIFEST, {key: entry(key, t) for key, t in tensors.items()}, tensors, force=force)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "a_case" / "toy")


def alter(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest that no list holds to what it was."""
    (folder.parent.parent / LISTING).unlink(missing_ok=True)
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("record", "lacking"), [("recipe", "recipe"), ("train-toy", "steps"), ("trajectory-toy", "steps")]
)
def test_a_manifest_without_what_its_kind_of_record_has_is_refused(folder: Path, record: str, lacking: str) -> None:
    alter(folder, lambda manifest: manifest.update(record=record))
    with pytest.raises(ParityError, match=rf"manifest\.json is damaged: '{lacking}' is missing"):
        Record(folder)


@pytest.mark.parametrize("ranks", [0, 65, 10**9, "2"])
def test_a_manifest_that_asks_for_no_or_many_processes_is_refused(folder: Path, ranks: object) -> None:
    alter(folder, lambda manifest: manifest["batch"].update(ranks=2))
    assert Record(folder).manifest["batch"]["ranks"] == 2
    alter(folder, lambda manifest: manifest["batch"].update(ranks=ranks))
    with pytest.raises(ParityError, match=r"manifest\.json is damaged: [^\n]*\$\.batch\.ranks"):
        Record(folder)


def test_every_tensor_comes_back_bit_for_bit(folder: Path) -> None:
    record = Record(folder)
    assert list(record.entries) == sorted(contents())
    for key, tensor in contents().items():
        found = record.tensor(key)
        assert (found.dtype, found.shape, sha256(found)) == (tensor.dtype, tensor.shape, sha256(tensor))


def test_entries_and_manifest_come_back(folder: Path) -> None:
    record = Record(folder)
    assert record.entries == {key: entry(key, tensor) for key, tensor in sorted(contents().items())}
    assert (record.case, record.id, record.manifest["batch"]) == ("a_case", "toy", MANIFEST["batch"])


def test_keys_are_those_of_a_stage_role_and_mode(folder: Path) -> None:
    record = Record(folder)
    assert record.keys(stage="head", role="output", mode="cascade") == ["head/empty", "head/scalar"]
    assert record.keys(stage="head", role="output", mode="neither") == []
    assert record.keys(stage="head", role="decision") == []


def test_image_files_come_in_the_order_of_the_batch(tmp_path: Path) -> None:
    files = {f"neck/file[{number}]": torch.tensor([number], dtype=torch.uint8) for number in range(12)}
    write_record(
        tmp_path / "a_case" / "toy",
        MANIFEST,
        {key: entry(key, t, role="image") for key, t in files.items()},
        files,
        force=False,
    )
    record = Record(tmp_path / "a_case" / "toy")
    assert [int(record.tensor(key)) for key in record.image_files("neck")] == list(range(12))
    assert [int(record.tensor(key)) for key in record.keys(stage="neck", role="image")][:3] == [0, 10, 11]


def test_a_non_contiguous_tensor_is_stored_as_it_reads(tmp_path: Path) -> None:
    tensor = torch.arange(6.0).reshape(2, 3).t()
    found = Record(write(tmp_path / "a_case" / "toy", {"neck/t": tensor})).tensor("neck/t")
    assert found.tolist() == tensor.tolist()


def test_a_record_that_others_may_read_is_written(folder: Path) -> None:
    assert folder.stat().st_mode & 0o777 == 0o755
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "neck.safetensors", "head.safetensors"}


def test_every_file_of_a_record_may_be_read_by_whoever_may_read_the_folder(folder: Path) -> None:
    modes = {path.name: path.stat().st_mode & 0o444 for path in folder.iterdir()}
    assert len(set(modes.values())) == 1, {name: oct(mode) for name, mode in modes.items()}


def test_a_missing_manifest_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"toy/manifest\.json is missing: `parity freeze` makes a record"):
        Record(tmp_path / "toy")


@pytest.mark.parametrize("text", ["", "{", '{"schema": 1', "\x00\x01"])
def test_a_manifest_that_is_no_json_is_refused(folder: Path, text: str) -> None:
    (folder.parent.parent / LISTING).unlink()
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ParityError, match=r"manifest\.json is not readable as a manifest"):
        Record(folder)


@pytest.mark.parametrize("text", ["[]", "null", '"text"', "{}", '{"schema": 2, "tensors": {}}'])
def test_another_schema_is_refused(folder: Path, text: str) -> None:
    (folder.parent.parent / LISTING).unlink()
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ParityError, match=r"manifest\.json has schema .*, this version reads 1: freeze"):
        Record(folder)


@pytest.mark.parametrize("field", ["tensors", "case", "record"])
def test_a_manifest_without_a_field_is_refused(folder: Path, field: str) -> None:
    alter(folder, lambda manifest: manifest.pop(field))
    with pytest.raises(ParityError, match=rf"manifest\.json is damaged: .*required field `{field}`"):
        Record(folder)


@pytest.mark.parametrize("field", ["shape", "sha256", "noise", "file", "dtype"])
def test_an_entry_without_a_field_is_refused(folder: Path, field: str) -> None:
    alter(folder, lambda manifest: manifest["tensors"]["head/scalar"].pop(field))
    with pytest.raises(ParityError, match=rf"manifest\.json is damaged.*{field}"):
        Record(folder)


def test_an_entry_with_a_field_too_many_is_refused(folder: Path) -> None:
    alter(folder, lambda manifest: manifest["tensors"]["head/scalar"].update(extra=1))
    with pytest.raises(ParityError, match=r"manifest\.json is damaged.*extra"):
        Record(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("field", ["max", "rms", "noise"])
def test_a_figure_that_is_not_finite_is_refused(folder: Path, field: str, value: float) -> None:
    figure = {"isolated": {"max": value, "rms": 1.0}} if field == "noise" else value
    alter(folder, lambda manifest: manifest["tensors"]["head/scalar"].update({field: figure}))
    with pytest.raises(ParityError, match=r"manifest\.json is not readable as a manifest: JSON is malformed"):
        Record(folder)


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("modes", ["isolated", "both"], r"Invalid enum value 'both'"),
        ("kind", "part", r"Invalid enum value 'part'"),
        ("role", "result", r"matching regex"),
        ("dtype", "float16", r"Invalid enum value 'float16'"),
        ("shape", [3, -2], r">= 0"),
        ("sha256", "none", r"matching regex"),
        ("max", "large", r"Expected `float`"),
        ("noise", {"both": {"max": 0.0, "rms": 0.0}}, r"Invalid enum value 'both'"),
        ("kind", "samples", r"head/scalar is there without its projections"),
    ],
)
def test_a_word_or_a_type_that_the_schema_does_not_have_is_refused(
    folder: Path, field: str, value: object, problem: str
) -> None:
    alter(folder, lambda manifest: manifest["tensors"]["head/scalar"].update({field: value}))
    with pytest.raises(ParityError, match=rf"manifest\.json is damaged: .*{problem}"):
        Record(folder)


@pytest.mark.parametrize("factor", [1e13, 1.0 + 1e-6, 0.0])
@pytest.mark.parametrize("field", ["max", "rms"])
def test_a_size_that_is_not_that_of_the_tensor_is_refused(folder: Path, field: str, factor: float) -> None:
    def altered(manifest: dict[str, Any]) -> None:
        entry = manifest["tensors"]["neck/float64"]
        entry.update({field: factor * entry[field], "noise": {}})

    alter(folder, altered)
    with pytest.raises(
        ParityError, match=r"manifest\.json: neck/float64 is said to have the size .*: restore the manifest"
    ):
        Record(folder).tensor("neck/float64")


@pytest.mark.parametrize(("factor", "passes"), [(1.0 + 1e-6, True), (1.0 - 1e-6, True), (1.0 + 1e-4, False)])
def test_a_size_of_float32_may_be_summed_in_another_order(folder: Path, factor: float, passes: bool) -> None:
    """The RMS of the committed Swin-L quantiles differs by 1.7e-7 between 1 and 2 threads."""

    def altered(manifest: dict[str, Any]) -> None:
        entry = manifest["tensors"]["neck/float32"]
        entry.update({"rms": factor * entry["rms"], "noise": {}})

    alter(folder, altered)
    if passes:
        assert Record(folder).tensor("neck/float32").dtype is torch.float32
        return
    with pytest.raises(ParityError, match=r"neck/float32 is said to have the size .*: restore the manifest"):
        Record(folder).tensor("neck/float32")


def test_a_noise_that_would_let_everything_pass_is_refused(folder: Path) -> None:
    noise = {"isolated": {"max": 2.5e8, "rms": 1.25e8}}
    alter(folder, lambda manifest: manifest["tensors"]["head/scalar"].update(noise=noise))
    with pytest.raises(
        ParityError, match=r"the isolated float32 noise of head/scalar is .*% of its size, and more than 5%"
    ):
        Record(folder)


def test_a_decision_without_its_scores_is_refused(folder: Path) -> None:
    def altered(manifest: dict[str, Any]) -> None:
        manifest["decisions"] = {"neck.topk.0": {"kind": "topk", "stage": "neck", "settings": {}, "size": 6}}
        manifest["tensors"]["neck.topk.0/chosen"] = manifest["tensors"]["neck/int64"]

    alter(folder, altered)
    with pytest.raises(ParityError, match=r"manifest\.json is damaged: decision neck\.topk\.0 has no scores"):
        Record(folder)


def test_json_nested_too_deep_is_one_line(folder: Path) -> None:
    (folder.parent.parent / LISTING).unlink()
    (folder / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(ParityError, match=r"manifest\.json is not readable as a manifest"):
        Record(folder)


@pytest.mark.parametrize("field", ["max", "rms", "noise"])
def test_a_figure_below_zero_is_refused(folder: Path, field: str) -> None:
    figure = {"isolated": {"max": -1.0, "rms": 1.0}} if field == "noise" else -1.0
    alter(folder, lambda manifest: manifest["tensors"]["head/scalar"].update({field: figure}))
    with pytest.raises(ParityError, match=r"manifest\.json is damaged"):
        Record(folder)


@pytest.mark.parametrize("name", ["../x", "../toy/neck.safetensors", "inner/x", "", ".", ".."])
def test_a_path_outside_of_the_folder_is_refused(folder: Path, name: str) -> None:
    alter(folder, lambda manifest: manifest["tensors"]["head/scalar"].update(file=name))
    with pytest.raises(ParityError, match=r"manifest\.json names the file '.*' outside of its folder: refused"):
        Record(folder)


def test_an_absolute_path_is_refused(folder: Path) -> None:
    inside = str(folder / "head.safetensors")
    alter(folder, lambda manifest: manifest["tensors"]["head/scalar"].update(file=inside))
    with pytest.raises(ParityError, match=r"outside of its folder: refused"):
        Record(folder)


def test_a_symbolic_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "head.safetensors").rename(tmp_path / "elsewhere.safetensors")
    (folder / "head.safetensors").symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(ParityError, match=r"'head\.safetensors' outside of its folder: refused"):
        Record(folder)


def test_a_record_reached_through_a_link_is_read(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert Record(tmp_path / "link").tensor("head/scalar").item() == 2.5


def test_a_missing_tensor_file_is_named(folder: Path) -> None:
    (folder / "head.safetensors").unlink()
    with pytest.raises(ParityError, match=r"head\.safetensors is missing: restore it or freeze"):
        Record(folder).tensor("head/scalar")


@pytest.mark.parametrize("length", [0, 4, 40, -1])
def test_a_truncated_tensor_file_is_refused(folder: Path, length: int) -> None:
    path = folder / "neck.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ParityError, match=r"neck\.safetensors is damaged"):
        Record(folder).tensor("neck/float64")


def test_a_tensor_file_that_is_something_else_is_refused(folder: Path) -> None:
    (folder / "neck.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n" * 20)
    with pytest.raises(ParityError, match=r"neck\.safetensors is damaged"):
        Record(folder).tensor("neck/float64")


def test_a_folder_in_place_of_a_file_is_refused(folder: Path) -> None:
    (folder / "head.safetensors").unlink()
    (folder / "head.safetensors").mkdir()
    with pytest.raises(ParityError, match=r"head\.safetensors is damaged"):
        Record(folder).tensor("head/scalar")


def test_an_altered_byte_is_refused(folder: Path) -> None:
    path = folder / "head.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # the last byte of the scalar
    path.write_bytes(content)
    with pytest.raises(ParityError, match=r"head\.safetensors: head/scalar does not have the SHA-256 of the manifest"):
        Record(folder).tensor("head/scalar")


@pytest.mark.parametrize(("field", "value"), [("shape", [3, 2]), ("dtype", "float32")])
def test_a_manifest_that_says_something_else_is_refused(folder: Path, field: str, value: object) -> None:
    alter(folder, lambda manifest: manifest["tensors"]["neck/float64"].update({field: value}))
    with pytest.raises(ParityError, match=r"neck\.safetensors: neck/float64 is \(2, 3\) .*, not what the manifest"):
        Record(folder).tensor("neck/float64")


def test_a_tensor_that_the_file_does_not_hold_is_refused(folder: Path) -> None:
    alter(folder, lambda m: m["tensors"].update({"neck/other": m["tensors"]["neck/float64"]}))
    with pytest.raises(ParityError, match=r"neck\.safetensors is damaged.*neck/other"):
        Record(folder).tensor("neck/other")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_tensor_that_is_not_finite_is_refused_in_spite_of_its_hash(folder: Path, value: float) -> None:
    tensor = torch.tensor(value)
    save_file({"head/scalar": tensor, "head/empty": torch.empty(0, 4)}, folder / "head.safetensors")
    alter(folder, lambda manifest: manifest["tensors"]["head/scalar"].update(sha256=sha256(tensor)))
    with pytest.raises(ParityError, match=r"head\.safetensors: head/scalar holds a NaN or an infinity"):
        Record(folder).tensor("head/scalar")


def test_an_existing_record_is_not_replaced_without_force(folder: Path) -> None:
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(ParityError, match=r"record .*toy exists; --force replaces it"):
        write(folder, {"neck/new": torch.ones(2)})
    assert (folder / "manifest.json").read_bytes() == before


def test_force_replaces_the_whole_record(folder: Path) -> None:
    write(folder, {"neck/new": torch.ones(2)}, force=True)
    assert list(Record(folder).entries) == ["neck/new"]
    assert not (folder / "head.safetensors").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["toy"]


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "save_file", fails)


@pytest.mark.usefixtures("full_disk")
def test_a_failing_write_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"record .*toy could not be written: .*No space left on device"):
        write(tmp_path / "a_case" / "toy")
    assert list((tmp_path / "a_case").iterdir()) == []


def test_a_failing_replacement_keeps_the_old_record(folder: Path, full_disk: None) -> None:
    with pytest.raises(ParityError, match="could not be written"):
        write(folder, {"neck/new": torch.ones(2)}, force=True)
    assert list(Record(folder).entries) == sorted(contents())
    assert [path.name for path in folder.parent.iterdir()] == ["toy"]


def test_a_replacement_that_cannot_be_renamed_keeps_the_old_record(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def fails(path: Path, target: Path) -> Path:
        if Path(target) == folder and path.name.startswith(".toy."):
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(ParityError, match=r"could not be written: .*Input/output error"):
        write(folder, {"neck/new": torch.ones(2)}, force=True)
    assert list(Record(folder).entries) == sorted(contents())


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a_case" / "toy")
    assert list((tmp_path / "a_case").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a_case").write_text("a file where the folder should be")
    with pytest.raises(ParityError, match=r"record .*toy could not be written"):
        write(tmp_path / "a_case" / "toy")


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a 64 KiB tmpfs needs root with CAP_SYS_ADMIN; run the tests in such a container")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_really_full_leaves_nothing_behind(tiny_disk: Path) -> None:
    with pytest.raises(ParityError, match=r"record .*toy could not be written: .*(space|os error 28)"):
        write(tiny_disk / "a_case" / "toy", {"neck/big": torch.zeros(40_000)})
    assert list((tiny_disk / "a_case").iterdir()) == []


def with_noise(noise: Noise, *, size: float) -> Entry:
    kept = {"name": "x", "stage": "neck", "role": "output", "kind": "whole", "modes": ("isolated",), "file": "x"}
    told = {"shape": (1,), "of_shape": (1,), "dtype": "float64", "meaning": "", "unit": "", "sha256": ""}
    return Entry(**kept, **told, max=size, rms=size, noise={"isolated": noise})


def test_the_noise_of_a_family_is_the_greatest_relative_to_size() -> None:
    """One lucky number has next to no noise of its own; its siblings know better."""
    lucky, usual = with_noise(Noise(1e-12, 1e-12), size=1.0), with_noise(Noise(4e-6, 2e-6), size=10.0)
    pooled = _pooled({"neck/p3": lucky, "neck/p4": usual, "neck/mask": lucky}, "isolated")
    assert pooled == {"neck/p*": Noise(4e-7, 2e-7), "neck/mask": Noise(1e-12, 1e-12)}
    assert _pooled({"neck/p3": lucky}, "cascade") == {}
