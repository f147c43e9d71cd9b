"""Decide which rule moves which key, from the names alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from parity.errors import ParityError
from parity.weights.rules import Rule

FORWARD = ("legacy", "new")  # where the source's keys and the target's belong, as messages say it
BACKWARD = FORWARD[::-1]


@dataclass(frozen=True)
class Step:
    """One move of a conversion; keys that no rule matches are kept, with no rule."""

    rule: Rule | None
    sources: tuple[str, ...]
    targets: tuple[str, ...]


def plan(names: Iterable[str], rules: Sequence[Rule], *, ends: tuple[str, str] = FORWARD) -> list[Step]:
    """Return the steps of a conversion; nothing has been done yet.

    Raises:
        ParityError: a key is claimed twice, a rule matches nothing, or a part of a ``Join`` is missing.
    """
    groups: dict[tuple[int, tuple[str, ...]], dict[int, str]] = {}
    kept: list[Step] = []
    for name in names:
        claims = [(rule, part, given) for rule in range(len(rules)) for part, given in _matches(rules[rule], name)]
        if len(claims) > 1:
            claimants = " and ".join(str(rules[rule]) for rule, _, _ in claims[:2])
            raise ParityError(f"weights: {ends[0]} key {name!r} is claimed twice, by {claimants}")
        for rule, part, given in claims:
            parts = groups.setdefault((rule, given or (name,)), {})
            if part in parts:
                both = f"{parts[part]!r} and {name!r} ({rules[rule]})"
                raise ParityError(f"weights: {ends[1]} key {given[0]!r} is claimed twice, by {both}")
            parts[part] = name
        if not claims:
            kept.append(Step(None, (name,), (name,)))
    steps = kept + [_step(rules[rule], given, parts) for (rule, given), parts in groups.items()]
    _expect_no_stale_rule(rules, {rule for rule, _ in groups})
    _expect_unique(steps, ends)
    return steps


def _matches(rule: Rule, name: str) -> list[tuple[int, tuple[str, ...]]]:
    try:
        return rule.matches(name)
    except (re.error, IndexError) as error:
        raise ParityError(f"weights: {rule} is not a valid rule: {error}") from None


def _step(rule: Rule, given: tuple[str, ...], parts: Mapping[int, str]) -> Step:
    missing = [pattern for i, pattern in enumerate(rule.patterns) if i not in parts]
    if missing:
        raise ParityError(f"weights: {given[0]!r} lacks the part that {missing[0]!r} matches ({rule})")
    return Step(rule, tuple(parts[i] for i in range(len(parts))), given if rule.names else ())


def _expect_no_stale_rule(rules: Sequence[Rule], used: set[int]) -> None:
    stale = [rule for i, rule in enumerate(rules) if i not in used and not getattr(rule, "optional", False)]
    if stale:
        raise ParityError(f"weights: {len(stale)} rules match no key, the first is {stale[0]}")


def _expect_unique(steps: Iterable[Step], ends: tuple[str, str]) -> None:
    taken: dict[str, Step] = {}
    for step in steps:
        for target in step.targets:
            if target in taken:
                both = f"{taken[target].sources[0]!r} and {step.sources[0]!r}"
                raise ParityError(f"weights: {ends[1]} key {target!r} is claimed twice, by {both}")
            taken[target] = step
