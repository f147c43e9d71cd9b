"""The noise floor: bit-equal runs are one sample, further ways follow, and the truth's files stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from parity.cases.base import Case
from parity.cases.registry import find_case
from parity.engines.base import Run
from parity.engines.host import RemoteSession
from parity.errors import ParityError
from parity.records.draft import Draft
from parity.records.noise import CAPABILITY, ENOUGH, Floor, Way
from parity.records.remeasure import remeasure
from parity.records.store import NOISE, Record, write_record

RETINA = "stock_retinanet_r50_1x"
TRUTH = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
USUAL = (Way(1, True), Way(2, True), Way(1, False))
FURTHER = (Way(2, True, "default"), Way(3, True))
Command = Callable[..., tuple[int, str, str]]


class Legacy:
    """Stands in for a legacy engine: its settings are what was asked for."""

    def __init__(self, instructions: str = "AVX2") -> None:
        self.instructions = instructions
        self.asked: list[dict[str, Any]] = []

    def configure(self, **asked: Any) -> dict[str, Any]:
        self.asked.append(asked)
        return {**asked, "flush_denormal": False}

    def fingerprint(self) -> dict[str, str]:
        return {"engine": "stub", "vector_instructions": self.instructions}

    def sibling(self, **variables: str) -> Legacy:
        return Legacy("NO AVX" if variables[CAPABILITY] == "default" else self.instructions)


class Subject:
    """Gives the results that a test has in mind, in turn, for two stages."""

    def __init__(self, *errors: float) -> None:
        self.errors = list(errors)
        self.wanted: list[object] = []

    def runs(self, _: object, wanted: frozenset[tuple[str, str]] | None) -> Iterator[tuple[tuple[str, str], Run]]:
        self.wanted.append(None if wanted is None else sorted(wanted))
        for stage, value in (("neck", TRUTH + self.errors.pop(0)), ("head", TRUTH)):
            yield (stage, "isolated"), Run({"p3": value.float()}, produced={stage: ("p3",)})

    def note(self, draft: Draft, place: tuple[str, str], run: Run) -> None:
        draft.note_noise(*place, run)


def floor(case: Case, *errors: float, legacy: Legacy | None = None) -> tuple[Floor, Draft, Subject]:
    draft = Draft(case)
    for stage in ("neck", "head"):
        draft.add(f"{stage}/p3", TRUTH, name="p3", stage=stage, role="output", modes=("isolated",))
    subject = Subject(*errors)
    return Floor(draft, subject, cast(RemoteSession, legacy or Legacy())), draft, subject


def measured(case: Case, *errors: float) -> dict[str, Any]:
    return floor(case, *errors)[0].measure(USUAL, FURTHER, progress=lambda text: None)


def test_runs_that_agree_bit_for_bit_are_one_sample(case: Case) -> None:
    noise = measured(case, 0.25, 0.25, 0.5, 0.25, 0.25)
    assert noise["different"] == {"isolated": {"neck": 2, "head": 1}}
    assert noise["fewer_because"] == {
        "isolated/neck": "5 runs gave 2 different results, whatever was set",
        "isolated/head": "all 5 runs agree bit for bit: nothing that may be set moves a bit here",
    }
    digests = [sample["digests"]["isolated"]["neck"] for sample in noise["samples"]]
    assert digests[0] == digests[1] != digests[2]


def test_further_ways_follow_for_the_stages_that_lack_samples(case: Case) -> None:
    found, draft, subject = floor(case, 0.25, 0.25, 0.5, 0.75, 4.0)
    noise = found.measure(USUAL, FURTHER, progress=lambda text: None)
    assert noise["different"]["isolated"]["neck"] == ENOUGH
    assert subject.wanted == [None, None, None, [("head", "isolated"), ("neck", "isolated")], [("head", "isolated")]]
    assert draft.entries["neck/p3"].noise["isolated"].max == 0.75  # the last run was no longer for this stage
    assert [sample["way"] for sample in noise["samples"]][3:] == [
        "2 threads, oneDNN on, ATEN_CPU_CAPABILITY=default",
        "3 threads, oneDNN on",
    ]
    assert noise["samples"][3]["vector_instructions"] == "NO AVX"


def test_no_further_way_is_taken_where_there_are_enough(case: Case) -> None:
    found, _, subject = floor(case, 0.25, 0.5, 0.75)
    subject.runs = lambda *_: ((("neck", "isolated"), run) for run in [next(runs)])  # type: ignore[assignment]
    runs = (Run({"p3": (TRUTH + error).float()}, produced={"neck": ("p3",)}) for error in (0.25, 0.5, 0.75))
    noise = found.measure(USUAL, FURTHER, progress=lambda text: None)
    assert (noise["different"], noise["fewer_because"]) == ({"isolated": {"neck": 3}}, {})
    assert len(noise["samples"]) == 3


def test_a_sample_states_the_settings_as_they_were_read_back(case: Case) -> None:
    settings = measured(case, 0.25, 0.5, 0.75, 1.0, 1.25)["samples"][2]["settings"]
    assert settings == {"threads": 1, "onednn": False, "tf32": False, "flush_denormal": False}


def test_a_process_with_the_same_instructions_all_the_same_is_refused(case: Case) -> None:
    found = floor(case, 0.25, legacy=Legacy("NO AVX"))[0]
    with pytest.raises(ParityError, match=rf"^{CAPABILITY}=default changes nothing: torch uses NO AVX all the same$"):
        found.measure([Way(1, True, "default")], [], progress=lambda text: None)


def test_an_option_that_draws_goes_not_with_noise_only(parity_command: Command) -> None:
    status, _, said = parity_command("freeze", RETINA, "--noise-only", "--sizes", "64x64")
    assert (status, said) == (2, "parity: --noise-only: it measures records that are there; leave --sizes out\n")


def test_a_record_that_is_not_there_is_one_line(parity_command: Command, tmp_path: Path) -> None:
    status, _, said = parity_command("freeze", RETINA, "--noise-only", "--record", "padded", "--out", tmp_path)
    assert status == 2
    assert said == (
        f"parity: --noise-only: {tmp_path} holds no record 'padded' of {RETINA}: `parity freeze` makes records\n"
    )


@pytest.fixture(scope="module")
def frozen(mmdet2: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, RemoteSession]]:
    """Return a record of a stock detector, frozen live, and the legacy engine."""
    from parity.records.freeze import freeze

    case, folder = find_case(RETINA), tmp_path_factory.mktemp("frozen") / RETINA / "tiny"
    with closing(RemoteSession("mmdet2", python=mmdet2, root="")) as legacy:
        record = freeze(case, "tiny", case.records["tiny"], legacy, progress=lambda text: None)
        write_record(folder, *record, force=False)
        yield folder, legacy


def hashes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors") if path.name != NOISE}


@pytest.mark.legacy
def test_the_noise_is_measured_anew_and_the_truth_stays(frozen: tuple[Path, RemoteSession], tmp_path: Path) -> None:
    folder, legacy = frozen
    before, files = Record(folder), hashes(folder)
    measured = remeasure(find_case(RETINA), before, legacy, progress=lambda text: None)
    place = tmp_path / RETINA / "tiny"
    write_record(place, *measured, force=False, truth=folder)
    after = Record(place)
    assert hashes(place) == files
    assert {key: entry.noise for key, entry in after.entries.items()} == {
        key: entry.noise for key, entry in before.entries.items()
    }  # the same machine, the same ways: the same noise
    noise = after.manifest["noise"]
    assert noise["different"] == before.manifest["noise"]["different"]
    assert noise["different"]["isolated"]["backbone"] >= ENOUGH
    assert {sample["settings"]["onednn"] for sample in noise["samples"]} == {True, False}
    assert after.manifest["reproduced"]["greatest_rel_rms"] <= 1e-12


@pytest.mark.legacy
def test_a_truth_that_is_not_reproduced_keeps_its_noise(frozen: tuple[Path, RemoteSession], tmp_path: Path) -> None:
    folder, legacy = frozen
    record = Record(folder)
    key = next(key for key, entry in record.entries.items() if entry.stage == "neck" and entry.kind == "whole")
    tensor = record.tensor

    def altered(asked: str) -> Tensor:
        return tensor(asked) * (1.0 + 1e-9) if asked == key else tensor(asked)

    record.tensor = altered  # type: ignore[method-assign]
    message = r"tiny: the legacy engine does not reproduce the truth: neck/.* differs by 1.0e-09 of its size"
    with pytest.raises(ParityError, match=message):
        remeasure(find_case(RETINA), record, legacy, progress=lambda text: None)
