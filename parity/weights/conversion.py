"""Carry weights from one engine's names to the other's by a case's rules, and account for every key."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from parity.errors import ParityError
from parity.weights.ledger import Hashes, Ledger, Move
from parity.weights.plan import BACKWARD, FORWARD, Step, plan
from parity.weights.rules import Drop, Rule
from parity.weights.values import State, values

SAME_NAME = "same name"
Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Conversion:
    """What a conversion gave.

    Attributes:
        state: the target's state dict.
        left: source name -> what found no place: a dropped tensor, or the rows that a class map did not take.
        ledger: where every key came from and went.
    """

    state: dict[str, Tensor]
    left: dict[str, Tensor]
    ledger: Ledger


def convert(state: State, *, target_names: Iterable[str], rules: Sequence[Rule] = ()) -> dict[str, Tensor]:
    """Return the state dict of the new engine, without a ledger.

    Args:
        target_names: the new engine's names; where they come with shapes (a mapping), those are checked.

    Raises:
        ParityError: as ``convert_with_ledger``.
    """
    steps = plan(state, rules)
    converted, _ = values(steps, state, {})
    _expect_targets(steps, converted, target_names, ends=FORWARD)
    return converted


def convert_with_ledger(
    state: State, *, rules: Sequence[Rule] = (), target_names: Iterable[str] | None = None
) -> Conversion:
    """Return the new engine's state dict, what found no place in it, and the ledger.

    Args:
        target_names: the new engine's names, with their shapes if it is a mapping; ``None`` if they are not known.

    Raises:
        ParityError: a key is unexplained or claimed twice, a rule matches nothing or does not fit its tensor,
            or a target has another shape; the first few keys are named.
    """
    steps = plan(state, rules)
    converted, left = values(steps, state, {})
    _expect_targets(steps, converted, target_names, ends=FORWARD)
    return Conversion(converted, left, _ledger(steps, state, converted))


def reverse(
    state: State, *, rules: Sequence[Rule] = (), left: State | None = None, target_names: Iterable[str] | None = None
) -> Conversion:
    """Return the legacy engine's state dict, made from the new engine's by the rules' inverses.

    The result is converted forward once more: only where that gives ``state`` back, bit for bit, is it returned.

    Args:
        left: what the forward conversion left over, if that is known.
        target_names: the legacy engine's names, with shapes if it is a mapping; ``None`` if they are not known.

    Raises:
        ParityError: a rule has no inverse, what it dropped is not in ``left``, or the way back and forth
            does not end where it began; else as ``convert_with_ledger``.
    """
    steps = plan(state, _inverses(rules), ends=BACKWARD)
    converted, _ = values(steps, state, left or {})
    steps += _restored(rules, left, converted)
    _expect_targets(steps, converted, target_names, ends=BACKWARD)
    _expect_round_trip(converted, state, rules)
    return Conversion(converted, {}, _ledger(steps, state, converted))


def _inverses(rules: Sequence[Rule]) -> list[Rule]:
    try:
        found = [rule.inverse() for rule in rules]
    except ValueError as error:
        raise ParityError(f"weights: cannot be reversed: {error}") from None
    return [rule for rule in found if rule is not None]


def _restored(rules: Sequence[Rule], left: State | None, converted: dict[str, Tensor]) -> list[Step]:
    """Put back what was dropped, into ``converted`` too."""
    steps = []
    for rule in rules:
        if not isinstance(rule, Drop):
            continue
        found = [name for name in left or {} if re.fullmatch(rule.pattern, name)]
        if left is None or not (found or rule.optional):
            raise ParityError(f"weights: cannot be reversed: what {rule} dropped was not kept")
        steps += [Step(rule, (), (name,)) for name in found]
        converted.update({name: (left or {})[name] for name in found})
    return steps


def _expect_targets(
    steps: Sequence[Step], converted: State, wanted: Iterable[str] | None, *, ends: tuple[str, str]
) -> None:
    if wanted is None:
        return
    names = set(wanted)
    unused = [
        source if (source,) == step.targets else f"{source} ({step.rule})"
        for step in steps
        if set(step.targets) - names
        for source in step.sources or step.targets
    ]
    unfilled = sorted(names - converted.keys())
    if unused or unfilled:
        raise ParityError(
            f"weights: {len(unused)} {ends[0]} keys have no place {sorted(unused)[:3]},"
            f" {len(unfilled)} {ends[1]} keys get no value {unfilled[:3]}"
        )
    if isinstance(wanted, Mapping):
        _expect_shapes(converted, wanted, ends[1])


def _expect_shapes(converted: State, shapes: Shapes, end: str) -> None:
    wrong = sorted(name for name, shape in shapes.items() if tuple(converted[name].shape) != tuple(shape))
    if wrong:
        first = f"{wrong[0]!r} is {tuple(converted[wrong[0]].shape)}, expected {tuple(shapes[wrong[0]])}"
        raise ParityError(f"weights: {len(wrong)} {end} keys get a value of another shape {wrong[:3]}: {first}")


def _expect_round_trip(converted: State, state: State, rules: Sequence[Rule]) -> None:
    again, _ = values(plan(converted, rules), converted, {})
    hashes = Hashes()
    changed = sorted(again.keys() ^ state.keys())
    changed += sorted(
        name for name in again.keys() & state.keys() if hashes.key(name, again[name]) != hashes.key(name, state[name])
    )
    if changed:
        raise ParityError(
            f"weights: cannot be reversed: converted forward once more, {len(changed)} keys differ {changed[:3]};"
            " a rule's inverse takes keys that the rule never gave"
        )


def _ledger(steps: Iterable[Step], state: State, converted: State) -> Ledger:
    hashes = Hashes()
    return Ledger(
        tuple(
            Move(
                str(step.rule) if step.rule else SAME_NAME,
                hashes.keys(step.sources, state),
                hashes.keys(step.targets, converted),
            )
            for step in steps
        )
    )
