"""Judge one planted bug: run what ``parity check`` runs, in its order, until something diverges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from parity.cases.base import PREDICT, Case
from parity.check import Checker
from parity.check_ranks import Planted, ranks_of
from parity.errors import EngineError, ParityError
from parity.mutants.base import Mutant
from parity.records.kinds import CASCADE, INFERENCE, ISOLATED, TRAINING, checks_in
from parity.records.layout import StoredTensors
from parity.records.locate import find_records
from parity.records.store import Record
from parity.report.results import StageResult, TensorResult

# What a bug has to pass to survive: the sharpest first. All stages and records take part in each.
PASSES = ((ISOLATED, "fp64"), (CASCADE, "fp64"), (ISOLATED, "fp32"), (CASCADE, "fp32"))


@dataclass(frozen=True)
class Catch:
    """The first divergence that was met.

    Attributes:
        stage: the first diverging stage, in the order of the detector; ``""`` where a whole run crashed.
        how: the tensor or decision that diverged, with its verdict, or the error that the engine raised.
    """

    record: str
    mode: str
    dtype: str
    stage: str
    how: str


@dataclass
class Kept:
    """What is the same for every mutant of a case: the records' tensors, and the weights they were made with."""

    stored: dict[tuple[Path, int], StoredTensors] = field(default_factory=dict)
    weights: dict[str, dict[str, Tensor]] = field(default_factory=dict)


class BenchChecker(Checker):
    """Reads every record once, fills its weights once, and leaves away the replays that only explain a difference."""

    def __init__(self, case: Case, kept: Kept | None = None) -> None:
        super().__init__(case)
        self.kept = kept or Kept()

    def stored(self, record: Record) -> StoredTensors:
        """Return the record's tensors, read and checked once."""
        # The first steps of a trajectory are a record of their own in the same folder.
        return self.kept.stored.setdefault((record.folder, len(record.entries)), StoredTensors(record))

    def _legacy_state(self, record: Record) -> dict[str, Tensor]:
        key = str(record.manifest["weights"]["sha256"])
        if key not in self.kept.weights:
            self.kept.weights[key] = super()._legacy_state(record)
        return self.kept.weights[key]

    def _island_notes(self, *_: object, **__: object) -> tuple[str, ...]:
        return ()

    def _stale_lifts(self, *_: object, **__: object) -> tuple[TensorResult, ...]:
        return ()


class Bench:
    """One case with its records, smallest first, and a detector that stands already.

    Args:
        smallest: take only so many of the records; 0 for all.

    Raises:
        ParityError: there is no record.
    """

    def __init__(self, case: Case, fixtures: Path, *, smallest: int = 0) -> None:
        self.case = case
        folders = find_records(fixtures, case=case.id)
        if not folders:
            raise ParityError(f"{fixtures} holds no record of {case.id}: `parity freeze {case.id}` makes one")
        whole = [folder for folder in folders if PREDICT in checks_in(case, folder).stages]
        self.records = sorted(map(Record, whole), key=pixels)[: smallest or None]
        self.others = [Record(folder) for folder in folders if folder not in whole]
        self.checker = BenchChecker(case)
        self._verified: set[tuple[str, str, str]] = set()

    def verify(self, mode: str, dtype: str, stage: str = PREDICT, kind: str = "") -> None:
        """Make sure, once, that the unchanged engine passes where a mutant was caught; call it outside of any block.

        ``stage`` and ``kind`` are those of the mutant.

        Raises:
            ParityError: it does not.
        """
        records = [
            record for record in self.records_with(stage, kind) if (record.id, mode, dtype) not in self._verified
        ]
        found = first_divergence(self.checker, records, [(mode, dtype)])
        if found is not None:
            raise ParityError(
                f"{self.case.id} diverges before anything is planted: {found.stage} of record {found.record},"
                f" {found.mode}, {found.dtype}: {found.how}"
            )
        self._verified.update((record.id, mode, dtype) for record in records)

    def begin_anew(self) -> None:
        """Let go of the detector: nobody knows what an error has left of it."""
        self.checker = BenchChecker(self.case, self.checker.kept)

    def checker_for(self, mutant: Mutant) -> BenchChecker:
        """Return a checker for use inside the mutant's block; a new one where the detector has to be built there."""
        return BenchChecker(self.case, self.checker.kept) if mutant.rebuilds else self.checker

    def shows(self, stage: str, kind: str = "") -> bool:
        """Return whether some record of the case shows a stage."""
        return bool(self._records_with(stage, kind))

    def records_with(self, stage: str, kind: str = "") -> list[Record]:
        """Return the records that show a stage: those of inference if it is a stage of inference, unless ``kind`` says.

        Raises:
            ParityError: none does.
        """
        found = self._records_with(stage, kind)
        if not found:
            what = f"record of {kind}" if kind else "record"
            raise ParityError(f"{self.case.id} has no {what} with the stage {stage}: `parity freeze {self.case.id}`")
        return found

    def _records_with(self, stage: str, kind: str) -> list[Record]:
        found = [record for record in self.others if stage in record.checks(self.case).stages]
        if kind != TRAINING and stage in self.case.stage_names():  # a record of few stages first: it is sooner judged
            return [*(record for record in found if record.kind == INFERENCE), *self.records]
        if kind:
            found = [record for record in found if (record.kind == INFERENCE) == (kind == INFERENCE)]
        return sorted(found, key=lambda record: len(record.entries))

    def judge(
        self, checker: BenchChecker, stage: str = PREDICT, kind: str = "", *, mutant: Mutant | None = None
    ) -> Catch | None:
        """Return how the mutant inside whose block this is called was caught; ``None`` if it survived.

        ``stage`` and ``kind`` are those of the mutant: a bug of training shows in records of training alone. Records of
        several processes take part where ``mutant`` is named: other processes have to plant it for themselves.
        """
        records = [record for record in self.records_with(stage, kind) if mutant is not None or ranks_of(record) == 1]
        checker.planted = None if mutant is None else Planted(mutant.id, mutant.file)
        try:
            return first_divergence(checker, records)
        finally:
            checker.planted = None


def pixels(record: Record) -> int:
    """Return how many numbers the batch of a record has."""
    return next(
        entry.of_shape[0] * entry.of_shape[-1] * entry.of_shape[-2]
        for entry in record.entries.values()
        if entry.name == "image" and entry.role == "output"
    )


def first_divergence(
    checker: Checker, records: Sequence[Record], passes: Sequence[tuple[str, str]] = PASSES
) -> Catch | None:
    """Return the first divergence over all passes and records; ``None`` if there is none."""
    for mode, dtype in passes:
        for record in records:
            checks = record.checks(checker.case)
            if mode not in checks.modes or dtype not in checks.dtypes:
                continue
            where = {"record": record.id, "mode": mode, "dtype": dtype}
            stage = ""
            try:
                for result in _results(checker, record, mode=mode, dtype=dtype):
                    stage = result if isinstance(result, str) else stage
                    if isinstance(result, StageResult) and not result.verdict.passes:
                        return Catch(**where, stage=result.stage, how=reason(result))
            except EngineError as error:  # of the new engine in another process
                return Catch(**where, stage=stage, how=str(error))
            except ParityError:
                raise
            except Exception as error:  # a bug may well make an operator refuse its input
                return Catch(**where, stage=stage, how=f"{type(error).__name__}: {str(error).splitlines()[:1]}")
    return None


def _results(checker: Checker, record: Record, *, mode: str, dtype: str) -> Iterator[str | StageResult]:
    """Yield each stage's name before it is run, where it is run by itself, then its result."""
    if mode == CASCADE:
        yield from checker.check(record, mode=mode, dtype=dtype)
        return
    for stage in record.checks(checker.case).stages:
        yield stage
        yield from checker.check(record, mode=mode, dtype=dtype, stages=[stage])


def reason(result: StageResult) -> str:
    """Return the worst of what diverged in a stage, with its verdict."""
    tensors = [tensor for tensor in result.worst_tensors() if not tensor.verdict.passes]
    decisions = [decision for decision in result.decisions if not decision.verdict.passes]
    first = (tensors or decisions or [None])[0]
    return f"{first.name}: {first.verdict}" if first is not None else result.error
