"""Made-up runs for the tests of pages: a green one, one with a planted bug, and a large one."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from PIL import Image

from parity.cases.registry import all_cases
from parity.compare.detail import detail
from parity.compare.verdicts import Verdict
from parity.records.kinds import checks_of
from parity.report.details import Swap
from parity.report.results import DecisionResult, Report, StageResult, TensorResult

CASE = "ddq_detr_4scale_r50_12e"
ENVIRONMENT = {
    "new": {"engine": "mmdet3", "torch": "2.13.0", "cpu": "EPYC"},
    "records": {f"{CASE}/padded": {"legacy": {"engine": "ddq_mmdet3rc", "torch": "1.9.0", "cpu": "EPYC"}}},
    "parity": "0.1.0",
    "when": "2026-01-02T03:04:05+00:00",
    "commit": "0123456789ab",
}
FLOOR = {"fp64": 2.0**-53, "fp32": 3e-7}
MULTIPLE = {"fp64": 9000.0, "fp32": 8.0}


def tensor(name: str, *, dtype: str = "fp64", used: float = 0.01, look: bool = False, side: int = 32) -> TensorResult:
    """Return a tensor (2, 90, 16) that used so much of its budget; with a closer look where that is asked for."""
    needed = used * MULTIPLE[dtype]
    passes = used <= 1.0
    error = 0.5 * needed * FLOOR[dtype]
    result = TensorResult(
        name,
        Verdict.DIVERGED if not passes else Verdict.WITHIN_BUDGET if used else Verdict.EQUAL,
        (2, 90, 16),
        max_abs=2.0 * error,
        rms=error,
        rel_rms=error,
        budget=MULTIPLE[dtype],
        minimum_budget=needed,
        worst_index=(1, 17, 3),
        count=2880,
        over=0 if passes else 123,
        floor_max=FLOOR[dtype],
        floor_rms=FLOOR[dtype],
        expected_rms=1.0,
        unit="normalised cxcywh",
        actual=None if passes else 0.5 + 2.0 * error,
        expected=None if passes else 0.5,
    )
    return replace(result, detail=closer(2.0 * error, side)) if look else result


def closer(error: float, side: int) -> object:
    """Return a closer look at a tensor whose errors grow along its rows; the greatest is ``error``."""
    expected = torch.linspace(0.0, 1.0, 2880, dtype=torch.float64).view(2, 90, 16)
    grown = torch.linspace(-6.0, 0.0, 180, dtype=torch.float64).view(2, 90, 1)
    actual = expected + error * 10.0**grown
    return detail(actual, expected, of_shape=(2, 90, 16), places=torch.arange(2880), side=side)


def green() -> Report:
    """Return a run of one case, inference, training, trajectory and recipe, in which all passes."""
    records = ("padded", "train-two-sizes", "trajectory", "recipe")
    results = [result for record in records for result in stage_results(CASE, record)]
    return Report(ENVIRONMENT, tuple(results), 75.0)


def planted() -> Report:
    """Return the same run with a bug in the decoder, which the later stages inherit in cascade."""
    return replace(green(), results=tuple(map(_with_bug, green().results)))


def _with_bug(result: StageResult) -> StageResult:
    if result.record != "padded" or result.stage not in ("decoder", "detr_head", "predict"):
        return result
    if result.stage != "decoder" and result.mode == "isolated":
        return result
    used = 4e9 if result.dtype == "fp64" else 30.0
    bad = tensor("references[2]", dtype=result.dtype, used=used, look=True)
    return replace(result, tensors=(*result.tensors, bad), decisions=(*result.decisions, flip(result.stage)))


def flip(stage: str) -> DecisionResult:
    """Return a decision that came out otherwise within noise, with the boxes of what was swapped."""
    return DecisionResult(
        "nms",
        f"{stage}.nms.3",
        Verdict.CERTIFIED,
        count=300,
        flips=2,
        certified=2,
        smallest_margin=7e-6,
        smallest_iou_margin=1e-3,
        noise=2e-5,
        needed=1e-5,
        note="cliff: row 0 is read",
        swaps=(Swap(17, 3, 4, 0.5, (0.1, 0.2, 0.5, 0.6)), Swap(23, None, 3, 0.5, (0.4, 0.4, 0.9, 0.8))),
        picture=picture(),
    )


def picture() -> str:
    """Return a small image as a data URI."""
    written = io.BytesIO()
    Image.new("RGB", (64, 48), "#336699").save(written, "JPEG")
    return f"data:image/jpeg;base64,{base64.b64encode(written.getvalue()).decode()}"


def stage_results(case: str, record: str, *, tensors: int = 3) -> Iterator[StageResult]:
    """Yield all results that a record of a case is for, each of so many tensors that passed."""
    checks = checks_of(all_cases()[case], record)
    steady = DecisionResult("topk", "predict.topk.0", Verdict.EQUAL, count=300, smallest_margin=7e-6, noise=2e-12)
    for stage in checks.stages:
        for dtype in checks.dtypes:
            for mode in checks.modes:
                found = [tensor("first", dtype=dtype, used=0.31, look=True)]
                found += [tensor(_name(stage, at), dtype=dtype, used=0.001 * at) for at in range(1, tensors)]
                if stage == "gradients":
                    rows = tuple((f"neck.convs.{at}.bias", 2.0 ** (-at)) for at in range(12))
                    found.append(replace(found[0], name="gradients", kind="table", rows=rows, detail=None))
                decisions = (steady,) if stage == "predict" else ()
                yield StageResult(case, record, stage, mode, dtype, "cpu", 1.5, tuple(found), decisions)


def _name(stage: str, at: int) -> str:
    return f"step[{at % 3}].neck.p{at}" if stage == "trajectory" else f"{stage}_tensor[{at}]"


def large(*, cases: int = 7, tensors: int = 500) -> Report:
    """Return a run of so many cases with so many tensors each, in every mode and dtype, one bug among them."""
    results: list[StageResult] = []
    for case in list(all_cases())[:cases]:
        stages = len(checks_of(all_cases()[case], "padded").stages)
        results += stage_results(case, "padded", tensors=math.ceil(tensors / stages))
    assert len({result.case for result in results}) == cases
    return Report(ENVIRONMENT, tuple(map(_with_bug, results)), 3600.0)
