"""The history in a real browser: it draws, filters and tells its figures, without an error and without a network."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from browser_window import DESK, PHONE, SCREENSHOTS, Window
from playwright.sync_api import Page, expect
from report_tools import FINE, OFF, SCRIPT, check, run_of, written

from parity.report.history_page import update_history


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of twelve nights: an error that grows and falls out, software that changes, an odd name."""
    folder = tmp_path_factory.mktemp("nights") / "reports"
    for day in range(1, 13):
        encoder = replace(FINE, minimum_budget=0.04 * day * FINE.budget) if day < 11 else OFF
        odd = check("neck", case=SCRIPT, record="r&d")
        new = {"engine": "mmdet3", "torch": "2.13.0" if day < 8 else "2.14.0"}
        results = (check("encoder", encoder), check("encoder", mode="cascade"), check("decoder"), odd)
        when = f"2026-11-{day:02}T02:00:00+00:00"
        run = run_of(*results, when=when, commit=f"c{day // 4}", new=new)
        (written(folder / when[:10], run) / "index.html").write_text("<title>the run</title>")
        engine = {"figures": {"AP": 41.0 + day / 100}}
        ap = {"case": "ddq_fcn_r50_12e", "problems": [], "legacy": engine, "new": engine, "detections": {"share": 1.0}}
        (folder / when[:10] / "ap.json").write_text(json.dumps([ap]))
    return update_history(folder)


def show(window: Window, path: Path, *, width: int = DESK, dark: bool = False) -> Page:
    page = window.show(path, width=width, dark=dark)
    expect(page.locator("html[data-drawn]")).to_have_count(1)
    return page


@pytest.fixture(params=[DESK, PHONE])
def opened(window: Window, page_path: Path, request: pytest.FixtureRequest) -> Page:
    """Open the history in a window of that width."""
    return show(window, page_path, width=request.param)


def told(page: Page, figure: str) -> list[list[str]]:
    """Return the cells of the figures as text, once they are of what was chosen."""
    text = page.locator("#text")
    expect(text).to_have_value(re.compile(figure))
    return [line.split("\t") for line in text.input_value().splitlines()]


def test_it_draws_all_cases_and_fits_the_window(opened: Page) -> None:
    expect(opened).to_have_title("The engines are not the same · history · parity")
    expect(opened.locator("#map .ytick text", has_text=re.compile(f"^{re.escape(SCRIPT)}$"))).to_have_count(1)
    expect(opened.locator("#lines .scatterlayer .trace").nth(3)).to_be_attached()
    size = opened.viewport_size
    assert size is not None
    opened.screenshot(path=SCREENSHOTS / f"history-{size['width']}.png", full_page=True)
    width = opened.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1], "the page is wider than the window"


def test_choosing_a_case_and_a_stage_tells_those_figures(opened: Page) -> None:
    opened.select_option("#case", "ddq_detr_4scale_r50_12e")
    opened.select_option("#stage", "encoder")
    rows = told(opened, "^run\twhen\tpadded isolated fp32\tpadded cascade fp32\n")
    assert rows[1] == ["2026-11-01", "2026-11-01 02:00", "0.04", "0.25"]
    assert rows[12] == ["2026-11-12", "2026-11-12 02:00", "10 ✕", "0.25"]
    opened.select_option("#figure", "seconds")
    assert told(opened, "time of all checks")[1][-1] == "6"
    opened.select_option("#case", "all")
    opened.select_option("#figure", "ap")
    rows = told(opened, "AP legacy")
    assert rows[0][2:] == ["ddq_fcn_r50_12e AP legacy", "ddq_fcn_r50_12e AP new", "ddq_fcn_r50_12e matched"]
    assert rows[12][2:] == ["41.12", "41.12", "100"]
    opened.select_option("#span", "30")
    assert len(told(opened, "AP legacy")) == 13


def test_the_tables_narrow_down_and_lead_to_the_run(opened: Page) -> None:
    runs = opened.locator("#runs tbody tr:visible")
    opened.select_option("#which", "bad")
    expect(runs).to_have_count(2)
    opened.select_option("#which", "changed")
    expect(runs).to_have_count(1)
    expect(opened.locator("#surroundings")).to_contain_text("torch")
    opened.select_option("#which", "")
    opened.locator("#runs a").first.click()
    expect(opened).to_have_title("the run")


def test_without_plotly_the_tables_are_still_there(window: Window, page_path: Path, tmp_path: Path) -> None:
    page = show(window, Path(shutil.copy(page_path, tmp_path / "index.html")))
    expect(page.locator("#no-plotly")).to_be_visible()
    expect(page.locator("#runs tbody tr")).to_have_count(12)
    assert [line for line in window.said if "ERR_FILE_NOT_FOUND" in line] == window.said
    window.said.clear()


@pytest.mark.parametrize("dark", [False, True])
def test_both_themes_have_their_own_colours(window: Window, page_path: Path, dark: bool) -> None:
    colour = "rgb(18, 23, 29)" if dark else "rgb(255, 255, 255)"
    expect(show(window, page_path, dark=dark).locator("body")).to_have_css("background-color", colour)
