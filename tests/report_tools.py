"""Results to make reports of: small, and like real ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from parity.compare.verdicts import Verdict
from parity.report.results import DecisionResult, Report, StageResult, TensorResult, to_json

CASE = "ddq_detr_4scale_r50_12e"
SCRIPT = "<script>alert(1)</script>"
STAGES = ("backbone", "encoder", "decoder")
FINE = TensorResult(
    "memory",
    Verdict.WITHIN_BUDGET,
    (2, 96, 256),
    max_abs=4e-6,
    rms=1e-6,
    rel_rms=1e-6,
    budget=8.0,
    minimum_budget=2.0,
    worst_index=(1, 2, 3),
    count=49152,
    floor_max=2e-6,
    floor_rms=1e-6,
    expected_rms=1.0,
)
OFF = replace(FINE, verdict=Verdict.DIVERGED, max_abs=0.5, minimum_budget=80.0, over=7, actual=0.5, expected=0.0)
TIE = DecisionResult("nms", "decoder.nms.0", Verdict.CERTIFIED, count=277, flips=2, certified=2)
ENVIRONMENT: dict[str, Any] = {
    "when": "2026-11-20T02:00:00+00:00",
    "commit": "0123456789ab",
    "parity": "0.1.0",
    "device": "cpu",
    "new": {"engine": "mmdet3", "torch": "2.13.0", "mmcv": "2.1.0"},
    "records": {},
}


def check(stage: str = "encoder", *tensors: TensorResult, **changed: Any) -> StageResult:
    """Return one check; it passes unless its tensors do not."""
    values: dict[str, Any] = {"case": CASE, "record": "padded", "mode": "isolated", "dtype": "fp32", "device": "cpu"}
    return StageResult(**{**values, "stage": stage, "seconds": 1.5, "tensors": tensors or (FINE,), **changed})


def run_of(*results: StageResult, **environment: Any) -> Report:
    """Return a run; of three stages that pass, if none is given."""
    return Report({**ENVIRONMENT, **environment}, results or tuple(check(stage) for stage in STAGES))


def written(folder: Path, report: Report) -> Path:
    """Write a run's results as ``--report-dir`` does; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(to_json(report), encoding="utf-8")
    return folder
