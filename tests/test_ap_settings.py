"""What the user says: the settings file, the options that win over it, and what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from parity.ap.settings import Settings, read_settings
from parity.ap.subject import Missing, find_subject, shipped_folder
from parity.cases.registry import all_cases, find_case
from parity.engines.session import engine_class
from parity.errors import ParityError
from parity.records.locate import default_fixtures

FCN = "ddq_fcn_r50_12e"


def checkout(folder: Path, engine: str = "ddq_mmdet2") -> Path:
    file = folder / engine_class(engine).checkout_file
    file.parent.mkdir(parents=True)
    file.write_text("")
    return folder


def settings_file(folder: Path, text: str) -> Path:
    path = folder / "full_ap.toml"
    path.write_text(text, encoding="latin-1")
    return path


def test_the_committed_file_names_every_case_of_coco() -> None:
    settings = read_settings(file=default_fixtures().parent / "full_ap.toml")
    assert set(settings.checkpoints) == {
        case for case in all_cases() if case.startswith("ddq") and not case.endswith("_small")
    }
    assert settings.roots == {}


def test_an_option_wins_over_the_file(tmp_path: Path) -> None:
    file = settings_file(tmp_path, f'[checkpoints]\n{FCN} = "a.pth"\nddq_rcnn_r50_12e = "b.pth"\n[ap]\n{FCN} = 41.3\n')
    settings = read_settings(file=file, checkpoints=[f"{FCN}=other.pth"])
    assert settings.checkpoints == {FCN: Path("other.pth"), "ddq_rcnn_r50_12e": tmp_path / "b.pth"}
    assert settings.reported == {FCN: 41.3}


def test_a_root_serves_the_engine_that_it_fits(tmp_path: Path) -> None:
    fcn, detr = checkout(tmp_path / "fcn"), checkout(tmp_path / "detr", "ddq_mmdet3rc")
    file = settings_file(
        tmp_path, '[legacy.ddq_mmdet3rc]\nroot = "detr"\npython = "py"\n[legacy.ddq_mmdet2]\nroot = "gone"\n'
    )
    settings = read_settings(file=file, legacy_root=str(fcn), legacy_python="/py38")
    assert settings.root("ddq_mmdet2") == str(fcn)
    assert settings.root("ddq_mmdet3rc") == str(detr)
    assert settings.pythons == {"ddq_mmdet2": "/py38", "ddq_mmdet3rc": "py"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[checkpoint]\n", "has 'checkpoint': did you mean 'checkpoints'"),
        (
            '[checkpoints]\nddq_fcn_r50 = "x"\n',
            "checkpoints: there is no 'ddq_fcn_r50': did you mean 'ddq_fcn_r50_",
        ),
        (f"[checkpoints]\n{FCN} = 3\n", "3 is not what belongs there"),
        ("[legacy.mmdet3]\n", "legacy: there is no 'mmdet3'"),
        ("checkpoints = ", r"full_ap\.toml cannot be read"),
        ("\x80", r"full_ap\.toml cannot be read"),
        ("checkpoints = 3\n", r"full_ap\.toml: checkpoints is a table"),
        (f"[ap]\n{FCN} = true\n", "True is not what belongs there"),
        ("[legacy.ddq_mmdet2]\nroot = 3\n", "is not what belongs there"),
    ],
)
def test_a_file_that_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ParityError, match=message):
        read_settings(file=settings_file(tmp_path, text))


@pytest.mark.parametrize("text", ["x.pth", f"{FCN}=", f"{FCN}"])
def test_a_checkpoint_is_case_and_file(text: str) -> None:
    with pytest.raises(ParityError, match="it is CASE=FILE"):
        read_settings(checkpoints=[text])


def test_what_is_missing_is_told_one_thing_after_the_other(tmp_path: Path) -> None:
    case = find_case(FCN)
    settings = Settings(coco=tmp_path / "coco")
    with pytest.raises(Missing, match=f"{FCN} has no checkpoint: name the legacy engine's .pth with --checkpoint"):
        find_subject(case, settings)
    checkpoint = tmp_path / "fcn.pth"
    settings = Settings(coco=tmp_path / "coco", checkpoints={FCN: checkpoint})
    with pytest.raises(Missing, match=r"has no checkpoint: put it at .*fcn\.pth, or name"):
        find_subject(case, settings)
    checkpoint.write_text("")
    with pytest.raises(Missing, match=r"put annotations/instances_val2017\.json below .*coco, or name its root"):
        find_subject(case, settings)
    (tmp_path / "coco" / "annotations").mkdir(parents=True)
    (tmp_path / "coco" / "annotations" / "instances_val2017.json").write_text("")
    (tmp_path / "coco" / "val2017").mkdir()
    with pytest.raises(Missing, match=f"{FCN} needs https://github.com/jshilong/DDQ, branch main"):
        find_subject(case, settings)


def test_a_small_case_needs_nothing() -> None:
    subject = find_subject(find_case("ddq_fcn_small"), Settings())
    assert subject.shipped == shipped_folder(find_case("ddq_fcn_small"))
    assert (subject.root, subject.python) == ("", "")
