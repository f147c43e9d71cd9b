"""The draws of a pipeline: what is written down is what was drawn, and what is answered is what was written down."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch

from parity.compare.pipeline import other_questions
from parity.taps.pipeline_draws import OTHER_MEANS, PipelineDraws


def transforms() -> list[object]:
    """Draw as mmdet's transforms do: flip or not, a branch, a scale, the size of a crop."""
    flip = np.random.choice(["horizontal", None], p=[0.3, 0.7])
    branch = np.random.choice(np.arange(2), p=None)
    return [flip, int(branch), int(np.random.randint(11)), int(np.random.randint(384, 601))]


def drawn(seed: int, answers: torch.Tensor | None = None) -> tuple[list[object], torch.Tensor]:
    np.random.seed(seed)
    with PipelineDraws(answers) as draws:
        values = transforms()
    return values, draws.table()


@pytest.mark.parametrize("seed", range(5))
def test_a_tapped_transform_draws_what_a_bare_one_draws(seed: int) -> None:
    values, _ = drawn(seed)
    np.random.seed(seed)
    assert transforms() == values


def test_a_table_tells_range_answer_and_probability() -> None:
    (flip, branch, scale, size), table = drawn(1)
    flipped = float(flip is None)
    assert table.tolist() == [
        [0, 2, flipped, 0.7 if flipped else 0.3],
        [0, 2, branch, 0.5],
        [0, 11, scale, 1 / 11],
        [384, 601, size, 1 / 217],
    ]


def test_given_answers_decide_whatever_the_seed() -> None:
    values, table = drawn(1)
    assert drawn(2)[0] != values
    again, asked = drawn(2, table)
    assert again == values
    assert asked.tolist() == table.tolist()


def test_a_question_that_was_not_recorded_shows_in_the_table() -> None:
    answers = drawn(1)[1]
    answers[2, 1] = 3  # the other engine chose among three scales
    values, asked = drawn(1, answers)
    assert asked[2].tolist()[:2] == [0, 11]
    assert asked[[0, 1, 3]].tolist() == answers[[0, 1, 3]].tolist()
    assert values[3] == int(answers[3, 2])


def test_a_draw_more_than_recorded_makes_the_table_longer() -> None:
    answers = drawn(1)[1]
    assert len(drawn(1, answers[:-1])[1]) == len(answers)
    with PipelineDraws(answers) as draws:
        np.random.randint(3)
    assert len(draws.table()) == 1


def test_no_draw_at_all_is_a_table_without_rows() -> None:
    with PipelineDraws() as draws:
        pass
    assert draws.table().shape == (0, 4)


OTHER: dict[str, Callable[[], object]] = {
    "numpy.random.rand": np.random.rand,
    "several at once": lambda: np.random.randint(0, 5, size=2),
    "several choices": lambda: np.random.choice(5, 2),
    "random": random.random,
    "torch": lambda: torch.rand(1),
}


@pytest.mark.parametrize("name", OTHER)
@pytest.mark.parametrize("last", [True, False])
def test_a_draw_by_other_means_is_a_row_of_its_own(name: str, last: bool) -> None:
    with PipelineDraws() as draws:
        np.random.randint(3)
        OTHER[name]()
        if not last:
            np.random.randint(3)
    rows = draws.table().tolist()
    assert rows[1] == list(OTHER_MEANS)
    assert [row[:2] for row in rows[0:1] + rows[2:]] == [[0.0, 3.0]] * (1 if last else 2)


def test_what_is_asked_after_a_draw_by_other_means_is_answered_as_recorded() -> None:
    values, answers = drawn(1)
    np.random.seed(2)
    with PipelineDraws(answers) as draws:
        np.random.rand()
        assert transforms() == values
    assert draws.table()[1:].tolist() == answers.tolist()
    (note,) = other_questions({"draws[0]": draws.table()}, {"draws[0]": answers})
    assert note.startswith("draws[0]: at draw 0 the new engine asks for random numbers by other means than one numpy")


def test_the_error_of_a_transform_is_not_hidden_and_numpy_is_put_back() -> None:
    before = np.random.choice, np.random.randint

    def run() -> None:
        with PipelineDraws():
            np.random.rand()
            raise ValueError("of the transform")

    with pytest.raises(ValueError, match="of the transform"):
        run()
    assert (np.random.choice, np.random.randint) == before
