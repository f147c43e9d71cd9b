"""What the committed manifests say of their noise: settings that were read back, and enough different samples."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from parity.records.locate import default_fixtures, find_records
from parity.records.noise import ENOUGH

READ_BACK = {"threads", "onednn", "cudnn_tf32", "flush_denormal", "autocast_cuda"}  # among others


@pytest.mark.parametrize("folder", find_records(default_fixtures()), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_every_setting_in_a_committed_manifest_was_read_back(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    assert "noise_runs" not in manifest  # how records before said it, of runs that never happened
    noise = manifest["noise"] or {"samples": [], "different": {}}
    told = manifest.get("reproduced", manifest)
    for settings in (told["settings"], *(sample["settings"] for sample in noise["samples"])):
        assert settings.keys() >= READ_BACK
    for sample in noise["samples"]:
        on = "on" if sample["settings"]["onednn"] else "off"
        assert sample["way"].startswith(f"{sample['settings']['threads']} thread")
        assert f"oneDNN {on}" in sample["way"]
    for mode, stages in noise["different"].items():
        for stage, count in stages.items():
            samples = [sample["digests"].get(mode, {}).get(stage) for sample in noise["samples"]]
            assert count == len({digest for digest in samples if digest})
            assert count >= ENOUGH or noise["fewer_because"][f"{mode}/{stage}"]
