"""Would a check notice two parameters in each other's place?

Names and shapes do not tell: norms of one width load swapped without complaint. So two parameters of the
converted weights are swapped in the built model, and the stages that use either are checked on a record.
Which stage uses which parameter is observed, not read off its name: a refinement branch of the head, say,
is called by the query selection and the decoder too.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from parity.cases.base import Case
from parity.check import Checker
from parity.errors import ParityError
from parity.records.kinds import ISOLATED
from parity.records.store import Record

Pair = tuple[str, str]

# Pairs whose swap leaves the function as it is: pattern of one, the other's name, why.
EXCHANGEABLE = (
    (
        r"(.*)\.bn3\.bias",
        r"\1.downsample.1.bias",
        "both shifts are added to one sum, so the detector with them swapped is the same detector",
    ),
)


@dataclass(frozen=True)
class Swap:
    """What came of one swap.

    Attributes:
        stage: the stage that noticed, empty if none did.
        how: the tensor or decision that diverged, or the error that the engine raised.
        uses: parameter -> the stages that were seen to use it.
    """

    pair: Pair
    stage: str
    how: str
    uses: Mapping[str, tuple[str, ...]]

    @property
    def caught(self) -> bool:
        """Whether some stage diverged."""
        return bool(self.stage)

    @property
    def reason(self) -> str:
        """Why nothing diverged, as far as the use of the two explains it."""
        unused = [name for name in self.pair if not self.uses[name]]
        if self.caught:
            return ""
        if len(unused) == len(self.pair):
            return "no stage uses either of them: they serve training only (NaN in their place changes nothing)"
        for pattern, other, reason in EXCHANGEABLE:
            if any(re.fullmatch(pattern, one) and re.sub(pattern, other, one) in self.pair for one in self.pair):
                return reason
        return "unexplained: " + "; ".join(f"{name} is used by {', '.join(self.uses[name])}" for name in self.pair)


class Swaps:
    """Swaps parameters of one case's new engine on one record, in float64; the model is built once.

    Raises:
        ParityError: a stage diverges before anything is swapped.

    Example::

        swaps = Swaps(find_case("ddq_detr_4scale_r50_12e"), Record(folder))
        for pair in swaps.pairs(200, seed=0):
            print(swaps.try_pair(pair).caught)
    """

    def __init__(self, case: Case, record: Record, *, device: str = "cpu") -> None:
        self.case = case
        self.record = record
        self.checker = _QuickChecker(case, device=device)
        self.model: Any = self.checker.prepared(record, "fp64")[0].model
        self.tensors: dict[str, Tensor] = self.model.state_dict(keep_vars=True)
        self.uses = self._observe()

    def pairs(self, count: int, *, seed: int) -> list[Pair]:
        """Return different pairs of same-shape parameters or statistics, drawn evenly over the parameters.

        Left out are counters (a batch norm's, all alike) and tensors that are one and the same.
        """
        groups: dict[tuple[int, ...], list[str]] = {}
        for name, tensor in self.tensors.items():
            if tensor.is_floating_point():
                groups.setdefault(tuple(tensor.shape), []).append(name)
        partners = {name: group for group in groups.values() for name in group if len(group) > 1}
        possible = sum(len(group) * (len(group) - 1) // 2 for group in groups.values())
        draw, found = random.Random(seed), dict[Pair, None]()
        names = sorted(partners)
        while names and len(found) < min(count, possible):
            first = draw.choice(names)
            second = draw.choice(partners[first])
            found.update({(min(first, second), max(first, second)): None} if first != second else {})
        return [pair for pair in found if self.tensors[pair[0]] is not self.tensors[pair[1]]]

    def try_pair(self, pair: Pair) -> Swap:
        """Swap two parameters, check the stages that use either until one diverges, and swap them back."""
        used = {stage for name in pair for stage in self.uses[name]}
        if not used and not self.unused_are_inert:
            used = set(self.case.stage_names())
        stages = [stage for stage in self.case.stage_names() if stage in used]
        uses = {name: self.uses[name] for name in pair}
        with swapped(self.tensors[pair[0]], self.tensors[pair[1]]):
            for stage in stages:
                how = self._divergence(stage)
                if how:
                    return Swap(pair, stage, how, uses)
        return Swap(pair, "", "", uses)

    def unused(self) -> list[str]:
        """Return the names of the parameters and statistics that no stage was seen to use."""
        return [name for name, stages in self.uses.items() if not stages and self.tensors[name].is_floating_point()]

    @cached_property
    def unused_are_inert(self) -> bool:
        """Whether every stage still passes with NaN in all that no stage was seen to use."""
        with ExitStack() as stack:
            for name in self.unused():
                tensor = self.tensors[name]
                stack.enter_context(swapped(tensor, torch.full_like(tensor, torch.nan)))
            return not any(self._divergence(stage) for stage in self.case.stage_names())

    def _divergence(self, stage: str) -> str:
        try:
            (result,) = self.checker.check(self.record, mode=ISOLATED, dtype="fp64", stages=[stage])
        except Exception as error:  # a swapped statistic may well make an operator refuse its input
            return f"{type(error).__name__}: {error}"
        tensors = [tensor.name for tensor in result.tensors if not tensor.verdict.passes]
        return next(iter(tensors + [made.name for made in result.decisions if not made.verdict.passes]), "")

    def _observe(self) -> dict[str, tuple[str, ...]]:
        uses: dict[str, tuple[str, ...]] = dict.fromkeys(self.tensors, ())
        for stage in self.case.stage_names():
            with _Used(self.tensors) as used:
                failure = self._divergence(stage)
            if failure:
                raise ParityError(f"{self.case.id}: {stage} diverges before anything is swapped: {failure}")
            for name in used.names:
                uses[name] += (stage,)
        return uses


class _QuickChecker(Checker):
    """Leaves away the replays that only explain a difference."""

    def _island_notes(self, *_: object, **__: object) -> tuple[str, ...]:
        return ()


@contextmanager
def swapped(first: Tensor, second: Tensor) -> Iterator[None]:
    """Exchange the values of two tensors of one shape for the time of the block."""

    def exchange() -> None:
        with torch.no_grad():
            kept = first.clone()
            first.copy_(second)
            second.copy_(kept)

    exchange()
    try:
        yield
    finally:
        exchange()


class _Used(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Collects the names of the given tensors that some operator is called with while the block runs.

    It sits below Python, so the taps' own wrappers and compiled extensions are seen through.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()
        self._by_id: dict[int, list[str]] = {}
        for name, tensor in tensors.items():
            self._by_id.setdefault(id(tensor), []).append(name)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self._see([*args, *(kwargs or {}).values()])
        return func(*args, **(kwargs or {}))

    def _see(self, values: Sequence[Any]) -> None:
        for value in values:
            if isinstance(value, Tensor):
                self.names.update(self._by_id.get(id(value), ()))
            elif isinstance(value, (list, tuple)):
                self._see(value)
