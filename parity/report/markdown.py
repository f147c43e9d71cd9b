"""A run as Markdown: the summary of a CI job, and the text of the issue that a red night opens."""

from __future__ import annotations

import re
from collections.abc import Sequence

from parity.compare.verdicts import Verdict
from parity.report.ap_figures import CaseAp
from parity.report.figures import duration
from parity.report.matrix import matrix
from parity.report.messages import failure_message
from parity.report.order import in_order, rerun
from parity.report.results import Report, StageResult

_SHOWN = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;", "#": "&#35;", **{mark: f"\\{mark}" for mark in "\\`*[]|~"}}
)
_LISTED = 20  # diverging checks; the page has them all


def markdown(report: Report, *, ap: Sequence[CaseAp] = ()) -> str:
    """Return one line of verdict, the first diverging stage with the command that reruns it, case x stage, and AP."""
    results = in_order(report.results)
    failing = [result for result in results if not result.verdict.passes]
    passed = len(results) - len(failing)
    seconds = sum(result.seconds for result in results)
    state = "✓ Same" if report.verdict.passes and not any(case.problems for case in ap) else "✕ Not the same"
    if report.verdict is Verdict.INCONCLUSIVE and not any(case.problems for case in ap):
        state = "? Nothing differs, but not everything was compared"
    lines = [f"## {state}: {passed} of {len(results)} stage checks passed, {duration(seconds)}", ""]
    lines += _first(failing) if failing else [] if results else ["Nothing was compared: that is a failure.", ""]
    lines += _table(results) if results else []
    lines += _ap(ap) if ap else []
    return "\n".join([*lines, "", _surroundings(report)]).rstrip() + "\n"


def _first(failing: list[StageResult]) -> list[str]:
    first = max(failing, key=lambda result: result.verdict is not Verdict.INCONCLUSIVE)
    where = f"{first.case}, record {first.record}, {first.mode}, {first.dtype}, {first.device}"
    what = "stage not compared" if first.verdict is Verdict.INCONCLUSIVE else "diverging stage"
    lines = [f"First {what}: **{plain(first.stage)}** ({plain(where)})", ""]
    lines += [*_fenced(failure_message([first], rerun=rerun(first))), ""]
    if len(failing) > 1:
        left = any(result.verdict is Verdict.INCONCLUSIVE for result in failing)
        checks = "checks that do not pass" if left else "diverging checks"
        lines += [f"<details><summary>All {len(failing)} {checks}</summary>", ""]
        lines += [f"- {plain(result.verdict.value)}: {plain(result.id)}" for result in failing[:_LISTED]]
        lines += [f"- … and {len(failing) - _LISTED} more"] if len(failing) > _LISTED else []
        lines += ["", "</details>", ""]
    return lines


def _table(results: list[StageResult]) -> list[str]:
    found = matrix(results)
    rows = [["", *map(plain, found.cases)], ["---"] * (1 + len(found.cases))]
    rows += [[plain(stage), *(found.text(stage, case) for case in found.cases)] for stage in found.stages]
    return [f"| {' | '.join(row)} |" for row in rows] + [
        "",
        "✓ with the greatest share of its budget that a tensor used; ✕ with how many checks did not pass.",
    ]


def _ap(ap: Sequence[CaseAp]) -> list[str]:
    rows = [["", "AP, legacy", "AP, new", "detections that match"], ["---"] * 4]
    for case in ap:
        figures = [f"{engine.figures.get('AP', -1.0):.2f}" for engine in (case.legacy, case.new)]
        sign = "✕" if case.problems else "✓"
        rows.append([f"{sign} {plain(case.case)}", *figures, f"{100.0 * case.detections.share:.2f} %"])
    problems = [f"- {plain(case.case)}: {plain(problem)}" for case in ap for problem in case.problems]
    return ["", *(f"| {' | '.join(row)} |" for row in rows), *(["", *problems] if problems else [])]


def _surroundings(report: Report) -> str:
    new = report.environment.get("new")
    facts = {**(new if isinstance(new, dict) else {}), **report.environment}
    told = [f"{key} {facts[key]}" for key in ("commit", "torch", "mmcv", "mmdet", "device", "when") if facts.get(key)]
    return plain(", ".join(told))


def _fenced(text: str) -> list[str]:
    """Return the text as a code block that nothing in it can end."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}text", text, fence]


def plain(text: str) -> str:
    r"""Return text that Markdown shows as it is: neither markup, nor HTML, nor the name of a person or an issue.

    >>> print(plain("a|b <script> `c` @someone #7"))
    a\|b &lt;script&gt; \`c\` &#64;someone &#35;7
    """
    return " ".join(text.split()).translate(_SHOWN)
