"""Write pairs of keys as few renaming rules, and prove that these give the pairs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher

from parity.drafting.match import Pair, tokens
from parity.errors import ParityError
from parity.weights.plan import plan
from parity.weights.rules import Drop, Rename, Rule


def rules_for(pairs: Sequence[Pair], dropped: Iterable[str] = ()) -> tuple[Rule, ...]:
    """Return rules that turn every pair's source into its target.

    A rule that would take a key which is another rule's, or one that keeps its name, is written for its one key.
    """
    moved = {pair.source: pair.target for pair in pairs if pair.source != pair.target}
    names = [pair.source for pair in pairs]
    chosen: dict[str, Rename] = {}
    for source, target in moved.items():
        if source not in chosen:
            rule, taken = _widest(source, target, names, moved, chosen)
            chosen.update(dict.fromkeys(taken, rule))
    drops = [Drop(re.escape(name), "the new engine has no such parameter: CONFIRM") for name in dropped]
    rules: tuple[Rule, ...] = (*dict.fromkeys(chosen[source] for source in moved), *drops)
    _prove(pairs, rules)
    return rules


def _widest(
    source: str, target: str, names: Sequence[str], moved: Mapping[str, str], chosen: Mapping[str, Rename]
) -> tuple[Rename, list[str]]:
    """Return the rename that takes the most keys with this one and gives each its own target, and those keys."""
    for rule in _candidates(source, target):
        given = {name: found[0][1][0] for name in names if (found := rule.matches(name))}
        if all(moved.get(name) == new and name not in chosen for name, new in given.items()):
            return rule, list(given)
    return Rename(re.escape(source), target), [source]


def _candidates(source: str, target: str) -> Iterator[Rename]:
    """Yield renames of this key and others like it, which differ in numbers or in what comes last; widest first."""
    before, after = tokens(source), tokens(target)
    blocks = SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks()
    kept = {block.a + i: block.b + i for block in blocks for i in range(block.size)}
    longest = 0
    while kept.get(len(before) - 1 - longest) == len(after) - 1 - longest:
        longest += 1
    for tail in range(longest, -1, -1):
        pattern, given, groups = [], list(after), 0
        for i, token in enumerate(before[: len(before) - tail]):
            if i in kept and token.isdigit():
                groups += 1
                pattern.append(r"(\d+)")
                given[kept[i]] = rf"\{groups}"
            else:
                pattern.append(re.escape(token))
        end = ["(.+)"], [rf"\{groups + 1}"]
        given = given[: len(after) - tail]
        yield Rename(r"\.".join(pattern + end[0][: bool(tail)]), ".".join(given + end[1][: bool(tail)]))


def _prove(pairs: Sequence[Pair], rules: Sequence[Rule]) -> None:
    wanted = {pair.source: pair.target for pair in pairs}
    for step in plan(wanted, [rule for rule in rules if not isinstance(rule, Drop)]):
        if step.targets != (wanted[step.sources[0]],):
            raise ParityError(f"weights: no rule gives {step.sources[0]} the name {wanted[step.sources[0]]}")
