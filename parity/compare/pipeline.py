"""Say where two data pipelines do not ask for the same random choices."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from parity.taps.pipeline_draws import OTHER_MEANS

SHOWN = 5


def other_questions(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Return a note for each example in which the engines' draws part, at the first one that is not the same.

    Args:
        actual, expected: ``draws[i]`` -> rows of (least answer, end, answer, probability), float64 (D, 4).
    """
    notes = [note for name in expected if (note := _first_other(name, actual.get(name), expected[name]))]
    more = len(notes) - SHOWN
    return (*notes[:SHOWN], f"… and in {more} more examples") if more > 0 else tuple(notes)


def _first_other(name: str, actual: Tensor | None, expected: Tensor) -> str:
    ours, theirs = [] if actual is None else actual.tolist(), expected.tolist()
    for number in range(max(len(ours), len(theirs))):
        mine, wanted = (_described(rows[number] if number < len(rows) else None) for rows in (ours, theirs))
        if mine != wanted:
            return f"{name}: at draw {number} the new engine asks for {mine}, the legacy engine asked for {wanted}"
    return ""


def _described(row: list[float] | None) -> str:
    if row is None:
        return "nothing more"
    if tuple(row) == OTHER_MEANS:
        return "random numbers by other means than one numpy.random.choice or randint at a time"
    least, end, answer, probability = row
    return f"a number from {least:.0f} to {end - 1:.0f}, {answer:.0f} having probability {probability:.6g}"
