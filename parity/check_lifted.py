"""Whether a known difference that an option takes away would show: the stage, run without the case's options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from torch import Tensor

from parity.cases.base import Case
from parity.compare.stage import compare_decisions, compare_tensors
from parity.compare.verdicts import worst
from parity.engines.base import Run
from parity.engines.session import Session
from parity.records.kinds import ISOLATED
from parity.records.layout import StoredTensors
from parity.weights.conversion import convert


class AsShipped:
    """The new engine of a case without the case's options; built when it is first asked."""

    def __init__(self, case: Case, device: str) -> None:
        self.case = replace(case, options={}, deviations=())
        self.device = device
        self._session: Session | None = None
        self._names: Mapping[str, list[int]] = {}
        self._loaded = ""

    def differs(
        self,
        stored: StoredTensors,
        stage: str,
        *,
        state: Callable[[], Mapping[str, Tensor]],
        replay: Callable[[Session], Run],
    ) -> bool:
        """Return whether an isolated float64 run of the stage differs from the record.

        Args:
            state: gives the record's weights by the legacy engine's names.
            replay: runs the stage on the record's inputs.
        """
        if self._session is None:
            self._session = Session(self.case.new, device=self.device)
            self._names = self._session.load(self.case.id, "fp64", as_shipped=True)
        weights = str(stored.record.manifest["weights"]["sha256"])
        if self._loaded != weights:
            self._session.load_state(convert(state(), target_names=self._names, rules=self.case.rules))
            self._loaded = weights
        run = replay(self._session)
        tensors = compare_tensors(run, stored, self.case, stage=stage, mode=ISOLATED, dtype="fp64")
        decisions = compare_decisions(run, stored, self.case, stage=stage, mode=ISOLATED, dtype="fp64")
        return not worst([*(each.verdict for each in tensors), *(each.verdict for each in decisions)]).passes
