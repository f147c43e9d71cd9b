"""Compare what one stage of the new engine gave with what a record holds of it."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import torch

from parity.cases.base import Case
from parity.compare.budgets import allowance
from parity.compare.closer import look_closer
from parity.compare.decisions import Choice, Tolerance, is_best_first, judge, other_settings
from parity.compare.known import KnownDeviations
from parity.compare.swaps import frame_of, picture_of, swaps
from parity.compare.table import Table, compare_table
from parity.compare.tensors import measure, unravel
from parity.compare.values import judge_values
from parity.compare.verdicts import Verdict
from parity.engines.base import Run
from parity.engines.session import DTYPES
from parity.records.digest import island_samples, sample_indices
from parity.records.kinds import is_draw
from parity.records.layout import StoredTensors, noise_key, recorded_part, unpromoted
from parity.records.store import Entry, Record
from parity.report.results import DecisionResult, TensorResult
from parity.taps.decisions import THRESHOLD, Decision

UNKNOWN_DRAW = "random numbers are drawn here that the truth did not draw"


def compare_tensors(
    run: Run, stored: StoredTensors, case: Case, *, stage: str, mode: str, dtype: str
) -> tuple[TensorResult, ...]:
    """Judge every array that the record holds of a stage, then what the run has beyond it."""
    record = stored.record
    known = KnownDeviations(case.deviations, run, stored, stage=stage)
    results: list[TensorResult] = []
    keys: dict[int, str] = {}  # place among the results -> what was compared there, if that is one array
    names = set()
    for role in ("output", "decision"):
        for key in record.keys(stage=stage, role=role, mode=mode):
            entry = record.entries[key]
            names.add(entry.name)
            if role == "output":
                if not entry.rows:
                    keys[len(results)] = key
                results += known.judged(key, partial(_compare_output, stored=stored, key=key, mode=mode, dtype=dtype))
            elif key.endswith(("/scores", "/boxes")):
                keys[len(results)] = key
                results.append(_compare_entry(run, stored, key, mode=mode, dtype=dtype))
    results = look_closer(results, keys, run, stored)
    extra = sorted(name for name in run.produced.get(stage, ()) if name not in names)
    results += [
        TensorResult(name, Verdict.EXTRA, tuple(run.tensors[name].shape), note=UNKNOWN_DRAW * is_draw(name))
        for name in extra
    ]
    return (*results, *known.stale())


def _compare_output(run: Run, *, stored: StoredTensors, key: str, mode: str, dtype: str) -> list[TensorResult]:
    if stored.record.entries[key].rows:
        return _compare_table(run, stored, key, mode=mode, dtype=dtype)
    return [_compare_entry(run, stored, key, mode=mode, dtype=dtype)]


def _compare_table(run: Run, stored: StoredTensors, key: str, *, mode: str, dtype: str) -> list[TensorResult]:
    record, entry = stored.record, stored.record.entries[key]
    noise = stored[noise_key(key)] if noise_key(key) in record.entries else None
    truth = Table(entry.name, record.rows(key), stored[key], noise, entry.unit)
    if entry.name not in run.tensors:
        return [TensorResult(entry.name, Verdict.MISSING, entry.shape, note="the new engine gave no such table")]
    rows = run.rows.get(entry.name, ())
    return compare_table(run.tensors[entry.name], rows, truth, dtype=dtype, mode=mode, stage=entry.stage)


def _compare_entry(run: Run, stored: StoredTensors, key: str, *, mode: str, dtype: str) -> TensorResult:
    entry = stored.record.entries[key]
    name = entry.name if entry.kind == "whole" else f"{entry.name}#{entry.kind}"
    blank = TensorResult(name, Verdict.MISSING, entry.of_shape, unit=entry.unit, kind=entry.kind)
    whole = run.tensors.get(entry.name) if entry.role == "output" else recorded_part(entry, key, run, stored)
    if whole is None:
        return replace(blank, note="the new engine gave no such tensor")
    expected_shape = entry.of_shape if entry.role == "output" else entry.shape
    if tuple(whole.shape) != expected_shape:
        return replace(blank, verdict=Verdict.SHAPE, note=f"shape {tuple(whole.shape)}, expected {expected_shape}")
    expected = stored[key]
    wanted = DTYPES.get(dtype, torch.float32) if _is_float(entry) else expected.dtype  # TF32's results are float32
    if whole.dtype is not wanted:
        return replace(blank, verdict=Verdict.DTYPE, note=f"dtype {whole.dtype}, expected {wanted}")
    actual = recorded_part(entry, key, run, stored)
    assert actual is not None
    noise = stored.record.noise(key, mode) if _is_float(entry) else None
    allowed = allowance(dtype, mode, stage=entry.stage, expected_max=entry.max, expected_rms=entry.rms, measured=noise)
    exact = not _is_float(entry)
    judged = judge_values(blank, actual, expected, allowed=allowed, expected_rms=entry.rms, exact=exact)
    return replace(judged, worst_index=_index_in_tensor(judged.worst_index, entry))


def _is_float(entry: Entry) -> bool:
    return entry.dtype.startswith("float")


def _index_in_tensor(index: tuple[int, ...], entry: Entry) -> tuple[int, ...]:
    """Return a sample's place in the tensor that it was taken from."""
    if entry.kind != "samples" or not index:
        return index
    flat = int(sample_indices(entry.name, math.prod(entry.of_shape))[index[0]])
    return unravel(flat, entry.of_shape)


def frozen_choice(record: Record, stored: StoredTensors, name: str) -> Choice:
    """Return the truth's decision ``name``."""
    described = record.manifest["decisions"][name]
    parts = {part: stored[f"{name}/{part}"] for part in ("boxes", "candidates") if f"{name}/{part}" in record.entries}
    choice = Choice(
        described["kind"],
        stored[f"{name}/scores"].double(),
        stored[f"{name}/chosen"],
        described["settings"],
        int(described["size"]),
        boxes=parts.get("boxes"),
        candidates=parts.get("candidates"),
    )
    # Early records do not say whether the legacy engine sorts: there its choice is held to the order it came in,
    # if that is one. The new engine's own word never decides.
    in_order = choice.kind != "topk" or is_best_first(choice)
    return replace(choice, ordered=bool(described.get("ordered", in_order)))


def compare_decisions(
    run: Run, stored: StoredTensors, case: Case, *, stage: str, mode: str, dtype: str
) -> tuple[DecisionResult, ...]:
    """Judge every decision that the record holds of a stage, then those the run has beyond it."""
    record = stored.record
    frozen = {
        name: described for name, described in record.manifest["decisions"].items() if described["stage"] == stage
    }
    results = [
        _compare_decision(name, run.decisions.get(name), stored, case, mode=mode, dtype=dtype) for name in frozen
    ]
    extra = sorted(name for name in run.decisions if name.startswith(f"{stage}.") and name not in frozen)
    if not record.manifest.get("thresholds"):  # early records do not hold these decisions: none is extra
        extra = [name for name in extra if run.decisions[name].kind != THRESHOLD]
    results += [DecisionResult(run.decisions[name].kind, name, Verdict.EXTRA) for name in extra]
    return tuple(results)


def _compare_decision(
    name: str, decision: Decision | None, stored: StoredTensors, case: Case, *, mode: str, dtype: str
) -> DecisionResult:
    truth = frozen_choice(stored.record, stored, name)
    described = stored.record.manifest["decisions"][name]
    blank = DecisionResult(
        truth.kind,
        name,
        Verdict.MISSING,
        count=truth.chosen.numel(),
        smallest_margin=described.get("smallest_score_margin"),
        smallest_iou_margin=described.get("smallest_iou_margin"),
    )
    if decision is None:
        return replace(blank, note="the new engine made no such decision")
    # The other way round is no difference: where the legacy engine leaves the order open, a sorted one is as good.
    if described.get("ordered") and not decision.ordered:
        note = "the legacy engine sorts what it chooses, the new one does not"
        return replace(blank, verdict=Verdict.SHAPE, note=note)
    reason = _other_choice(decision, truth)
    if reason:
        return replace(blank, verdict=Verdict.SHAPE, note=reason)
    tolerance = _tolerance(stored.record, name, mode=mode, dtype=dtype)
    if dtype == "fp64" and truth.boxes is not None:
        # Both engines cast to float32 for the compiled NMS: a tie of the cast scores is an exact one.
        truth = replace(truth, scores=truth.scores.float().double(), boxes=truth.boxes.float().double())
    judged = judge(decision.chosen, truth, tolerance=tolerance)
    result = replace(blank, verdict=Verdict.EQUAL, noise=tolerance.score, note=_cliff(name, truth, case))
    if not judged.flips:
        return result
    return replace(
        result,
        verdict=Verdict.DIVERGED if judged.uncertified else Verdict.CERTIFIED,
        flips=judged.flips,
        uncertified=judged.uncertified,
        certified=judged.flips - judged.uncertified,
        needed=judged.needed,
        swaps=swaps(decision.chosen, truth, frame=frame_of(name, stored)),
        picture=picture_of(name, stored) if truth.boxes is not None else "",
    )


def _other_choice(decision: Decision, truth: Choice) -> str:
    """Return why a decision cannot be judged by the truth's: it was about something else; nothing where it can."""
    if decision.refused:
        return decision.refused
    size = decision.scores.shape[-1]
    different = other_settings(decision.settings, truth.settings)
    parts = [f"{size} to choose from, expected {truth.size}"] if size != truth.size else []
    return "; ".join([*parts, f"other settings: {different}"] if different else parts)


def _tolerance(record: Record, name: str, *, mode: str, dtype: str) -> Tolerance:
    """Return by how much noise may move a difference of two scores, and a box coordinate.

    That is the budget of the decision's own inputs: twice for scores, as either of two may be off.
    """
    limits = {}
    for part in ("scores", "boxes"):
        entry = record.entries.get(f"{name}/{part}")
        if entry is not None:
            allowed = allowance(
                dtype,
                mode,
                expected_max=entry.max,
                expected_rms=entry.rms,
                measured=record.noise(f"{name}/{part}", mode),
            )
            limits[part] = allowed.max
    return Tolerance(score=2.0 * limits["scores"], box=limits.get("boxes", 0.0))


def _cliff(name: str, truth: Choice, case: Case) -> str:
    """Say where a decision decides far more than itself: DDQ reads only row 0 of its mask."""
    for prefix, reason in case.cliffs.items():
        if name.startswith(prefix):
            active = bool((truth.chosen == 0).any()) if truth.chosen.numel() else False
            return f"cliff: {reason}; here query 0 is {'kept' if active else 'dropped'}"
    return ""


def unpromoted_difference(run: Run, stored: StoredTensors, *, stage: str, place: str) -> dict[str, float]:
    """Return tensor -> relative RMS between the engines where float32 islands are left in.

    ``place`` is the one island that the legacy engine was spared; empty for none.
    """
    found = {}
    for key in stored.record.keys(stage=stage, role=unpromoted(place)):
        name = stored.record.entries[key].name
        if name in run.tensors:
            found[name] = measure(island_samples(name, run.tensors[name]), stored[key]).rel_rms
    return found
