"""What a training begins from is said before it starts; ``--offline`` fetches nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from parity.errors import ParityError
from parity.training import sources
from parity.training.sources import Source, announce, sources_of, stay_offline

RESNET = "https://download.pytorch.org/models/resnet50-0676ba61.pth"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return torch's folder of downloaded checkpoints, which is empty."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


class Config(dict[str, Any]):
    """A configuration as far as it is looked at."""

    __getattr__ = dict.__getitem__


def config(model: Any, **more: Any) -> Config:
    return Config(model=model, **more)


def begins(checkpoint: str, kind: str = "Pretrained") -> dict[str, Any]:
    return {"backbone": {"init_cfg": {"type": kind, "checkpoint": checkpoint}}}


def test_every_place_of_a_config_is_looked_at(cache: Path) -> None:
    model = {
        **begins("torchvision://resnet50", "mmengine.Pretrained"),
        "neck": {"pretrained": "neck.pth", "init_cfg": {"type": "Normal", "std": 0.1}},
        "heads": [
            {"init_cfg": None},
            {"init_cfg": [{"type": "Xavier"}, {"type": "Pretrained", "checkpoint": "h.pth"}]},
        ],
        "pretrained": None,
    }
    assert sources_of(config(model, load_from="https://host/path/start-1a2b3c4d.pth?x=1")) == [
        Source("model.backbone.init_cfg", "torchvision://resnet50", RESNET, str(cache / "resnet50-0676ba61.pth")),
        Source("model.neck.pretrained", "neck.pth", "", "neck.pth"),
        Source("model.heads.1.init_cfg.1", "h.pth", "", "h.pth"),
        Source(
            "load_from",
            "https://host/path/start-1a2b3c4d.pth?x=1",
            "https://host/path/start-1a2b3c4d.pth?x=1",
            str(cache / "start-1a2b3c4d.pth"),
        ),
    ]
    assert sources_of(config({"backbone": {"init_cfg": None}}, load_from=None)) == []


def test_what_would_be_downloaded_is_said_and_with_offline_refused(cache: Path) -> None:
    named = sources_of(config(begins("torchvision://resnet50")))
    place = f"model.backbone.init_cfg begins from torchvision://resnet50: it will be downloaded from {RESNET}"
    assert announce(named, offline=False) == [f"{place} to {cache}/resnet50-0676ba61.pth; --offline refuses"]
    message = (
        rf"--offline: model\.backbone\.init_cfg begins from torchvision://resnet50, which is not here: put {RESNET} at"
        rf" {cache}/resnet50-0676ba61\.pth, or --cfg-option model\.backbone\.init_cfg=None begins without"
    )
    with pytest.raises(ParityError, match=message):
        announce(named, offline=True)


def test_what_is_in_the_cache_is_taken_from_there(cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "resnet50-0676ba61.pth").touch()
    named = sources_of(config(begins("torchvision://resnet50")))
    expected = f"model.backbone.init_cfg begins from torchvision://resnet50: it is here, {cache}/resnet50-0676ba61.pth"
    assert announce(named, offline=True) == announce(named, offline=False) == [expected]


@pytest.mark.parametrize("name", ["torchvision://nothing", "pavi://x/y", "s3://bucket/x.pth"])
def test_an_unknown_address_is_said_to_be_unknown(name: str) -> None:
    named = sources_of(config(begins(name)))
    assert "where the framework fetches it from is not known here" in announce(named, offline=False)[0]
    with pytest.raises(ParityError, match=f"begins from {name}, which is not here"):
        announce(named, offline=True)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.pth").touch()
    lines = announce(sources_of(config(begins(str(tmp_path / "a.pth")), load_from="none.pth")), offline=False)
    assert lines == [
        f"model.backbone.init_cfg begins from {tmp_path}/a.pth: it is here, {tmp_path}/a.pth",
        "load_from begins from none.pth: there is no such file",
    ]


def test_without_torchvision_the_table_of_mmengine_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    before = sources.importlib.import_module

    def absent(name: str) -> Any:
        if name.endswith("runner.checkpoint"):
            raise ModuleNotFoundError("No module named 'torchvision'")
        return before(name)

    monkeypatch.setattr(sources.importlib, "import_module", absent)
    assert sources_of(config(begins("torchvision://resnet50")))[0].address == RESNET


def test_offline_stops_whatever_would_still_be_downloaded(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "download_url_to_file", torch.hub.download_url_to_file)
    stay_offline()
    with pytest.raises(ParityError, match=rf"--offline: {RESNET} would be downloaded: put it at {cache}/resnet50"):
        torch.hub.load_state_dict_from_url(RESNET)
