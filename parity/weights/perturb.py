"""Would a check notice two parameters in each other's place?

Names and shapes do not tell: norms of one width load swapped without complaint. So two parameters of the
converted weights are swapped in the built model, and the stages that use either are checked on a record.
Which stage uses which parameter is observed, not read off its name: a refinement branch of the head, say,
is called by the query selection and the decoder too. What inference does not notice, training does: a branch that
serves training only has its terms in the loss, and of two shifts of one sum the step moves each from its own value.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from parity.cases.base import Case
from parity.check import Checker
from parity.engines.session import Session
from parity.errors import ParityError
from parity.records.kinds import CASCADE, ISOLATED
from parity.records.store import Record
from parity.report.results import StageResult

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
        uses: parameter -> the stages of inference that were seen to use it.
        trained: whether training was asked, too, after inference had noticed nothing.
    """

    pair: Pair
    stage: str
    how: str
    uses: Mapping[str, tuple[str, ...]]
    trained: bool = False

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
        if self.trained:
            return "unexplained: a training step with them swapped is the same, too"
        if len(unused) == len(self.pair):
            return "no stage uses either of them: they serve training only (NaN in their place changes nothing)"
        for pattern, other, reason in EXCHANGEABLE:
            if any(re.fullmatch(pattern, one) and re.sub(pattern, other, one) in self.pair for one in self.pair):
                return reason
        return "unexplained: " + "; ".join(f"{name} is used by {', '.join(self.uses[name])}" for name in self.pair)


class Swaps:
    """Swaps parameters of one case's new engine on one record, in float64; the model is built once.

    ``training`` is the record of a training step that is checked with what inference does not notice; the model is
    built anew for each of these.

    Raises:
        ParityError: a stage diverges before anything is swapped.

    Example::

        swaps = Swaps(find_case("ddq_detr_4scale_r50_12e"), Record(folder))
        for pair in swaps.pairs(200, seed=0):
            print(swaps.try_pair(pair).caught)
    """

    def __init__(self, case: Case, record: Record, *, training: Record | None = None, device: str = "cpu") -> None:
        self.case = case
        self.record = record
        self.training = training
        self.device = device
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
        """Swap two parameters, check the stages that use either until one diverges, and swap them back.

        Raises:
            ParityError: training diverges before anything is swapped.
        """
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
        if self.training is None:
            return Swap(pair, "", "", uses)
        return Swap(pair, *self._trained(self.training, pair), uses, trained=True)

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
        check = partial(self.checker.check, self.record, mode=ISOLATED, dtype="fp64", stages=[stage])
        return _first_divergence(check)[1]

    def _trained(self, record: Record, pair: Pair) -> tuple[str, str]:
        """Return the training stage that notices the swap, and how; both empty if none does."""
        stage, how = self._unswapped_training
        if stage:
            raise ParityError(f"{self.case.id}: {stage} of {record.id} diverges before anything is swapped: {how}")
        return self._train(record, pair)

    @cached_property
    def _unswapped_training(self) -> tuple[str, str]:
        return self._train(self.training, None) if self.training is not None else ("", "")

    def _train(self, record: Record, pair: Pair | None) -> tuple[str, str]:
        checker = _SwappedChecker(self.case, pair, device=self.device)
        return _first_divergence(partial(checker.check, record, mode=CASCADE, dtype="fp64"))

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


def _first_divergence(check: Callable[[], Iterable[StageResult]]) -> tuple[str, str]:
    """Return the first stage that does not pass, with its tensor or decision; or what the engine raised."""
    try:
        for result in check():
            tensors = [tensor.name for tensor in result.tensors if not tensor.verdict.passes]
            decisions = [made.name for made in result.decisions if not made.verdict.passes]
            for name in tensors + decisions:
                return result.stage, name
    except Exception as error:  # a swapped statistic may well make an operator refuse its input
        return "a stage", f"{type(error).__name__}: {error}"
    return "", ""


class _QuickChecker(Checker):
    """Leaves away the replays that only explain a difference."""

    def _island_notes(self, *_: object, **__: object) -> tuple[str, ...]:
        return ()


class _SwappedChecker(Checker):
    """Exchanges two parameters of the model that it fills; for one check, since a second would exchange them back."""

    def __init__(self, case: Case, pair: Pair | None, *, device: str) -> None:
        super().__init__(case, device=device)
        self._pair = pair

    def _prepare(self, record: Record, dtype: str) -> Session:
        session = super()._prepare(record, dtype)
        if self._pair:
            tensors = session.model.state_dict(keep_vars=True)
            _exchange(*(tensors[name] for name in self._pair))
        return session


@contextmanager
def swapped(first: Tensor, second: Tensor) -> Iterator[None]:
    """Exchange the values of two tensors of one shape for the time of the block."""
    _exchange(first, second)
    try:
        yield
    finally:
        _exchange(first, second)


def _exchange(first: Tensor, second: Tensor) -> None:
    with torch.no_grad():
        kept = first.clone()
        first.copy_(second)
        second.copy_(kept)


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
