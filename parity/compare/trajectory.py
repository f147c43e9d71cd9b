"""Where a trajectory departs: the first tensor that is not the same, in the order in which things happen."""

from __future__ import annotations

import re
from collections.abc import Sequence

from parity.cases.base import GRADIENTS, LOSS, OPTIMIZER_STEP, Case
from parity.report.results import TensorResult

_NAME = re.compile(r"step\[(\d+)\]\.(\w+)\.(.*)")


def in_order(tensors: Sequence[TensorResult], case: Case) -> tuple[TensorResult, ...]:
    """Return the results by step, then by stage as a step runs through them."""
    forward = [stage.name for stage in case.training_stages_of(case.new)]
    stages = [*forward, LOSS, GRADIENTS, OPTIMIZER_STEP]

    def place(result: TensorResult) -> tuple[int, int]:
        found = _NAME.match(result.name)
        if found is None:
            return 0, 0
        return int(found[1]), stages.index(found[2]) if found[2] in stages else len(stages)

    return tuple(sorted(tensors, key=place))


def departure(tensors: Sequence[TensorResult]) -> tuple[str, ...]:
    """Return one line on where the first result that fails is, or nothing.

    >>> from parity.compare.verdicts import Verdict
    >>> departure([TensorResult("step[2].gradients.gradients[neck.bias]", Verdict.DIVERGED)])
    ('the trajectory departs at step 2, in stage gradients, at gradients[neck.bias]',)
    """
    failed = [result for result in tensors if not result.verdict.passes]
    # A table's own line says no more than its first bad row.
    first = next((result for result in failed if result.kind != "table"), next(iter(failed), None))
    found = None if first is None else _NAME.match(first.name)
    if found is None:
        return ()
    return (f"the trajectory departs at step {found[1]}, in stage {found[2]}, at {found[3]}",)
