"""Run the new engine on frozen records and judge every stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from parity.cases.base import PREPROCESS, TRAJECTORY, Case, Seen
from parity.cases.deviations import Lifted
from parity.check_lifted import AsShipped
from parity.check_ranks import Planted, greatest_difference, load_converted, new_ranks, ranks_of
from parity.check_recipe import check_recipe
from parity.compare.known import known_deviations, stale
from parity.compare.stage import compare_decisions, compare_tensors, unpromoted_difference
from parity.compare.trajectory import departure, in_order
from parity.compare.verdicts import Verdict, worst
from parity.engines.base import Run
from parity.engines.numerics import Settings, in_force, require_tf32
from parity.engines.ranks import Ranks
from parity.engines.session import Session
from parity.errors import ParityError
from parity.records.kinds import (
    GROUND_TRUTH,
    INFERENCE,
    ISOLATED,
    RECIPE,
    draws_among,
    is_draw,
)
from parity.records.layout import REPEATABLE, StoredTensors, stored_inputs
from parity.records.listing import LISTING
from parity.records.store import Record
from parity.report.results import KNOWN_DEVIATION, StageResult, TensorResult
from parity.taps.islands import Promote, place
from parity.weights import synthetic
from parity.weights.conversion import convert

STEPS = 3  # of a trajectory, by default: all ten take minutes


@dataclass
class _Weights:
    """The state dict that was made last: records of one seed share it."""

    key: str = ""
    state: dict[str, Tensor] | None = None


class Checker:
    """Judges the new engine of one case on one device; a model is built once for each dtype.

    ``steps`` is how many steps of a trajectory are compared, if the record has more. TF32 is off while it runs, on
    every device, unless ``tf32`` allows it; ``settings`` are the numerical settings as they were read back last;
    ``shown`` takes the known deviations that explained something.
    ``planted`` is a bug that is there in this process and has to be planted in others that it starts, too.

    Raises:
        ParityError: TF32 is asked for where there is none.

    Example::

        checker = Checker(find_case("ddq_detr_4scale_r50_12e"))
        for result in checker.check(Record(folder), mode="isolated", dtype="fp64"):
            print(result.stage, result.verdict)
    """

    def __init__(
        self, case: Case, *, device: str = "cpu", steps: int = STEPS, tf32: bool = False, shown: set[str] | None = None
    ) -> None:
        require_tf32(device, tf32=tf32)
        self.case = case
        self.device = device
        self.steps = steps
        self.tf32 = tf32
        self.settings: Settings = {}
        self.planted: Planted | None = None
        self._sessions: dict[str, tuple[Session, dict[str, list[int]]]] = {}
        self._unloaded: Session | None = None
        self._loaded: dict[str, str] = {}
        self._weights = _Weights()
        self._as_shipped = AsShipped(case, device)
        self.shown: set[str] = set() if shown is None else shown

    def fingerprint(self) -> dict[str, str]:
        """Return what the new engine's numbers may depend on."""
        return self._any_session().fingerprint()

    def check(
        self, record: Record, *, mode: str, dtype: str, stages: Sequence[str] | None = None
    ) -> Iterator[StageResult]:
        """Yield the result of every stage, or of the given ones, in the order of the detector."""
        with in_force({"tf32": self.tf32}) as self.settings:
            yield from self._checked(record, mode=mode, dtype=dtype, stages=stages)

    def _checked(self, record: Record, *, mode: str, dtype: str, stages: Sequence[str] | None) -> Iterator[StageResult]:
        known = record.checks(self.case).stages
        wanted = [stage for stage in known if stages is None or stage in stages]
        if record.kind == RECIPE:
            for result in check_recipe(self._any_session(), self.case, record, wanted):
                self.shown.update(tensor.deviation for tensor in result.tensors)
                yield result
            return
        if int(record.manifest["batch"].get("steps", 1)) > self.steps:
            record = record.until_step(self.steps)
        stored = self.stored(record)
        session = self._prepare(record, dtype) if ranks_of(record) == 1 else None
        if session is None:
            runs = _shared(wanted, *_timed(partial(self._ranked_run, stored, dtype)))
        elif record.kind != INFERENCE:
            runs = _shared(wanted, *_timed(partial(self._training_run, session, stored)))
        else:
            runs = (self._isolated_runs if mode == ISOLATED else self._cascade_runs)(session, stored, wanted)
        for stage, run, seconds in runs:
            yield self._judge(run, stored, session, stage=stage, mode=mode, dtype=dtype, seconds=seconds)

    def prepared(self, record: Record, dtype: str) -> tuple[Session, dict[str, Tensor]]:
        """Return a session whose model holds the record's weights, and the record's batch as the engine sees it."""
        session = self._prepare(record, dtype)
        return session, _preprocess(session, self.stored(record)).tensors

    def stored(self, record: Record) -> StoredTensors:
        """Return a record's tensors; read and checked anew for every check."""
        return StoredTensors(record)

    def _any_session(self) -> Session:
        """Return a session for what needs no detector of a certain dtype, without building one."""
        if self._sessions:
            return next(iter(self._sessions.values()))[0]
        self._unloaded = self._unloaded or Session(self.case.new, device=self.device)
        return self._unloaded

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
            _require_same_constants(session, record)
            session.load_state(convert(self._state(record), target_names=target_shapes, rules=self.case.rules))
            self._loaded[dtype] = key
        return session

    def _state(self, record: Record) -> dict[str, Tensor]:
        """Return the weights that a record was made with, of the legacy engine."""
        key = str(record.manifest["weights"]["sha256"])
        if self._weights.key != key:
            self._weights = _Weights(key, self._legacy_state(record))
        assert self._weights.state is not None
        return self._weights.state

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
        inputs = stored_inputs(self.case.stage(stage_name), stored)
        absent = self.case.absent(inputs)
        forced = _forced(record, stored, stage_name)
        return session.replay(stage_name, inputs, forced=forced, absent=absent, promote=promote)

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

    def _training_run(self, session: Session, stored: StoredTensors) -> Run:
        """Train from the encoded images and the ground truth, with the record's draws and choices."""
        self._drop_sessions()  # the step moves the weights, and DDQ DETR leaves modules on the model
        asked = stored.record.manifest["batch"]
        steps = min(int(asked["steps"]), self.steps)
        return _train(session, stored, steps=steps, per_step=int(asked["per_step"]))

    def _ranked_run(self, stored: StoredTensors, dtype: str) -> Run:
        """Take one training step in several processes of this interpreter."""
        self._drop_sessions()  # no detector stands here beside those of the processes
        record = stored.record
        with new_ranks(self.case, ranks_of(record), device=self.device, planted=self.planted) as ranks:
            ranks.configure(tf32=self.tf32, threads=self.settings["threads"], onednn=self.settings["onednn"])
            shapes = ranks.load(self.case.id, dtype)
            _require_same_constants(ranks, record)
            load_converted(ranks, self.case, self._state(record), shapes=shapes)
            return _train(ranks, stored)

    def _drop_sessions(self) -> None:
        self._sessions.clear()
        self._loaded.clear()

    def _judge(
        self,
        run: Run,
        stored: StoredTensors,
        session: Session | None,
        *,
        stage: str,
        mode: str,
        dtype: str,
        seconds: float,
    ) -> StageResult:
        start = time.perf_counter()
        arithmetic = "tf32" if self.tf32 and dtype == "fp32" else dtype
        tensors = compare_tensors(run, stored, self.case, stage=stage, mode=mode, dtype=arithmetic)
        decisions = compare_decisions(run, stored, self.case, stage=stage, mode=mode, dtype=arithmetic)
        verdicts: list[Verdict] = [each.verdict for each in tensors] + [each.verdict for each in decisions]
        notes: tuple[str, ...] = ()
        if stage == TRAJECTORY:
            tensors = in_order(tensors, self.case)
            notes = departure(tensors)
        elif session is None:
            notes = greatest_difference(stage, tensors, ranks_of(stored.record))
        elif dtype == "fp64" and mode == ISOLATED and worst(verdicts).passes:
            # Where the stage differs with all islands lifted, no island is what it differs by.
            notes = self._island_notes(run, stored, session, stage)
            tensors += self._stale_lifts(run, stored, stage)
        notes += tuple(f"{KNOWN_DEVIATION}, lifted here: {each}" for each in self._lifts(stage))
        notes += known_deviations(tensors)
        self.shown.update(tensor.deviation for tensor in tensors)
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

    def _lifts(self, stage: str) -> list[Lifted]:
        return [each for each in self.case.deviations if isinstance(each, Lifted) and each.tensor == stage]

    def _stale_lifts(self, run: Run, stored: StoredTensors, stage: str) -> tuple[TensorResult, ...]:
        """Return what fails of the differences that an option takes away: those that are not there without it."""
        lifts = self._lifts(stage)
        if not lifts:
            return ()
        state = partial(self._state, stored.record)
        replay = partial(self._isolated, stored=stored, stage_name=stage)
        if self._as_shipped.differs(stored, stage, state=state, replay=replay):
            self.shown.update(map(str, lifts))
            return ()
        return tuple(stale(each) for each in lifts if each.concerns(Seen(stage, run=run, truth=stored)))

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


def missing_record(case: Case, folder: Path, stage: str, mode: str, dtype: str, device: str) -> StageResult:
    """Return the result of a check that cannot be made: its record is listed and not there."""
    why = f"record {folder} is listed in {LISTING} and is not there: restore it, or freeze it again"
    return StageResult(case.id, folder.name, stage, mode, dtype, device, 0.0, (), inconclusive=why)


def _require_same_constants(session: Session | Ranks, record: Record) -> None:
    """Raise ``ParityError`` where a buffer that constructors make differs between the engines."""
    expected, actual = record.manifest["weights"].get("constants", {}), session.constants()
    differing = sorted(name for name in expected.keys() | actual.keys() if expected.get(name) != actual.get(name))
    if differing:
        raise ParityError(f"{record.folder}: constant buffers differ between the engines: {', '.join(differing[:5])}")


def _preprocess(session: Session | Ranks, stored: StoredTensors) -> Run:
    record = stored.record
    files = [stored[key].numpy().tobytes() for key in record.image_files(PREPROCESS)]
    return session.preprocess(files, record.manifest["batch"]["scale"])


def _train(session: Session | Ranks, stored: StoredTensors, **options: int) -> Run:
    """Train on a record's batch, with its draws and choices."""
    record = stored.record
    keys = record.keys(stage=GROUND_TRUTH, role="input")
    batch = {**_preprocess(session, stored).tensors, **{record.entries[key].name: stored[key] for key in keys}}
    draws = draws_among({entry.name: stored[key] for key, entry in record.entries.items() if is_draw(entry.name)})
    return session.train(batch, draws=draws, forced=_forced(record, stored), **options)


def _shared(wanted: Iterable[str], run: Run, seconds: float) -> Iterator[tuple[str, Run, float]]:
    """Yield one run for every stage; its time is told with the first."""
    for stage in wanted:
        yield stage, run, seconds
        seconds = 0.0


def _forced(record: Record, stored: StoredTensors, stage: str = "") -> dict[str, Tensor]:
    """Return the truth's choices, of one stage or of all."""
    decisions = record.manifest["decisions"]
    return {name: stored[f"{name}/chosen"] for name in decisions if stage in ("", decisions[name]["stage"])}


def _timed(work: Callable[[], Run]) -> tuple[Run, float]:
    start = time.perf_counter()
    return work(), time.perf_counter() - start
