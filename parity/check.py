"""Run the new engine on frozen records and judge every stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from parity.cases.base import METAS, PREPROCESS, Case, base_name
from parity.cases.patterns import expand
from parity.compare.stage import StoredTensors, compare_decisions, compare_tensors, unpromoted_difference
from parity.engines.session import Run, Session
from parity.errors import ParityError
from parity.records.layout import CASCADE, ISOLATED, REPEATABLE, array_key
from parity.records.store import Record
from parity.report.results import StageResult
from parity.taps.islands import Promote, place
from parity.weights import synthetic
from parity.weights.conversion import convert

DTYPES = ("fp64", "fp32")


@dataclass
class _Weights:
    """The state dict that was made last: records of one seed share it."""

    key: str = ""
    state: dict[str, Tensor] | None = None


class Checker:
    """Judges the new engine of one case on one device; a model is built once for each dtype.

    Example::

        checker = Checker(find_case("ddq_detr_4scale_r50_12e"))
        for result in checker.check(Record(folder), mode="isolated", dtype="fp64"):
            print(result.stage, result.verdict)
    """

    def __init__(self, case: Case, *, device: str = "cpu") -> None:
        self.case = case
        self.device = device
        self._sessions: dict[str, tuple[Session, dict[str, list[int]]]] = {}
        self._loaded: dict[str, str] = {}
        self._weights = _Weights()

    def fingerprint(self) -> dict[str, str]:
        """Return what the new engine's numbers may depend on."""
        return self._session(next(iter(self._sessions), DTYPES[-1]))[0].fingerprint()

    def check(
        self, record: Record, *, mode: str, dtype: str, stages: Sequence[str] | None = None
    ) -> Iterator[StageResult]:
        """Yield the result of every stage, or of the given ones, in the order of the detector."""
        wanted = [stage for stage in self.case.stage_names() if stages is None or stage in stages]
        stored = StoredTensors(record)
        session = self._prepare(record, dtype)
        runs = self._isolated_runs if mode == ISOLATED else self._cascade_runs
        for stage, run, seconds in runs(session, stored, wanted):
            yield self._judge(run, stored, session, stage=stage, mode=mode, dtype=dtype, seconds=seconds)

    def prepared(self, record: Record, dtype: str) -> tuple[Session, dict[str, Tensor]]:
        """Return a session whose model holds the record's weights, and the record's batch as the engine sees it."""
        session = self._prepare(record, dtype)
        return session, _preprocess(session, StoredTensors(record)).tensors

    def _session(self, dtype: str) -> tuple[Session, dict[str, list[int]]]:
        if dtype not in self._sessions:
            session = Session(self.case.new, device=self.device)
            self._sessions[dtype] = (session, session.load(self.case.id, dtype))
        return self._sessions[dtype]

    def _prepare(self, record: Record, dtype: str) -> Session:
        """Return a session whose model holds the record's weights, filled by the legacy engine's names."""
        session, target_shapes = self._session(dtype)
        weights = record.manifest["weights"]
        key = str(weights["sha256"])
        if self._loaded.get(dtype) != key:
            if self._weights.key != key:
                self._weights = _Weights(key, self._legacy_state(record))
            assert self._weights.state is not None
            _require_same_constants(session, record)
            session.load_state(convert(self._weights.state, target_names=target_shapes, rules=self.case.rules))
            self._loaded[dtype] = key
        return session

    def _legacy_state(self, record: Record) -> dict[str, Tensor]:
        weights = record.manifest["weights"]
        shapes = {name: tuple(shape) for name, shape in weights["shapes"].items()}
        rules = synthetic.rules_of(self.case, weights.get("fills", ()))
        state = synthetic.state_dict(shapes, seed=int(weights["seed"]), rules=rules)
        if synthetic.fingerprint(state) != weights["sha256"]:
            raise ParityError(
                f"{record.folder}: the weights come out different from those it was frozen with;"
                " the case's fill rules or numpy changed: freeze it again"
            )
        return state

    def _isolated_runs(
        self, session: Session, stored: StoredTensors, wanted: Iterable[str]
    ) -> Iterator[tuple[str, Run, float]]:
        for stage in wanted:
            yield stage, *_timed(partial(self._isolated, session, stored, stage))

    def _isolated(self, session: Session, stored: StoredTensors, stage_name: str, *, promote: Promote = True) -> Run:
        """Run one stage of the new engine on the frozen inputs."""
        record = stored.record
        if stage_name == PREPROCESS:
            return _preprocess(session, stored)
        stage = self.case.stage(stage_name)
        known = [entry.name for entry in record.entries.values()]
        names = dict.fromkeys(name for wanted in (*stage.inputs(), *METAS) for name in expand(wanted, known))
        inputs = {name: self._input(stored, stage_name, name) for name in names}
        absent = [
            d.tensor
            for d in self.case.deviations
            if d.kind == "none_if_all_false" and d.tensor in inputs and not bool(inputs[d.tensor].any())
        ]
        return session.replay(
            stage_name, inputs, forced=_forced(record, stored, stage_name), absent=absent, promote=promote
        )

    def _input(self, stored: StoredTensors, stage: str, name: str) -> Tensor:
        if stage and base_name(name) in self.case.stage(stage).slices:
            return stored[array_key(stage, name, "whole")]
        for key, entry in stored.record.entries.items():
            if entry.name == name and entry.role == "output" and entry.kind == "whole" and CASCADE in entry.modes:
                return stored[key]
        raise ParityError(f"{stored.record.folder} holds no {name}, which stage {stage} reads: freeze it again")

    def _cascade_runs(
        self, session: Session, stored: StoredTensors, wanted: Iterable[str]
    ) -> Iterator[tuple[str, Run, float]]:
        """Run the whole detector from the encoded images; its time is told with its first stage."""
        pixels, seconds = _timed(partial(_preprocess, session, stored))
        forced = _forced(stored.record, stored)
        run: Run | None = None
        for stage in wanted:
            if stage == PREPROCESS:
                yield stage, pixels, seconds
                continue
            seconds = 0.0
            if run is None:
                run, seconds = _timed(partial(session.cascade, pixels.tensors, forced=forced))
            yield stage, run, seconds

    def _judge(
        self,
        run: Run,
        stored: StoredTensors,
        session: Session,
        *,
        stage: str,
        mode: str,
        dtype: str,
        seconds: float,
    ) -> StageResult:
        start = time.perf_counter()
        tensors = compare_tensors(run, stored, self.case, stage=stage, mode=mode, dtype=dtype)
        decisions = compare_decisions(run, stored, self.case, stage=stage, mode=mode, dtype=dtype)
        notes = self._island_notes(run, stored, session, stage) if dtype == "fp64" and mode == ISOLATED else ()
        return StageResult(
            self.case.id,
            stored.record.id,
            stage,
            mode,
            dtype,
            self.device,
            round(seconds + time.perf_counter() - start, 3),
            tensors,
            decisions,
            notes,
        )

    def _island_notes(self, run: Run, stored: StoredTensors, session: Session, stage: str) -> tuple[str, ...]:
        """Name the float32 islands that only one engine has and that make a difference if they are left in."""
        legacy = {place(site) for at, site, _ in stored.record.manifest["islands"] if at == stage}
        new = {place(site) for at, site, _ in run.islands if at == stage}
        if legacy == new:
            return ()

        def differences(*, legacy_spared: str = "", new_spared: str = "") -> dict[str, float]:
            promote = [new_spared] if new_spared else False
            replayed = self._isolated(session, stored, stage, promote=promote)
            found = unpromoted_difference(replayed, stored, stage=stage, place=legacy_spared)
            return {name: error for name, error in found.items() if error > REPEATABLE}

        moved = differences()
        if not moved:
            return ()
        # The cause is the island without which the engines agree although all others are left in.
        causes = [f"{at} (legacy engine only)" for at in sorted(legacy - new) if not differences(legacy_spared=at)]
        causes += [f"{at} (new engine only)" for at in sorted(new - legacy) if not differences(new_spared=at)]
        effects = ", ".join(f"{name} {error:.1e}" for name, error in moved.items())
        return (
            f"a float32 island that only one engine has: {'; '.join(causes) or 'several together'}."
            f" It is lifted to float64 on both sides here; left in, the engines differ (relative RMS) in {effects}",
        )


def _require_same_constants(session: Session, record: Record) -> None:
    """Raise ``ParityError`` where a buffer that constructors make differs between the engines."""
    expected, actual = record.manifest["weights"].get("constants", {}), session.constants()
    differing = sorted(name for name in expected.keys() | actual.keys() if expected.get(name) != actual.get(name))
    if differing:
        raise ParityError(f"{record.folder}: constant buffers differ between the engines: {', '.join(differing[:5])}")


def _preprocess(session: Session, stored: StoredTensors) -> Run:
    record = stored.record
    keys = record.keys(stage=PREPROCESS, role="image")
    return session.preprocess([stored[key].numpy().tobytes() for key in keys], record.manifest["batch"]["scale"])


def _forced(record: Record, stored: StoredTensors, stage: str = "") -> dict[str, Tensor]:
    """Return the truth's choices, of one stage or of all."""
    decisions = record.manifest["decisions"]
    return {name: stored[f"{name}/chosen"] for name in decisions if stage in ("", decisions[name]["stage"])}


def _timed(work: Callable[[], Run]) -> tuple[Run, float]:
    start = time.perf_counter()
    return work(), time.perf_counter() - start
