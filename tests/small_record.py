"""A small record of every part that a manifest may have, and the runs that it passes and fails: no engine needed."""

from __future__ import annotations

import functools
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from parity.cases.base import Case
from parity.cases.registry import find_case
from parity.compare.budgets import Noise
from parity.compare.stage import compare_decisions, compare_tensors
from parity.compare.tensors import measure
from parity.compare.verdicts import Verdict, worst
from parity.engines.base import Run
from parity.records.digest import kept
from parity.records.layout import StoredTensors, array_key, noise_key, unpromoted
from parity.records.store import Entry, Record, sha256, write_record
from parity.taps.decisions import Decision

CASE, RECORD = "ddq_fcn_r50_12e", "small"
STAGES = ("preprocess", "backbone", "neck", "query_selection", "predict")
Check = tuple[str, str, str]  # stage, mode, dtype
SHARE = 1e-6  # the float32 noise of every tensor, of its size
ROWS = tuple(f"parameter.{number}" for number in range(3))
MANIFEST: dict[str, Any] = {
    "case": CASE,
    "record": RECORD,
    "kind": "inference",
    "checks": {"stages": list(STAGES)},
    "engines": {"legacy": {"engine": "ddq_mmdet2", "torch": "1.9.0"}, "new": {"torch": "2.13.0"}},
    "islands": [["neck", "head.py:229 forward: .float()", 5]],
    "batch": {"seed": 3, "sizes": [[40, 56]], "files": [], "scale": [0, 0]},
    "weights": {"seed": 3, "sha256": "0" * 64, "shapes": {"neck.weight": [2, 3]}, "constants": {}, "fills": []},
    "rows": {"parameters": list(ROWS)},
    "thresholds": True,
}


@functools.cache
def case() -> Case:
    """Return the case that the record is of; its known deviations are none of this record's."""
    return replace(find_case(CASE), deviations=())


@functools.cache
def truth() -> Run:
    """Return what both engines give."""
    draw = torch.Generator().manual_seed(15)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64)

    tensors = {
        "image": drawn(1, 3, 4, 4),
        "c2": drawn(2, 3, 4),
        "p3": drawn(2, 5),
        "p4": drawn(200),  # kept as samples and projections
        "p5": drawn(300),  # kept as samples and sketch
        "table": drawn(3, 6),
        "labels": torch.tensor([3, 1, 2]),
        "mask": torch.tensor([True, False]),
    }
    scores, corners = drawn(6).sigmoid(), 20.0 * drawn(6, 2).abs()
    boxes = torch.cat([corners, corners + 5.0 + 20.0 * drawn(6, 2).abs()], 1)
    best = scores.sort(descending=True).indices
    over = (scores > 0.5).nonzero().flatten()
    decisions = {
        "query_selection.nms.0": Decision("nms", scores, best[:4], boxes, {"iou_threshold": 0.7, "offset": 0.0}),
        "query_selection.topk.0": Decision("topk", scores, best[:3], None, {"largest": 1.0}),
        "predict.threshold.0": Decision("threshold", scores, over, None, {"threshold": 0.5}),
    }
    return Run(tensors, decisions, produced=dict(PRODUCED), rows={"table": ROWS})


PRODUCED = {
    "preprocess": ("image",),
    "backbone": ("c2", "table"),  # a table has its noise in a tensor: the manifest's noise judges the neck alone
    "neck": ("p3", "p4", "p5"),
    "predict": ("labels", "mask"),
}
_KINDS = {"p4": ("samples", "projections"), "p5": ("samples", "sketch")}


def with_bug() -> Run:
    """Return what an engine gives whose neck is 5 % too great, and which chooses the worst instead of the best."""
    right = truth()
    wrong = {name: 1.05 * right.tensors[name] for name in PRODUCED["neck"]}
    topk = right.decisions["query_selection.topk.0"]
    chosen = replace(topk, chosen=topk.scores.sort().indices[:3])
    return replace(
        right,
        tensors={**right.tensors, **wrong},
        decisions={**right.decisions, "query_selection.topk.0": chosen},
    )


def verdicts(run: Run, record: Record) -> dict[Check, Verdict]:
    """Return the verdict on a run of every check that a record is for."""
    stored, found = StoredTensors(record), {}
    checks = record.checks(case())
    for dtype in checks.dtypes:
        given = run if dtype == "fp64" else _float32(run)
        for stage, mode in itertools.product(checks.stages, checks.modes):
            known = {"stage": stage, "mode": mode, "dtype": dtype}
            results = (
                *compare_tensors(given, stored, case(), **known),
                *compare_decisions(given, stored, case(), **known),
            )
            found[stage, mode, dtype] = worst([each.verdict for each in results])
    return found


def _float32(run: Run) -> Run:
    tensors = {name: value.float() if value.is_floating_point() else value for name, value in run.tensors.items()}
    decisions = {
        name: replace(each, scores=each.scores.float(), boxes=None if each.boxes is None else each.boxes.float())
        for name, each in run.decisions.items()
    }
    return replace(run, tensors=tensors, decisions=decisions)


def write_small(fixtures: Path, record: str = RECORD) -> Path:
    """Write the record into a folder of records; return its own folder."""
    run, tensors, entries = truth(), {}, {}

    def add(key: str, tensor: Tensor, **changed: Any) -> None:
        tensors[key], entries[key] = tensor.clone(), _entry(tensor, **changed)

    for stage, names in PRODUCED.items():
        for name in names:
            for kind in _KINDS.get(name, ("whole",)):
                part = kept(kind, name, run.tensors[name])
                of_shape = tuple(run.tensors[name].shape)
                add(array_key(stage, name, kind), part, name=name, stage=stage, kind=kind, of_shape=of_shape)
    entries["backbone/table"] = replace(entries["backbone/table"], rows="parameters")
    noise = torch.full((3, 2), 1e-7).double()
    add(noise_key("backbone/table"), noise, name="table", stage="backbone", role="noise", modes=())
    islands = {"name": "p3", "stage": "neck", "role": unpromoted(""), "modes": ()}
    add("neck/p3#unpromoted", run.tensors["p3"].flatten(), **islands)
    add("preprocess/file[0]", torch.arange(20, dtype=torch.uint8), name="file[0]", stage="preprocess", role="image")
    add("neck/c2@isolated", run.tensors["c2"][:1], name="c2", stage="neck", role="input", modes=("isolated",))
    described = {}
    for name, decision in run.decisions.items():
        stage = name.split(".")[0]
        for part in ("scores", "boxes", "chosen"):
            value = getattr(decision, part)
            if value is not None:
                add(f"{name}/{part}", value, name=f"{name}.{part}", stage=stage, role="decision")
        described[name] = {
            "kind": decision.kind,
            "stage": stage,
            "settings": decision.settings,
            "size": decision.scores.shape[-1],
            "ordered": True,
            "smallest_score_margin": 0.01,
            "smallest_iou_margin": None,
        }
    folder = fixtures / CASE / record
    manifest = {**MANIFEST, "record": record, "decisions": described}
    write_record(folder, manifest, entries, tensors, force=False)
    return folder


def _entry(tensor: Tensor, **changed: Any) -> Entry:
    figures = measure(torch.zeros_like(tensor), tensor)
    noise = Noise(SHARE * figures.expected_max, SHARE * figures.expected_rms)
    modes = changed.get("modes", ("isolated", "cascade"))
    noises = {mode: noise for mode in modes if tensor.is_floating_point()}
    return entry_of(tensor, **{"noise": noises, **changed})


def entry_of(tensor: Tensor, *, stage: str, **said: Any) -> Entry:
    """Return what a manifest says of a whole output: its figures are the tensor's, the rest is what is said."""
    figures = measure(torch.zeros_like(tensor), tensor)
    described = {
        "stage": stage,
        "role": "output",
        "kind": "whole",
        "modes": ("isolated", "cascade"),
        "file": f"{stage}.safetensors",
        "shape": tuple(tensor.shape),
        "of_shape": tuple(tensor.shape),
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "meaning": "a test",
        "unit": "pixels",
        "sha256": sha256(tensor),
        "max": figures.expected_max,
        "rms": figures.expected_rms,
    }
    return Entry(**{**described, **said})
