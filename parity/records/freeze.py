"""Freeze a record: run the legacy engine, in float64 for the truth and in float32 for its noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor

from parity import __version__
from parity.cases.base import METAS, PREPROCESS, Batch, Case, Stage, base_name
from parity.cases.patterns import expand
from parity.compare.decisions import Margins, margins
from parity.compare.tensors import measure
from parity.engines.base import Run
from parity.engines.host import RemoteSession
from parity.engines.numerics import Value
from parity.engines.ranks import Ranks
from parity.errors import ParityError
from parity.records.digest import island_samples
from parity.records.draft import Draft, as_choice
from parity.records.images import encoded_images
from parity.records.kinds import CASCADE, ISOLATED, MODES, Checks, checks_of_batch, said_of
from parity.records.layout import DECISION_PARTS, REPEATABLE, array_key, sliced, stage_inputs, unpromoted
from parity.records.noise import FURTHER, WAYS, Floor, Inference, Progress
from parity.records.store import Entry
from parity.taps.generators import unrecorded
from parity.taps.islands import Promote, place

# What the truth is run with; the manifest holds what was read back.
TRUTH: dict[str, Value] = {"threads": 2, "onednn": True, "tf32": False}

Frozen = tuple[dict[str, Any], dict[str, Entry], dict[str, Tensor]]


def freeze(
    case: Case, record_id: str, batch: Batch, legacy: RemoteSession, *, progress: Progress, brief: bool = False
) -> Frozen:
    """Return the manifest, the entries and the tensors of one record.

    A ``brief`` record holds what a float64 check compares: no float32 noise, no margins, nothing that explains islands.

    Raises:
        ParityError: the legacy engine fails, does not repeat itself in float64, or its truth is not finite.
    """
    checks = checks_of_batch(case, batch)
    progress("float64 truth")
    freezer = _Freezer(case, batch, legacy, checks, margins_told=not brief)
    progress("float64 again, on one thread")
    freezer.require_repeatable()
    for stage in freezer.stages if ISOLATED in checks.modes else ():
        progress(f"float64 replay of {stage.name}")
        if stage.replayable:
            freezer.add_isolated(stage)
        if stage.replayable and not brief:
            freezer.add_islands(stage)
    floor = Floor(freezer.draft, freezer.subject(), legacy)
    noise = None if brief else floor.measure(WAYS, FURTHER, progress=progress)
    return freezer.manifest(record_id, noise), freezer.draft.entries, freezer.draft.tensors


class _Freezer:
    """One record's way through the legacy engine; making it runs the truth."""

    def __init__(self, case: Case, batch: Batch, legacy: RemoteSession, checks: Checks, *, margins_told: bool) -> None:
        self.case, self.batch, self.legacy, self.checks = case, batch, legacy, checks
        self.stages = [stage for stage in case.stages_of(case.legacy) if stage.name in checks.stages]
        self.files = encoded_images(batch, seed=batch.seed)
        self.settings = legacy.configure(**TRUTH)
        self.shapes = legacy.load(case.id, "fp64")
        self.fills = [asdict(fill) for fill in batch.fills]
        self.weights = legacy.fill(batch.seed, self.fills)
        self.constants = legacy.constants()
        self.pixels = legacy.preprocess(self.files, batch.scale)
        self.truth = legacy.cascade(self.pixels.tensors) if self.stages else Run({})
        require_recorded_draws(self.truth)
        self.everything = {**self.pixels.tensors, **self.truth.tensors}
        self.forced = {name: decision.chosen for name, decision in self.truth.decisions.items()}
        self.draft = Draft(case)
        add_files(self.draft, self.files)
        self._add_outputs()
        self.decisions = add_decisions(
            self.draft, self.truth, modes=MODES, margins_told=margins_told, stages=checks.stages
        )

    def _add_outputs(self) -> None:
        """Add what every stage gave in the whole run, whole where another stage is to be fed it."""
        needed = self._needed_whole()
        for name, written in {**self.pixels.produced, **self.truth.produced}.items():
            only_cascade = name != PREPROCESS and self.case.stage(name).slices
            compared = name in self.checks.stages
            outputs = {output: self.everything[output] for output in written if compared or output in needed}
            modes = (CASCADE,) if only_cascade else MODES
            sketched = ISOLATED not in self.checks.modes
            self.draft.add_outputs(name, outputs, whole=needed, modes=modes, small=sketched)

    def _needed_whole(self) -> set[str]:
        """Return the tensors that some stage is to be fed."""
        if not self.stages or ISOLATED not in self.checks.modes:
            return set()
        needed = {"image", *METAS}
        for stage in (*self.case.stages, *self.stages):
            if stage.name in self.checks.stages:
                wanted = [name for name in stage.inputs() if base_name(name) not in stage.slices]
                needed |= {name for each in wanted for name in expand(each, self.everything)}
        return needed

    def require_repeatable(self) -> None:
        """Run the truth again on one thread: what cannot repeat itself in float64 is no truth."""
        self.legacy.configure(**{**TRUTH, "threads": 1})
        again = self.legacy.cascade(self.pixels.tensors, forced=self.forced) if self.stages else Run({})
        self.legacy.configure(**TRUTH)
        for name, tensor in self.truth.tensors.items():
            if not measure(again.tensors[name], tensor).rel_rms <= REPEATABLE:
                raise ParityError(
                    f"the legacy engine does not repeat itself in float64: {name} differs between 1 and 2 threads"
                )

    def add_isolated(self, stage: Stage) -> None:
        """Replay one stage on the frozen inputs: proof that its boundary is whole, and the truth of a sliced one."""
        run = self._replay(stage)
        outputs = {name: run.tensors[name] for name in run.produced[stage.name]}
        if not stage.slices:
            _require_same_replay(stage, outputs, self.truth)
            return
        self.draft.add_outputs(stage.name, outputs, whole=(), modes=(ISOLATED,))
        for name in stage.inputs():
            if base_name(name) in stage.slices:
                whole = self.everything[name]
                self.draft.add(
                    array_key(stage.name, name, "whole"),
                    sliced(stage, name, whole),
                    name=name,
                    stage=stage.name,
                    role="input",
                    modes=(ISOLATED,),
                    of=whole,
                )

    def add_islands(self, stage: Stage) -> None:
        """Replay a stage with its float32 islands left in, then with each of them lifted alone.

        Of each replay a few samples are kept: where the new engine has other islands, they tell which
        one is the cause of the difference.
        """
        places = sorted({place(site) for at, site, _ in self.truth.islands if at == stage.name})
        promotions: list[tuple[str, Promote]] = [("", False), *((where, [where]) for where in places)]
        for where, promote in promotions if places else ():
            run = self._replay(stage, promote=promote)
            for name in run.produced[stage.name]:
                if run.tensors[name].is_floating_point():
                    self.draft.add(
                        f"{stage.name}/{name}#{unpromoted(where)}",
                        island_samples(name, run.tensors[name]),
                        name=name,
                        stage=stage.name,
                        role=unpromoted(where),
                        kind="samples",
                        of=run.tensors[name],
                    )

    def subject(self) -> Inference:
        """Return what is run in float32 for the noise."""
        return Inference(
            self.case,
            self.stages,
            self.checks,
            self.files,
            self.batch.scale,
            self.batch.seed,
            self.fills,
            lambda stage: stage_inputs(stage, self.everything),
            self.forced,
        )

    def _replay(self, stage: Stage, *, promote: Promote = True) -> Run:
        inputs = stage_inputs(stage, self.everything)
        return self.legacy.replay(stage.name, inputs, forced=self.forced, promote=promote)

    def manifest(self, record_id: str, noise: dict[str, Any] | None) -> dict[str, Any]:
        """Return all of the manifest but the tensors' entries; ``noise`` says how it was measured."""
        described = described_run(self.case, record_id, self.batch, self.legacy, fills=self.fills)
        described["settings"] = self.settings
        described["weights"].update(sha256=self.weights, shapes=self.shapes, constants=self.constants)
        return {
            **described,
            **said_of(self.checks, self.case),
            "decisions": self.decisions,
            "islands": self.truth.islands,
            "noise": noise,
        }


def require_recorded_draws(truth: Run) -> None:
    """Raise ``ParityError`` where the legacy engine draws what no other engine can be made to draw."""
    names = unrecorded(truth.tensors)
    if names:
        raise ParityError(
            f"the legacy engine draws random numbers in a way that is not recorded ({names[0]}; dropout?): set its"
            " rate to 0 in the case's options, or teach parity/taps/draws.py"
        )


def add_files(draft: Draft, files: Sequence[bytes]) -> None:
    """Add the encoded images of a batch."""
    for index, content in enumerate(files):
        name = f"file[{index}]"
        tensor = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        draft.add(f"{PREPROCESS}/{name}", tensor, name=name, stage=PREPROCESS, role="image")


def add_decisions(
    draft: Draft, truth: Run, *, modes: tuple[str, ...], margins_told: bool = True, stages: Sequence[str]
) -> dict[str, Any]:
    """Add what every decision chose and from what; return what the manifest says of them, margins if they are told.

    Of a decision outside of ``stages``, which are those that are compared, only its choice is kept: to be forced.
    """
    described = {}
    for name, decision in truth.decisions.items():
        choice = as_choice(decision)
        stage = name.split(".")[0]
        for part in DECISION_PARTS if stage in stages else ("chosen",):
            tensor = getattr(choice, part)
            if tensor is not None:
                draft.add(f"{name}/{part}", tensor, name=f"{name}.{part}", stage=stage, role="decision", modes=modes)
        margin = margins(choice) if margins_told else Margins(math.inf, math.inf)
        described[name] = {
            "kind": decision.kind,
            "stage": stage,
            "settings": decision.settings,
            "ordered": decision.ordered,
            "size": choice.size,
            "smallest_score_margin": _finite_or_none(margin.score),
            "smallest_iou_margin": _finite_or_none(margin.iou),
        }
    return described


def described_run(
    case: Case, record_id: str, batch: Batch, legacy: RemoteSession | Ranks, *, fills: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Return what every manifest says: of what the record is, and where it was made."""
    return {
        "case": case.id,
        "record": record_id,
        "engines": {"legacy": legacy.fingerprint(), "new": freezing_environment()},
        "batch": {
            "seed": batch.seed,
            "sizes": batch.sizes,
            "files": batch.files,
            "scale": batch.scale,
            "pictures": [asdict(picture) for picture in batch.pictures],
        },
        "weights": {"seed": batch.seed, "fills": list(fills)},
        "limits": legacy.limits(case.id),
        "thresholds": True,  # what was kept for scoring high enough counts among the decisions
    }


def _require_same_replay(stage: Stage, outputs: dict[str, Tensor], truth: Run) -> None:
    for name, tensor in outputs.items():
        if not measure(tensor, truth.tensors[name]).rel_rms <= REPEATABLE:
            raise ParityError(
                f"stage {stage.name}: replayed on its own inputs {name} comes out different;"
                " the case's declaration misses an input"
            )


def freezing_environment() -> dict[str, str]:
    """Return the versions of the new engine's packages where the record was written."""
    found = {"parity": __version__}
    for package in ("torch", "numpy", "mmcv", "mmengine", "mmdet", "opencv-python-headless"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found


def _finite_or_none(number: float) -> float | None:
    return number if math.isfinite(number) else None
