"""One situation, run live: the legacy engine in its own interpreter, then the new one on what it did."""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from torch import Tensor

from parity.cases.base import Batch, Case, TrainingBatch
from parity.check import Checker
from parity.engines.base import Run
from parity.engines.host import RemoteSession
from parity.engines.session import Session, Shapes
from parity.errors import EngineError, NoTruthError, ParityError
from parity.records.freeze import freeze
from parity.records.freeze_training import freeze_training
from parity.records.images import drawn_objects, encoded_images
from parity.records.kinds import TRAINING_PREFIX
from parity.records.store import Record, write_record
from parity.report.results import StageResult
from parity.weights import synthetic
from parity.weights.conversion import convert


class Kind(StrEnum):
    """What a situation showed."""

    SAME = "the same"
    REFUSED = "refused by both engines"
    NO_TRUTH = "without a finite truth"
    DIVERGED = "NOT the same"
    NEW_FAILS = "an error in the new engine alone"
    LEGACY_FAILS = "an error in the legacy engine alone"
    NO_RECORD = "an error of the harness"

    @property
    def passes(self) -> bool:
        """Whether the engines count as the same here."""
        return self in (Kind.SAME, Kind.REFUSED, Kind.NO_TRUTH)


@dataclass(frozen=True)
class Outcome:
    """What one situation showed; ``reason`` is one line about an error, ``detail`` its traceback."""

    kind: Kind
    results: tuple[StageResult, ...] = ()
    reason: str = ""
    detail: str = ""

    @property
    def first(self) -> StageResult | None:
        """The first stage check that does not pass."""
        return next((result for result in self.results if not result.verdict.passes), None)


class SteadySession(RemoteSession):
    """Builds and fills a detector only where it does not stand already with the same weights."""

    _built: tuple[str, str] | None = None
    _filled: tuple[int, str] | None = None

    def load(self, case_id: str, dtype: str) -> Shapes:
        """Return the shapes of what is to be filled, of a detector that stands or of a new one."""
        if self._built != (case_id, dtype):
            self._built = self._filled = None
            self._shapes = super().load(case_id, dtype)
            self._built = (case_id, dtype)
        return self._shapes

    def fill(self, seed: int, fills: Sequence[Mapping[str, Any]] = ()) -> str:
        """Fill the detector with other weights than it has; return their fingerprint."""
        if self._filled != (seed, str(fills)):
            self._filled = None
            self._fingerprint = super().fill(seed, fills)
            self._filled = (seed, str(fills))
        return self._fingerprint

    def train(self, batch: Mapping[str, Tensor], **options: Any) -> Run:
        """Train the detector, which is spent afterwards."""
        self._built = self._filled = None
        return super().train(batch, **options)


class LiveChecker(Checker):
    """Leaves away the replays that only explain a difference."""

    def _island_notes(self, *_: object, **__: object) -> tuple[str, ...]:
        return ()


class Live:
    """Both engines of a case, ready for one situation after the other.

    Args:
        connect: starts the legacy engine; called again where a situation killed it.
        dtypes: ``fp32`` costs several more runs of the legacy engine, for its noise.

    Raises:
        ParityError: the legacy engine does not start, or cannot build the case.
    """

    def __init__(self, case: Case, connect: Callable[[], RemoteSession], *, dtypes: Sequence[str] = ("fp64",)) -> None:
        self.case, self.dtypes = case, tuple(dtypes)
        self.checker: Checker = LiveChecker(case)
        self._connect = connect
        self._legacy: RemoteSession | None = None
        self._shapes = self._session().load(case.id, "fp64")

    def __enter__(self) -> Live:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the legacy engine."""
        if self._legacy is not None:
            self._legacy.close()

    def _session(self) -> RemoteSession:
        if self._legacy is None or self._legacy.closed:
            self._legacy = self._connect()
        return self._legacy

    def judge(self, batch: Batch) -> Outcome:
        """Run a situation in both engines and compare everything that a record of it would hold.

        Raises:
            ParityError: the legacy engine cannot be started again, or the engines cannot be compared at all.
        """
        with tempfile.TemporaryDirectory(prefix="parity-fuzz-") as folder:
            try:
                record = self.freeze(batch, Path(folder), "situation", brief="fp32" not in self.dtypes)
            except EngineError as error:
                return self._refused(batch, error)
            except NoTruthError as error:
                return Outcome(Kind.NO_TRUTH, reason=str(error))
            except Exception as error:  # freezing is to bear whatever is drawn
                return Outcome(Kind.NO_RECORD, reason=_line(error), detail=traceback.format_exc())
            return self._checked(record)

    def freeze(self, batch: Batch, folder: Path, name: str, *, brief: bool = False) -> Record:
        """Freeze a situation as the record ``name`` below a folder, replacing one that is there."""
        training = isinstance(batch, TrainingBatch)
        record = f"{TRAINING_PREFIX}{name}" if training else name
        freezer: Callable[..., Any] = freeze_training if training else freeze
        frozen = freezer(self.case, record, batch, self._session(), progress=_silent, brief=brief)
        write_record(folder / self.case.id / record, *frozen, force=True)
        return Record(folder / self.case.id / record)

    def _checked(self, record: Record) -> Outcome:
        results: list[StageResult] = []
        for dtype in self.dtypes:
            for mode in record.checks(self.case).modes:
                try:
                    results += self.checker.check(record, mode=mode, dtype=dtype)
                except ParityError:
                    raise
                except Exception as error:  # what only the new engine refuses is a difference
                    return Outcome(Kind.NEW_FAILS, tuple(results), _line(error), traceback.format_exc())
        same = results and all(result.verdict.passes for result in results)
        return Outcome(Kind.SAME if same else Kind.DIVERGED, tuple(results))

    def _refused(self, batch: Batch, error: EngineError) -> Outcome:
        """Judge a situation that the legacy engine fails at: the new one has to as well."""
        try:
            self._run_new(batch)
        except ParityError:
            raise
        except Exception as other:
            return Outcome(Kind.REFUSED, reason=f"{error}; new engine: {_line(other)}")
        return Outcome(Kind.LEGACY_FAILS, reason=str(error), detail=error.detail)

    def _run_new(self, batch: Batch) -> None:
        """Run the new engine on a situation of which there is no record."""
        session = Session(self.case.new)
        targets = session.load(self.case.id, "fp64")
        shapes = {name: tuple(shape) for name, shape in self._shapes.items()}
        rules = synthetic.rules_of(self.case, [asdict(fill) for fill in batch.fills])
        state = synthetic.state_dict(shapes, seed=batch.seed, rules=rules)
        session.load_state(convert(state, target_names=targets, rules=self.case.rules))
        pixels = session.preprocess(encoded_images(batch, seed=batch.seed), batch.scale).tensors
        if isinstance(batch, TrainingBatch):
            session.train({**pixels, **drawn_objects(batch)})
        else:
            session.cascade(pixels)


def _line(error: BaseException) -> str:
    """Return an exception as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _silent(_: str) -> None:
    """Tell nobody how far freezing has come."""
