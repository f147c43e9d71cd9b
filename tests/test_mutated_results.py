"""Damaged results files, seeded: each is refused in one line or shown whole, and costs the history no other run."""

from __future__ import annotations

import json
import random
from pathlib import Path

from mutated_results import complaints, known_runs, mutant
from report_tools import OFF, check, run_of, written

from parity.report.results import to_json

COUNT, SEED = 120, 15


def write_runs(folder: Path) -> None:
    for day in range(1, 4):
        written(folder / f"night-{day}", run_of(when=f"2026-11-0{day}T02:00:00+00:00"))


def test_a_damaged_results_file_is_one_line_or_a_whole_page_and_costs_no_other_run(tmp_path: Path) -> None:
    others = known_runs(tmp_path, write_runs)
    plain = json.loads(to_json(run_of(check("backbone"), check("encoder", OFF))))
    draw = random.Random(SEED)
    for number in range(COUNT):
        content = mutant(plain, draw)
        assert list(complaints(content, tmp_path, others=others)) == [], f"mutant {number}"
    assert others == {"night-1", "night-2", "night-3"}


def test_what_is_asked_of_a_mutant_finds_a_lost_run(tmp_path: Path) -> None:
    others = known_runs(tmp_path, write_runs)
    content = to_json(run_of()).encode()
    assert list(complaints(content, tmp_path, others=others)) == []
    assert list(complaints(content, tmp_path, others={*others, "another"})) == ["the history lost ['another']"]
