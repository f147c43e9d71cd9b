"""The noise floor: the legacy engine's own float32 runs, in every honest way in which they may differ from one another.

Two runs that agree bit for bit are one sample. Where a stage has fewer than ``ENOUGH`` different ones after the usual
ways, others follow until it has; the manifest names them, and says where that cannot be reached.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from torch import Tensor

from parity.cases.base import PREPROCESS, Case, Stage, TrainingBatch
from parity.engines.base import Run
from parity.engines.host import RemoteSession
from parity.engines.numerics import Value
from parity.engines.ranks import Ranks
from parity.errors import ParityError
from parity.records.draft import Draft
from parity.records.kinds import CASCADE, ISOLATED, Checks
from parity.records.store import sha256

ENOUGH = 3  # different samples of every stage
CAPABILITY = "ATEN_CPU_CAPABILITY"  # which vector instructions torch's own loops use; read when a process starts

Progress = Callable[[str], None]
Place = tuple[str, str]  # stage and mode
Runs = Iterator[tuple[Place, Run]]


@dataclass(frozen=True)
class Way:
    """One way to run in float32: numerical settings, and which of torch's own loops (their sums go in another order).

    Attributes:
        capability: of ``ATEN_CPU_CAPABILITY``, in a process of its own; empty for what the CPU has.
    """

    threads: int
    onednn: bool
    capability: str = ""

    @property
    def settings(self) -> dict[str, Value]:
        """What is put in force."""
        return {"threads": self.threads, "onednn": self.onednn, "tf32": False}

    def __str__(self) -> str:
        """Return it for people.

        >>> str(Way(1, True)), str(Way(2, False, "default"))
        ('1 thread, oneDNN on', '2 threads, oneDNN off, ATEN_CPU_CAPABILITY=default')
        """
        words = f"{self.threads} thread{'s' * (self.threads > 1)}, oneDNN {'on' if self.onednn else 'off'}"
        return words + (f", {CAPABILITY}={self.capability}" if self.capability else "")


WAYS = (Way(1, True), Way(2, True), Way(1, False), Way(2, False))
FURTHER = (Way(2, True, "default"), Way(3, True), Way(2, False, "default"), Way(3, False))
# A training step is dear, and a step of all the parameters tells them apart sooner.
TRAINING_WAYS = (Way(1, True), Way(2, False))
FURTHER_OF_TRAINING = (Way(2, True, "default"), Way(2, True), Way(1, False), Way(3, True))


class Subject(Protocol):
    """What is run in float32."""

    def runs(self, session: Any, wanted: frozenset[Place] | None) -> Runs:
        """Run it; yield what each stage gave in each mode: at least in the wanted places, all if ``None``."""

    def note(self, draft: Draft, place: Place, run: Run) -> None:
        """Raise the noise of a stage's arrays to what a run shows."""


@dataclass
class Inference:
    """A batch whose stages are run by themselves, fed ``inputs``, and all in one."""

    case: Case
    stages: Sequence[Stage]
    checks: Checks
    files: Sequence[bytes]
    scale: Sequence[int]
    seed: int
    fills: Sequence[Mapping[str, Any]]
    inputs: Callable[[Stage], Mapping[str, Tensor]]
    forced: Mapping[str, Tensor]
    _filled: set[int] = field(default_factory=set)

    def runs(self, session: Any, wanted: frozenset[Place] | None) -> Runs:
        """Run the preprocessing, the whole detector and each stage by itself, as far as it is wanted."""
        if session.loaded != (self.case.id, "fp32"):
            session.load(self.case.id, "fp32")
        if id(session) not in self._filled:
            session.fill(self.seed, self.fills)
            self._filled.add(id(session))
        pixels = session.preprocess(self.files, self.scale)
        if PREPROCESS in self.checks.stages:
            yield from (((PREPROCESS, mode), pixels) for mode in self.checks.modes)
        places = [(stage, mode) for stage in self.stages for mode in self.checks.modes]
        chosen = [(stage, mode) for stage, mode in places if wanted is None or (stage.name, mode) in wanted]
        cascade: Run | None = None
        if any(mode == CASCADE or not stage.replayable for stage, mode in chosen):
            cascade = session.cascade(pixels.tensors, forced=self.forced)
        for stage, mode in chosen:
            if mode == ISOLATED and stage.replayable:
                yield (stage.name, mode), session.replay(stage.name, self.inputs(stage), forced=self.forced)
            else:
                assert cascade is not None
                yield (stage.name, mode), cascade

    def note(self, draft: Draft, place: Place, run: Run) -> None:
        """Raise the noise of the arrays that a stage gave in a mode."""
        draft.note_noise(*place, run)


@dataclass
class Training:
    """A training step, with the truth's draws and choices; ``train`` is what the engine is asked for."""

    case: Case
    batch: TrainingBatch
    files: Sequence[bytes]
    objects: Mapping[str, Tensor]
    fills: Sequence[Mapping[str, Any]]
    draws: Mapping[str, Tensor]
    forced: Mapping[str, Tensor]

    def runs(self, session: Any, wanted: frozenset[Place] | None) -> Runs:
        """Train a model that is filled anew."""
        run = trained(session, self, "fp32", draws=self.draws, forced=self.forced)
        yield from (((stage, CASCADE), run) for stage in run.produced)

    def note(self, draft: Draft, place: Place, run: Run) -> None:
        """Raise the noise of the arrays and tables of a stage."""
        draft.note_noise(*place, run)
        draft.note_table_noise(place[0], run)


def trained(session: RemoteSession | Ranks, step: Training, dtype: str, *, steps: int = 0, **given: Any) -> Run:
    """Train a model that is filled anew; ``steps`` of a trajectory, or all of it."""
    batch = step.batch
    session.load(step.case.id, dtype)  # anew: running DDQ DETR leaves modules on it
    session.fill(batch.seed, step.fills)
    pixels = session.preprocess(step.files, batch.scale)
    count = min(steps or batch.steps, batch.steps)
    return session.train({**pixels.tensors, **step.objects}, steps=count, per_step=batch.per_step, **given)


class Floor:
    """The noise of one record in the making: takes samples, and tells how many are different."""

    def __init__(self, draft: Draft, subject: Subject, legacy: RemoteSession | Ranks) -> None:
        self.draft, self.subject, self.legacy = draft, subject, legacy
        self.samples: list[dict[str, Any]] = []
        self.seen: dict[Place, list[str]] = {}

    def measure(self, ways: Iterable[Way], further: Iterable[Way], *, progress: Progress) -> dict[str, Any]:
        """Run all of the usual ways, and further ones for the stages that lack samples; return what was measured.

        Raises:
            ParityError: the legacy engine fails, or is not run the way it was to be.
        """
        for way in ways:
            progress(f"float32 noise: {way}")
            self._take(way, None)
        for way in further:
            lacking = frozenset(place for place, digests in self.seen.items() if len(set(digests)) < ENOUGH)
            if lacking:
                progress(f"float32 noise of {len(lacking)} more: {way}")
                self._take(way, lacking)
        return self.described()

    def _take(self, way: Way, wanted: frozenset[Place] | None) -> None:
        session = self.legacy
        if way.capability:
            session = self.legacy.sibling(**{CAPABILITY: way.capability})
        settings = session.configure(**way.settings)
        instructions = session.fingerprint()["vector_instructions"]
        if way.capability and instructions == self.legacy.fingerprint()["vector_instructions"]:
            raise ParityError(f"{CAPABILITY}={way.capability} changes nothing: torch uses {instructions} all the same")
        sample: dict[str, Any] = {
            "way": str(way),
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "settings": settings,
            "vector_instructions": instructions,
            "digests": {},
        }
        for (stage, mode), run in self.subject.runs(session, wanted):
            if wanted is None or (stage, mode) in wanted:
                self.subject.note(self.draft, (stage, mode), run)
                self.seen.setdefault((stage, mode), []).append(stage_digest(stage, run))
                sample["digests"].setdefault(mode, {})[stage] = self.seen[stage, mode][-1]
        self.samples.append(sample)

    def described(self) -> dict[str, Any]:
        """Return what the manifest says of the noise."""
        different: dict[str, dict[str, int]] = {}
        for (stage, mode), digests in self.seen.items():
            different.setdefault(mode, {})[stage] = len(set(digests))
        few = {f"{mode}/{stage}": _why_few(digests) for (stage, mode), digests in self.seen.items()}
        return {
            "engine": self.legacy.fingerprint(),
            "samples": self.samples,
            "different": different,
            "fewer_because": {place: why for place, why in few.items() if why},
        }


def _why_few(digests: Sequence[str]) -> str:
    different = len(set(digests))
    if different >= ENOUGH:
        return ""
    if different == 1:
        return f"all {len(digests)} runs agree bit for bit: nothing that may be set moves a bit here"
    return f"{len(digests)} runs gave {different} different results, whatever was set"


def stage_digest(stage: str, run: Run) -> str:
    """Return the SHA-256 over what a stage gave, by name."""
    total = hashlib.sha256()
    for name in sorted(run.produced[stage]):
        total.update(f"{name} {sha256(run.tensors[name])}\n".encode())
    return total.hexdigest()
