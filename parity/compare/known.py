"""A case's known deviations in one stage: what they explain passes, and one that is not there any more is stale."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import replace

from torch import Tensor

from parity.cases.base import Case, Deviation, Seen
from parity.compare.verdicts import Verdict
from parity.engines.base import Run
from parity.records.layout import StoredTensors
from parity.report.results import KNOWN_DEVIATION, TensorResult

Judge = Callable[[Run], list[TensorResult]]


class KnownDeviations:
    """Asks the deviations about every tensor of a stage of one run, and remembers what they said."""

    def __init__(self, deviations: Sequence[Deviation], run: Run, stored: StoredTensors, *, stage: str) -> None:
        self.deviations = deviations
        self.run = run
        self.stored = stored
        self.stage = stage
        self._agreed: dict[Deviation, bool] = {}  # those that had to show -> whether the engines agree without them

    def judged(self, key: str, judge: Judge) -> list[TensorResult]:
        """Return what ``judge`` says of the array at ``key``, given the run without what a deviation explains."""
        results = judge(self.run)
        name = self.stored.record.entries[key].name
        for deviation in self.deviations:
            if not deviation.matches(self.stage, name):
                continue
            seen = self._seen(key)
            agreed = all(result.verdict.passes for result in results)
            if not agreed and deviation.explains(seen):
                results = judge(_with(self.run, {name: deviation.corrected(seen)}))
                passes = results[0].verdict.passes
                results[:1] = [replace(results[0], deviation=str(deviation))] if passes else results[:1]
                self._agreed[deviation] = False
            elif deviation.concerns(seen):
                self._agreed[deviation] = agreed and self._agreed.get(deviation, True)
        return results

    def stale(self) -> Iterator[TensorResult]:
        """Yield a result that fails for each deviation that had to show here, where the engines agree without it."""
        return (stale(deviation) for deviation, agreed in self._agreed.items() if agreed)

    def _seen(self, key: str) -> Seen:
        entry = self.stored.record.entries[key]
        return Seen(
            self.stage,
            entry.name,
            self.run.tensors.get(entry.name),
            self.stored[key],
            entry.of_shape,
            entry.max,
            self.run,
            self.stored,
        )


def stale(deviation: Deviation) -> TensorResult:
    """Return the result of a deviation that explains nothing where it has to: the case says what is not so."""
    note = f"the engines agree where they are declared to differ: remove it from the case ({deviation})"
    return TensorResult(f"stale deviation of {deviation.tensor}", Verdict.MISSING, note=note)


def known_deviations(tensors: Sequence[TensorResult]) -> tuple[str, ...]:
    """Return a note for each tensor of a stage that passes by a known deviation."""
    return tuple(f"{each.name}: {KNOWN_DEVIATION}: {each.deviation}" for each in tensors if each.deviation)


def without_effect(case: Case, shown: Set[str]) -> Iterator[str]:
    """Yield a note for each known deviation of a case that none of its records showed.

    Args:
        shown: the deviations that explained something, as results say them.
    """
    for each in case.deviations:
        if str(each) not in shown:
            yield f"note: {case.id}: no record that was checked shows the known deviation of {each.tensor}: {each}"


def _with(run: Run, tensors: Mapping[str, Tensor]) -> Run:
    return replace(run, tensors={**run.tensors, **tensors})
