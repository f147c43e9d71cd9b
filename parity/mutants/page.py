"""The page that says what the harness catches: Markdown, from what ``parity mutate --json`` wrote."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from parity.cases.registry import all_cases
from parity.mutants.benign import BENIGN
from parity.mutants.outcomes import MutationReport, Outcome
from parity.mutants.practice import AP_MARGIN, COUNTED, WANTED, Practice
from parity.mutants.quiet import Quiet
from parity.mutants.registry import built_in

SUBTLE = 0.1  # pixels that a final box moves

HEAD = f"""# Planted bugs and benign changes

Made by `parity mutate --read RESULTS.json … --page docs/mutants.md`; nothing here is written by hand.

A *mutant* is the new engine with one planted bug. The harness runs its checks in their order (isolated float64 first,
smallest record first, every stage from the first on) until something diverges; the first stage that does is compared
with the one that holds the bug. Beside that, each mutant is judged as ports usually are, on a float32 run of the whole
detector against the values that the legacy engine recorded:

- **close**: final boxes, scores and labels by `torch.testing.assert_close` at its defaults;
- **slice**: the first 3 by 3 numbers of the last logits and boxes, at 1e-4;
- **AP**: within {AP_MARGIN} points of the unchanged engine's. The set is the images of the case's records; the
  ground truth is what the legacy engine found there, its best {WANTED} detections of each image.

*moved* is how far one of an image's best {COUNTED} boxes lies at most from the nearest of its class in the unchanged
engine's run. A judge that finds fault with the unchanged engine, too, says nothing about a bug: such catches do not
count.

A *benign change* leaves the detector the same, so that no check may fail. Before it is checked, a run with it is
compared with one without: the settings that the run reads, the operators that it calls, the layout of their tensors,
the model's modules and parameters, every bit of what it gives. One that changes none of these is *without effect
here*: it is not checked and does not count.
"""


def page(report: MutationReport, quiet: Sequence[Quiet]) -> str:
    """Return the whole page."""
    parts = [HEAD, _summary(report, quiet), _judges(report), _by_stage(report)]
    parts += [_survivors(report), _misplaced(report), _benign(quiet), _mutants(report)]
    return "\n".join(part for part in parts if part)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table.

    >>> print(table(["a", "b"], [[1, "x"]]), end="")
    | a | b |
    |---|---|
    | 1 | x |
    """
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def share(part: int, whole: int) -> str:
    """Return a share with its count.

    >>> share(3, 4)
    '3 of 4 (75.0 %)'
    """
    return f"{part} of {whole}" + (f" ({part / whole:.1%})".replace("%", " %") if whole else "")


def _judged(report: MutationReport) -> list[tuple[Outcome, Practice, Practice]]:
    """Return the outcomes that were judged as people do, with that and what the unchanged engine gave."""
    return [
        (it, it.practice, report.clean[it.case]) for it in report.outcomes if it.practice and it.case in report.clean
    ]


def _summary(report: MutationReport, quiet: Sequence[Quiet]) -> str:
    caught = [outcome for outcome in report.outcomes if outcome.catch]
    judged = _judged(report)
    here = {(outcome.mutant, outcome.case) for outcome in report.outcomes}
    declared = {(it.id, case) for it in built_in() for case in all_cases() if it.concerns(case)}
    rows = [
        ("mutants", f"{len({outcome.mutant for outcome in report.outcomes})}, planted {len(report.outcomes)} times"),
        ("declared, but not in these results", len(declared - here)),
        ("caught", share(len(caught), len(report.outcomes))),
        ("survivors that are not explained", len(report.unexplained)),
        *([("not judged", len(report.unjudged))] if report.unjudged else ()),
        ("right stage named first", share(sum(outcome.right_stage for outcome in caught), len(caught))),
        ("of these judged the usual ways, too", len(judged)),
        ("that move no final box by 0.1 px", sum(practice.moved < SUBTLE for _, practice, _ in judged)),
        ("that leave AP as it is", sum(practice.unchanged_ap(clean) for _, practice, clean in judged)),
        (
            "false alarms of benign changes",
            share(sum(it.alarm is not None for it in quiet), sum(it.counts for it in quiet)),
        ),
        ("benign changes without effect here, not counted", sum(not it.counts for it in quiet)),
        (
            f"processor time of {sum(it.seconds > 0 for it in report.outcomes)} plantings, the usual judges included",
            f"{sum(it.seconds for it in report.outcomes) / 60:.0f} min",
        ),
    ]
    return "\n" + table(["what", "value"], rows)


def _close(practice: Practice, _: Practice) -> bool:
    return practice.close


def _slices(practice: Practice, _: Practice) -> bool:
    return practice.slices


def _same_ap(practice: Practice, clean: Practice) -> bool:
    return practice.same_ap(clean) and not practice.crashed


JUDGES = (
    ("assert_close on final outputs", _close),
    ("slices at 1e-4", _slices),
    (f"AP within {AP_MARGIN}", _same_ap),
)


def _judges(report: MutationReport) -> str:
    judged = _judged(report)
    if not judged:
        return ""
    clean = list(report.clean.values())
    rows: list[tuple[object, ...]] = [
        ("the harness", share(sum(it.catch is not None for it, _, _ in judged), len(judged)), f"0 of {len(clean)}")
    ]
    for name, passes in JUDGES:
        caught = sum(passes(before, before) and not passes(practice, before) for _, practice, before in judged)
        alarms = sum(not passes(unchanged, unchanged) for unchanged in clean)
        rows.append((name, share(caught, len(judged)), f"{alarms} of {len(clean)}"))
    head = ["judge", "caught", "cases in which it finds fault with the unchanged engine"]
    return "\n## Beside the usual ways to judge\n\n" + table(head, rows)


def _by_stage(report: MutationReport) -> str:
    stages = list(dict.fromkeys(outcome.stage for outcome in report.outcomes))
    rows = []
    for stage in stages:
        here = [outcome for outcome in report.outcomes if outcome.stage == stage]
        caught = sum(outcome.catch is not None for outcome in here)
        rows.append((stage, len(here), caught, sum(outcome.right_stage for outcome in here)))
    return "\n## By stage\n\n" + table(["stage that holds the bug", "planted", "caught", "named first"], rows)


def _survivors(report: MutationReport) -> str:
    rows = [(f"`{it.mutant}`", it.case, it.why, it.explained or "not explained") for it in report.survivors]
    return "\n## Survivors\n\n" + table(["mutant", "case", "bug", "why it survives"], rows) if rows else ""


def _misplaced(report: MutationReport) -> str:
    rows = [
        (f"`{it.mutant}`", it.case, it.stage, it.catch.stage or "a whole run", it.catch.how)
        for it in report.misplaced()
        if it.catch
    ]
    head = ["mutant", "case", "stage that holds it", "named first", "how"]
    return "\n## Named in another stage\n\n" + table(head, rows) if rows else ""


def _benign(quiet: Sequence[Quiet]) -> str:
    if not quiet:
        return ""
    said = {it.id: (it.changes, it.why) for it in BENIGN}
    rows = []
    for change in dict.fromkeys(it.change for it in quiet):
        here = [it for it in quiet if it.change == change]
        alarms = [
            f"{it.case}: {it.alarm.stage} {it.alarm.mode} {it.alarm.dtype}: {it.alarm.how}" for it in here if it.alarm
        ]
        counted = [it for it in here if it.counts]
        changes, why = said.get(change, (here[0].changes, here[0].why))
        effect = next((it.effect for it in counted if it.effect), "") or ("" if counted else "without effect here")
        seen = f"{len(counted)} of {len(here)}"
        rows.append((f"`{change}`", changes, why, effect, seen, "; ".join(alarms) or ("none" if counted else "")))
    head = ["change", "what it changes", "why nothing may follow", "seen in the first case", "counted", "alarms"]
    return "\n## Benign changes\n\n" + table(head, rows)


def _mutants(report: MutationReport) -> str:
    rows = [_row(outcome, report.clean.get(outcome.case)) for outcome in report.outcomes]
    head = ["mutant", "case", "bug", "named first", "mode, dtype, record", "moved", "close", "slice", "AP"]
    legend = "*fails* is as it should be; *(fails)*: it finds fault with the unchanged engine as well."
    return f"\n## All mutants\n\n{legend}\n\n" + table(head, rows)


def _row(outcome: Outcome, clean: Practice | None) -> tuple[str, ...]:
    catch, practice = outcome.catch, outcome.practice
    place = "**not judged**" if outcome.error else "**survived**" if catch is None else (catch.stage or "a whole run")
    where = "" if catch is None else f"{catch.mode}, {catch.dtype}, {catch.record}"
    row = (f"`{outcome.mutant}`", outcome.case, outcome.why, place, where)
    if practice is None or clean is None:
        return (*row, "", "", "", "")
    if practice.crashed:
        return (*row, "", "crashes", "crashes", "crashes")
    ap = f"{practice.ap - clean.ap:+.2f}" + ("" if practice.same_ap(clean) else " fails")
    return (*row, _pixels(practice.moved), _word(practice.close, clean.close), _word(practice.slices, clean.slices), ap)


def _pixels(moved: float) -> str:
    return "another box" if math.isinf(moved) else f"{moved:.1e} px"


def _word(passes: bool, clean: bool) -> str:
    if passes:
        return "passes"
    return "fails" if clean else "(fails)"
