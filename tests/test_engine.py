"""The new engine for real: tapping and replaying change nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from parity.cases.base import METAS, PREPROCESS, Case, base_name
from parity.engines.base import Run
from parity.engines.session import Session
from parity.errors import ParityError
from parity.records.layout import StoredTensors
from parity.records.store import Record, sha256

STAGES = ("backbone", "neck", "encoder", "query_selection", "decoder", "detr_head", "predict")


def hashes(tensors: dict[str, Tensor]) -> dict[str, str]:
    return {name: sha256(tensor) for name, tensor in tensors.items()}


@pytest.fixture(scope="module")
def stored(record_folder: Any) -> StoredTensors:
    return StoredTensors(Record(record_folder))


@pytest.fixture(scope="module")
def session(case: Case, stored: StoredTensors) -> Session:
    session = Session(case.new)
    session.load(case.id, "fp32")
    session.fill(int(stored.record.manifest["weights"]["seed"]))
    session.configure(threads=1, onednn=True)
    return session


@pytest.fixture(scope="module")
def pixels(session: Session, stored: StoredTensors) -> dict[str, Tensor]:
    files = [stored[key].numpy().tobytes() for key in stored.record.image_files(PREPROCESS)]
    return session.preprocess(files, (0, 0)).tensors


@pytest.fixture(scope="module")
def forwards(session: Session, pixels: dict[str, Tensor]) -> tuple[dict[str, Tensor], Run, dict[str, Tensor]]:
    """A bare forward, a tapped one, and a bare one again."""
    return session.bare(pixels), session.cascade(pixels), session.bare(pixels)


@pytest.fixture(scope="module")
def everything(forwards: tuple[Any, Run, Any], pixels: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**pixels, **forwards[1].tensors}


def final(run: Run) -> dict[str, str]:
    found = {name: tensor for name, tensor in run.tensors.items() if base_name(name) in ("boxes", "scores", "labels")}
    return hashes(found)


def test_the_session_fills_the_weights_of_the_record(session: Session, stored: StoredTensors) -> None:
    weights = stored.record.manifest["weights"]
    assert session.fill(int(weights["seed"])) == weights["sha256"]


def test_a_tapped_forward_is_bit_identical_to_a_bare_one(forwards: tuple[Any, Run, Any]) -> None:
    before, tapped, _ = forwards
    assert final(tapped) == hashes(before)


def test_a_bare_forward_afterwards_is_bit_identical_to_the_one_before(forwards: tuple[Any, Run, Any]) -> None:
    before, _, after = forwards
    assert hashes(after) == hashes(before)


def test_no_wrapper_stays_on_any_module(session: Session, forwards: object) -> None:
    wrapped = [name for name, module in session.model.named_modules() if "forward" in vars(module)]
    assert wrapped == []
    assert "predict_by_feat" not in vars(session.model.bbox_head)


def test_every_stage_writes_something(forwards: tuple[Any, Run, Any]) -> None:
    produced = forwards[1].produced
    assert tuple(produced) == STAGES
    assert all(produced.values())


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_replayed_on_the_cascades_own_tensors_repeats_them(
    stage: str, session: Session, case: Case, everything: dict[str, Tensor]
) -> None:
    inputs = {name: everything[name] for name in (*case.stage(stage).inputs(), *METAS)}
    replayed = session.replay(stage, inputs).tensors
    assert replayed
    assert hashes(replayed) == {name: sha256(everything[name]) for name in replayed}


@pytest.mark.parametrize("stage", STAGES)
def test_a_replay_leaves_its_inputs_as_they_were(
    stage: str, session: Session, case: Case, everything: dict[str, Tensor]
) -> None:
    inputs = {name: everything[name].clone() for name in (*case.stage(stage).inputs(), *METAS)}
    before = hashes(inputs)
    session.replay(stage, inputs)
    assert hashes(inputs) == before


def test_a_forced_choice_changes_what_follows_and_nothing_before(
    session: Session, pixels: dict[str, Tensor], forwards: tuple[Any, Run, Any]
) -> None:
    free = forwards[1]
    name = "predict.topk.0"
    run = session.cascade(pixels, forced={name: free.decisions[name].chosen.flip(-1)})
    assert run.tensors["scores[0]"].tolist() == free.tensors["scores[0]"].flip(0).tolist()
    assert sha256(run.tensors["hidden_states[5]"]) == sha256(free.tensors["hidden_states[5]"])
    assert run.decisions[name].chosen.tolist() == free.decisions[name].chosen.tolist()


def test_the_default_dtype_is_put_back(session: Session, pixels: dict[str, Tensor], forwards: object) -> None:
    assert torch.get_default_dtype() is torch.float32


def test_the_fingerprint_names_what_numbers_depend_on(session: Session) -> None:
    found = session.fingerprint()
    assert {"engine", "python", "torch", "mmcv", "mmdet", "blas", "cpu", "device"} <= set(found)
    assert all(isinstance(value, str) and value for value in found.values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="tests what happens without a CUDA device; here is one")
def test_a_device_that_is_absent_is_refused(case: Case) -> None:
    with pytest.raises(ParityError, match=r"--device cuda: torch .* sees no CUDA device here; use --device cpu"):
        Session(case.new, device="cuda")
