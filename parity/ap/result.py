"""What full-val AP says of a case: figures of both engines, their detections matched, and what lies beyond a limit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from parity.ap.evaluate import FIGURES, Annotations, Evaluation, evaluate
from parity.ap.frames import Detections, Predictions
from parity.ap.match import Matching, match
from parity.cases.base import ApLimits, Case
from parity.cases.registry import find_case

SHOWN = 50  # images that differ most, for the report
Shown = tuple[str, Detections, Detections]
_SIDES = ("left", "top", "right", "bottom")


@dataclass(frozen=True)
class ApResult:
    """One case, judged.

    Attributes:
        data: where its images are, in words.
        reported: the AP to expect of the legacy engine, in percent; ``None`` where there is none.
        notes: what the reader should know: failures on the way, predictions that were not made now.
        shown: image -> its file, and both engines' detections, of the images that differ most.
    """

    case: str
    data: str
    legacy: Evaluation
    new: Evaluation
    matching: Matching
    limits: ApLimits
    reported: float | None
    notes: tuple[str, ...] = ()
    shown: dict[int, Shown] = field(default_factory=dict)

    @property
    def problems(self) -> list[str]:
        """What lies beyond a limit, a line each; nothing where the engines are the same."""
        return [*_figures(self), *_reported(self), *_detections(self)]

    @property
    def passes(self) -> bool:
        """Whether everything lies within its limit."""
        return not self.problems

    def difference(self, figure: str) -> float:
        """Return new minus legacy, in percent points."""
        return self.new.figures[figure] - self.legacy.figures[figure]


def judge(
    case: Case,
    actual: Predictions,
    expected: Predictions,
    annotations: Annotations,
    *,
    files: Mapping[int, str],
    reported: float | None,
    data: str = "",
    notes: tuple[str, ...] = (),
) -> ApResult:
    """Evaluate the new engine's predictions and the legacy engine's, and match them; ``files``: image -> its path."""
    new, legacy, matching = evaluate(actual, annotations), evaluate(expected, annotations), match(actual, expected)
    worst = [found.image for found in matching.most_different(SHOWN)]
    shown = {image: (files[image], expected[image], actual[image]) for image in worst}
    return ApResult(case.id, data, legacy, new, matching, case.ap, reported, notes, shown)


def _figures(result: ApResult) -> Iterator[str]:
    beyond = [name for name in FIGURES if abs(result.difference(name)) > result.limits.difference]
    for name in sorted(beyond, key=lambda name: -abs(result.difference(name))):
        yield (
            f"{name} differs by {result.difference(name):+.4g} (new {result.new.figures[name]:.4f}, legacy"
            f" {result.legacy.figures[name]:.4f}); allowed are {result.limits.difference:g} either way"
        )


def _reported(result: ApResult) -> Iterator[str]:
    if result.reported is None:
        return
    found = result.legacy.figures["AP"]
    if abs(found - result.reported) > result.limits.reported:
        yield (
            f"the legacy engine's AP is {found:.2f} where {result.reported:g} is reported; allowed are"
            f" {result.limits.reported:g} either way: is the checkpoint this case's, and the data COCO's own?"
        )


def _detections(result: ApResult) -> Iterator[str]:
    total, limits = result.matching.total, result.limits
    if total.share < limits.matched:
        yield (
            f"{total.matched} detections match of {total.legacy} legacy and {total.new} new ones:"
            f" {total.percent} where {100 * limits.matched:g} % must (IoU above 0.99, scores within 1e-4)"
        )
    offset, side = max(zip(map(abs, result.matching.shift), _SIDES, strict=True))
    if offset > limits.shift:
        yield f"matched boxes lie {offset:.3g} pixels apart on average ({side}); allowed are {limits.shift:g}"


def summary(result: ApResult) -> str:
    """Return one line for the terminal."""
    total = result.matching.total
    worst = max(abs(result.difference(name)) for name in FIGURES)
    return (
        f"{result.case}: AP {result.legacy.figures['AP']:.2f} legacy, {result.new.figures['AP']:.2f} new; figures"
        f" differ by {worst:.2g} at most; {total.matched} of {max(total.legacy, total.new)} detections match,"
        f" {result.matching.relabelled} with another class"
    )


def failure_message(result: ApResult) -> str:
    """Return what to show of a case that did not pass: a headline, what lies beyond its limit, what to do next."""
    problems = "\n".join(f"  {problem}" for problem in result.problems)
    notes = "".join(f"\n  note: {note}" for note in result.notes)
    stages = f" {result.case}" if find_case(result.case).stages else ""  # small cases have no records of their own
    return (
        f"{result.case}: beyond its limits on {len(result.matching.images)} images\n{problems}{notes}\n"
        f"  next: `parity ap {result.case} --report-dir reports/ap-page` shows the images that differ most;"
        f" `parity check{stages}` names the first stage that differs"
    )
