"""What rules do with values: every step's tensors, and what is left over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from parity.errors import ParityError
from parity.weights.plan import Step
from parity.weights.rules import ClassFill, ClassMap, Drop, Join, Permute, Rule, Split

State = Mapping[str, Tensor]


def values(steps: Iterable[Step], state: State, left: State) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the target's values, and what is left over by source name.

    Args:
        left: what the opposite conversion left over, which ``ClassFill`` needs.

    Raises:
        ParityError: a rule does not fit its tensor; key, shape and rule are named.
    """
    converted: dict[str, Tensor] = {}
    over: dict[str, Tensor] = {}
    for step in steps:
        tensors = [state[name] for name in step.sources]
        if isinstance(step.rule, (Drop, ClassMap)):
            over.update(_left_over(step.rule, step.sources[0], tensors[0]))
        rows = left.get(step.targets[0]) if isinstance(step.rule, ClassFill) else None
        converted.update(zip(step.targets, _applied(step, tensors, rows), strict=True))
    return converted, over


def _left_over(rule: Drop | ClassMap, name: str, tensor: Tensor) -> dict[str, Tensor]:
    if isinstance(rule, Drop):
        return {name: tensor}
    _expect_size(rule, name, tensor, rule.axis, rule.of)
    rows = rule.left()
    return {name: tensor.index_select(rule.axis, torch.tensor(rows))} if rows else {}


def _applied(step: Step, tensors: list[Tensor], rows: Tensor | None) -> list[Tensor]:
    """Return the values that a step gives, contiguous and owning their memory where they were moved."""
    rule, name = step.rule, step.sources[0]
    if isinstance(rule, Split):
        _expect_size(rule, name, tensors[0], rule.axis, sum(rule.sizes))
        return [part.clone() for part in torch.split(tensors[0], list(rule.sizes), rule.axis)]
    if isinstance(rule, Join):
        return [_joined(rule, step.sources, tensors)]
    if isinstance(rule, Permute):
        if tensors[0].ndim != len(rule.axes):
            raise ParityError(f"weights: {name!r} has {tensors[0].ndim} axes ({rule})")
        return [tensors[0].permute(rule.axes).contiguous()]
    if isinstance(rule, ClassMap):
        return [tensors[0].index_select(rule.axis, torch.tensor(rule.rows))]
    if isinstance(rule, ClassFill):
        return [_filled(rule, step, tensors[0], rows)]
    return [] if isinstance(rule, Drop) else tensors


def _expect_size(rule: Rule, name: str, tensor: Tensor, axis: int, size: int) -> None:
    if tensor.ndim <= axis or tensor.shape[axis] != size:
        raise ParityError(
            f"weights: {name!r} of shape {tuple(tensor.shape)} has no {size} rows on axis {axis} ({rule})"
        )


def _joined(rule: Join, names: Sequence[str], tensors: list[Tensor]) -> Tensor:
    for name, tensor, size in zip(names, tensors, rule.sizes, strict=True):
        _expect_size(rule, name, tensor, rule.axis, size)
    others = {(t.dtype, *t.shape[: rule.axis], *t.shape[rule.axis + 1 :]) for t in tensors}
    if len(others) > 1:
        shapes = ", ".join(f"{name!r} {tuple(t.shape)} {t.dtype}" for name, t in zip(names, tensors, strict=True))
        raise ParityError(f"weights: {shapes} do not fit together ({rule})")
    return torch.cat(tensors, rule.axis)


def _filled(rule: ClassFill, step: Step, tensor: Tensor, rows: Tensor | None) -> Tensor:
    _expect_size(rule, step.sources[0], tensor, rule.axis, len(rule.rows))
    others = rule.inverse().left()
    shape = list(tensor.shape)
    shape[rule.axis] = len(others)
    if others and (rows is None or rows.dtype is not tensor.dtype or list(rows.shape) != shape):
        missing = f"{len(others)} of the {rule.of} rows of {step.targets[0]!r} were dropped and not kept"
        raise ParityError(f"weights: cannot be reversed: {missing} ({rule})")
    shape[rule.axis] = rule.of
    whole = tensor.new_empty(shape).index_copy_(rule.axis, torch.tensor(rule.rows), tensor)
    return whole.index_copy_(rule.axis, torch.tensor(others), rows) if rows is not None and others else whole
