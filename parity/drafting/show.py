"""Show a match of parameters side by side: terminal, page, and two files for any diff tool."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from jinja2 import Environment

from parity.drafting.match import Match, Pair
from parity.weights.rules import Rule

Shapes = Mapping[str, Sequence[int]]

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{{ title }}: weights</title>
<style>
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem; }
table { border-collapse: collapse; } td, th { padding: .1rem .8rem; text-align: left; border-bottom: 1px solid #ddd; }
td:nth-child(-n+3) { font-family: monospace; } tr.ambiguous { background: #fff3c4; } tr.left { background: #ffd7d5; }
</style>
<h1>{{ title }}</h1><p>{{ summary }}</p>
<table><tr><th>legacy<th>new<th>shape<th>matched by<th>remarks</tr>
{% for row in rows %}<tr class="{{ row[3] }}">{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table></html>
"""

LEFT = "left"  # a key that nothing was found for

Row = tuple[str, str, str, str, str]


def rows(match: Match, sources: Shapes, targets: Shapes) -> Iterator[Row]:
    """Yield legacy key, new key, shape, how they were matched, remarks; what is left over comes last."""
    for pair in match.pairs:
        remark = (
            f"or {', '.join(pair.rivals)}: confirm" if pair.rivals else "confirm" if pair in match.ambiguous else ""
        )
        yield pair.source, pair.target, str(tuple(sources[pair.source])), pair.how, remark
    for name, likely in match.left_sources.items():
        yield name, "", str(tuple(sources[name])), LEFT, f"likeliest partners: {', '.join(likely)}"
    for name, likely in match.left_targets.items():
        yield "", name, str(tuple(targets[name])), LEFT, f"likeliest partners: {', '.join(likely)}"


def summary(match: Match) -> str:
    """Return in one line how many keys were matched by what."""
    counts = Counter(pair.how for pair in match.pairs)
    ways = ", ".join(
        f"{count} by {how}" if how != "ambiguous" else f"{count} ambiguous" for how, count in counts.items()
    )
    left = f"{len(match.left_sources)} legacy and {len(match.left_targets)} new keys left over"
    return f"{len(match.pairs)} keys matched ({ways}); {left}"


def table(match: Match, rules: Sequence[Rule], sources: Shapes, targets: Shapes) -> list[str]:
    """Return lines for a terminal: one a rule with an example, then all that a reader has to look at."""
    lines = [summary(match)]
    taken: Counter[Rule] = Counter()
    example: dict[Rule, Pair] = {}
    for pair in match.pairs:
        for rule in rules:
            if rule.matches(pair.source):
                taken[rule] += 1
                example.setdefault(rule, pair)
    for rule, count in taken.items():
        lines.append(f"  {count:5}  {example[rule].source}\n      -> {example[rule].target}")
    doubtful = [row for row in rows(match, sources, targets) if row[3] in ("ambiguous", "left")]
    return lines + [
        f"  {how:9}  {a or '(none)'} -> {b or '(none)'} {shape}  {remark}" for a, b, shape, how, remark in doubtful
    ]


def write_files(folder: Path, title: str, match: Match, sources: Shapes, targets: Shapes) -> list[Path]:
    """Write ``legacy.json`` and ``new.json``, where the same line holds a pair, and ``match.html``; return them."""
    folder.mkdir(parents=True, exist_ok=True)
    found = list(rows(match, sources, targets))
    page = Environment(autoescape=True).from_string(PAGE).render(title=title, summary=summary(match), rows=found)
    contents = {
        "legacy.json": _lines((row[0], sources) for row in found),
        "new.json": _lines((row[1], targets) for row in found),
        "match.html": page,
    }
    for name, content in contents.items():
        (folder / name).write_text(content)
    return [folder / name for name in contents]


def _lines(keys: Iterator[tuple[str, Shapes]]) -> str:
    """Return JSON with one key a line, so that a diff tool lines up what belongs together."""
    entries = [json.dumps({"key": key, "shape": list(shapes[key])} if key else None) for key, shapes in keys]
    return "[\n" + ",\n".join(entries) + "\n]\n"
