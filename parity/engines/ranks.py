"""Several workers of one engine that train together, behind the methods of one session."""

from __future__ import annotations

import re
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import PurePosixPath
from typing import Any, TypeVar

from torch import Tensor

from parity.cases.base import GRADIENTS, OPTIMIZER_STEP, PREPROCESS
from parity.cases.patterns import item
from parity.engines.base import Run
from parity.engines.host import RemoteSession, WorkerDied
from parity.engines.session import Shapes
from parity.engines.training import OWN_COUNT, OWN_NORM
from parity.errors import EngineError, ParityError

T = TypeVar("T")

# Once one process has failed, so many seconds for the others to say why: one whose peer died says no more than that.
GRACE = 5.0
# What all processes have in common after they averaged their gradients is kept once, of process 0.
IN_COMMON = (GRADIENTS, OPTIMIZER_STEP)
_LABEL = re.compile(r"rank\[(\d+)\]\.")


class Ranks:
    """Sessions that train together: image ``i`` is trained on by number ``i % size``, as samplers deal them out.

    It has the methods of one session that a training record needs. A tensor of one process is called
    ``rank[0].loss_cls``, its decision ``query_selection.rank[0].nms.0``; gradients, once averaged, and what comes
    after them are those of all.

    Args:
        sessions: on one machine, one a process; they are ended when one of them fails, and left to their owner
            otherwise.

    Raises:
        ParityError: one line, naming the process that failed first.
    """

    def __init__(self, sessions: Sequence[RemoteSession]) -> None:
        self.sessions = tuple(sessions)
        self.size = len(self.sessions)
        self._siblings: dict[str, Ranks] = {}
        file = str(PurePosixPath(self.sessions[0].meeting) / f"rendezvous-{uuid.uuid4().hex}")
        self._each(lambda rank, session: session.join_group(rank, self.size, file, session.time_limit))

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, *exc: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Let the sessions, and their siblings, train alone again; those that were ended are left alone."""
        for siblings in self._siblings.values():
            siblings.leave()
        self._siblings.clear()
        if not any(session.closed for session in self.sessions):
            self._each(lambda rank, session: session.leave_group())

    def sibling(self, **variables: str) -> Ranks:
        """Return as many workers with further environment variables, which end with these."""
        key = repr(sorted(variables.items()))
        if key not in self._siblings:
            self._siblings[key] = Ranks([session.sibling(**variables) for session in self.sessions])
        return self._siblings[key]

    def close(self) -> None:
        """End all sessions at once."""
        for session in self.sessions:
            session.close()

    def fingerprint(self) -> dict[str, str]:
        """Return what the first one's numbers depend on; all run in the same interpreter."""
        return self.sessions[0].fingerprint()

    def configure(self, **asked: Any) -> Any:
        """Put numerical settings in force in every process."""
        return self._same(lambda session: session.configure(**asked))

    def load(self, case_id: str, dtype: str) -> Shapes:
        """Build the detector in every process."""
        return self._same(lambda session: session.load(case_id, dtype))

    def fill(self, seed: int, fills: Sequence[Mapping[str, Any]] = ()) -> str:
        """Fill every process's detector with the same weights; return their fingerprint."""
        return self._same(lambda session: session.fill(seed, fills))

    def read_weights(self, path: str) -> str:
        """Read the same weights in every process; return their fingerprint."""
        return self._same(lambda session: session.read_weights(path))

    def constants(self) -> dict[str, str]:
        """Return the fingerprints of constant buffers."""
        return self._same(lambda session: session.constants())

    def limits(self, case_id: str) -> dict[str, float]:
        """Return the limits of the case's config."""
        return self.sessions[0].limits(case_id)

    def plant(self, mutant: str, file: str) -> None:
        """Plant a bug in every process."""
        self._same(lambda session: session.plant(mutant, file))

    def preprocess(self, files: Sequence[bytes], scale: Sequence[int]) -> Run:
        """Let every process make a batch of its own images."""
        runs = self._each(lambda rank, session: session.preprocess(files[rank :: self.size], scale))
        named = {labelled(rank, name): tensor for rank, run in enumerate(runs) for name, tensor in run.tensors.items()}
        return Run(named, produced={PREPROCESS: tuple(named)})

    def train(
        self,
        batch: Mapping[str, Tensor],
        *,
        draws: Mapping[str, Tensor] | None = None,
        forced: Mapping[str, Tensor] | None = None,
        steps: int = 1,
        **options: Any,
    ) -> Run:
        """Take one step together, on what ``preprocess`` gave and the ground truth of all images.

        Draws and choices that are given are named as in the run that is returned.

        Raises:
            ParityError: a process fails, or more steps are asked for.
        """
        if steps != 1:
            raise ParityError(f"several processes take one step together, not {steps}")

        def take_step(rank: int, session: RemoteSession) -> Run:
            return session.train(
                share_of(batch, rank, self.size),
                draws=of_rank(draws or {}, rank),
                forced=None if forced is None else of_rank(forced, rank),
                seed=rank,  # numbers that are drawn anew are each process's own
                **options,
            )

        return merged(self._each(take_step))

    def _same(self, ask: Callable[[RemoteSession], T]) -> T:
        """Return what all processes answer alike."""
        first, *others = self._each(lambda rank, session: ask(session))
        if any(other != first for other in others):
            self.close()
            raise ParityError(f"engine {self.sessions[0].engine}: its {self.size} processes differ before they train")
        return first

    def _each(self, ask: Callable[[int, RemoteSession], T]) -> list[T]:
        """Ask all processes at once; where one fails, end all and raise what it failed at."""
        failures: list[tuple[int, ParityError]] = []

        def asked(rank: int, session: RemoteSession) -> T:
            try:
                return ask(rank, session)
            except ParityError as error:
                failures.append((rank, error))
                raise

        with ThreadPoolExecutor(self.size) as pool:
            futures = [pool.submit(asked, rank, session) for rank, session in enumerate(self.sessions)]
            known: list[tuple[int, ParityError]] = []
            try:
                _, waiting = wait(futures, return_when=FIRST_EXCEPTION)
                wait(waiting, timeout=GRACE)
                known += failures
            finally:  # also where the wait is interrupted: the pool's own end would wait for every answer
                if not all(_succeeded(future) for future in futures):
                    self.close()
        if known:
            raise self._cause(known)
        return [future.result() for future in futures]

    def _cause(self, failures: Sequence[tuple[int, ParityError]]) -> ParityError:
        """Return the failure that the others follow from: a process that died, or else the first."""
        rank, error = next((each for each in failures if isinstance(each[1], WorkerDied)), failures[0])
        kind = EngineError if isinstance(error, EngineError) else ParityError
        return kind(f"process {rank} of {self.size}: {error}", detail=error.detail)


def _succeeded(future: Future[Any]) -> bool:
    return future.done() and future.exception() is None


def labelled(rank: int, name: str) -> str:
    """Return the name of what one process has of its own.

    >>> labelled(1, "loss_cls")
    'rank[1].loss_cls'
    """
    return f"rank[{rank}].{name}"


def share_of(batch: Mapping[str, Tensor], rank: int, size: int) -> dict[str, Tensor]:
    """Return a process's own part of a batch, named as if there were no other.

    >>> list(share_of({"rank[0].image": 0, "rank[1].image": 1, "gt_boxes[2]": 2, "gt_boxes[3]": 3}, 1, 2))
    ['image', 'gt_boxes[1]']
    """
    share = {}
    for name, tensor in batch.items():
        if not _LABEL.match(name):
            base, number = name.rstrip("]").split("[")
            if int(number) % size == rank:
                share[item(base, int(number) // size)] = tensor
    return {**of_rank(batch, rank), **share}


def of_rank(tensors: Mapping[str, Tensor], rank: int) -> dict[str, Tensor]:
    """Return what is labelled as one process's, without the label.

    >>> list(of_rank({"rank[0].rand().0": 0, "neck.rank[1].nms.0": 1, "rank[1].rand().0": 2}, 1))
    ['neck.nms.0', 'rand().0']
    """
    label = labelled(rank, "")
    return {name.replace(label, "", 1): tensor for name, tensor in tensors.items() if label in name}


def merged(runs: Sequence[Run]) -> Run:
    """Return the processes' runs of one step as one run.

    Something that they should have in common and that differs is kept of each: a tensor that the truth has not.
    """
    whole = Run({})
    islands: Counter[tuple[str, str]] = Counter()
    for rank, run in enumerate(runs):
        for stage, names in run.produced.items():
            added = {}
            for name in names:
                tensor = run.tensors[name]
                common = stage in IN_COMMON and name not in (OWN_NORM, OWN_COUNT)
                if common and rank == 0:
                    added[name] = tensor
                elif not common or name not in whole.tensors or _bits(tensor) != _bits(whole.tensors[name]):
                    added[labelled(rank, name)] = tensor
            whole.tensors.update(added)
            whole.produced[stage] = (*whole.produced.get(stage, ()), *added)
        whole.rows = whole.rows or dict(run.rows)
        whole.decisions.update({_decision_name(rank, name): decision for name, decision in run.decisions.items()})
        islands.update({(stage, site): count for stage, site, count in run.islands})
    whole.islands = [(stage, site, count) for (stage, site), count in islands.items()]
    return whole


def _bits(tensor: Tensor) -> tuple[object, ...]:
    """Return all that makes a tensor this one, to the bit."""
    return tensor.dtype, tuple(tensor.shape), tensor.contiguous().numpy().tobytes()


def _decision_name(rank: int, name: str) -> str:
    stage, rest = name.split(".", 1)
    return f"{stage}.{labelled(rank, rest)}"
