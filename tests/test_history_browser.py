"""The history in a real browser: it draws, filters and tells its figures, without an error and without a network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_tools import FINE, OFF, SCRIPT, check, run_of, written

from parity.report.history_page import update_history

SCREENSHOTS = Path(__file__).resolve().parents[1] / "build" / "screenshots"  # CI keeps them


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


@pytest.fixture(params=[1280, 375])
def opened(browser: Any, page_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Open the page; fail if it reports an error or asks for anything but its own files."""
    page = browser.new_page(viewport={"width": request.param, "height": 900})
    errors: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_path.as_uri())
    page.wait_for_selector("html[data-drawn]", timeout=20000)
    yield page
    assert errors == []
    assert asked
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked), asked
    page.close()


def test_it_draws_all_cases_and_fits_the_window(opened: Any) -> None:
    assert opened.title() == "The engines are not the same · history · parity"
    rows = opened.locator("#map .yaxislayer-above text, #map .ytick text").all_text_contents()
    assert SCRIPT in rows
    assert opened.locator("#lines .scatterlayer .trace").count() >= 4
    opened.screenshot(path=SCREENSHOTS / f"history-{opened.viewport_size['width']}.png", full_page=True)
    width = opened.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1], "the page is wider than the window"


def test_choosing_a_case_and_a_stage_tells_those_figures(opened: Any) -> None:
    opened.select_option("#case", "ddq_detr_4scale_r50_12e")
    opened.select_option("#stage", "encoder")
    rows = [line.split("\t") for line in opened.locator("#text").input_value().splitlines()]
    assert rows[0] == ["run", "when", "padded isolated fp32", "padded cascade fp32"]
    assert rows[1] == ["2026-11-01", "2026-11-01 02:00", "0.04", "0.25"]
    assert rows[12] == ["2026-11-12", "2026-11-12 02:00", "10 ✕", "0.25"]
    opened.select_option("#figure", "seconds")
    assert opened.locator("#text").input_value().splitlines()[1].endswith("\t6")
    opened.select_option("#case", "all")
    opened.select_option("#figure", "ap")
    rows = [line.split("\t") for line in opened.locator("#text").input_value().splitlines()]
    assert rows[0][2:] == ["ddq_fcn_r50_12e AP legacy", "ddq_fcn_r50_12e AP new", "ddq_fcn_r50_12e matched"]
    assert rows[12][2:] == ["41.12", "41.12", "100"]
    opened.select_option("#span", "30")
    assert len(opened.locator("#text").input_value().splitlines()) == 13


def test_the_tables_narrow_down_and_lead_to_the_run(opened: Any) -> None:
    opened.select_option("#which", "bad")
    assert opened.locator("#runs tbody tr:visible").count() == 2
    opened.select_option("#which", "changed")
    assert opened.locator("#runs tbody tr:visible").count() == 1
    assert "torch" in opened.locator("#surroundings").inner_text()
    opened.select_option("#which", "")
    opened.locator("#runs a").first.click()
    assert opened.title() == "the run"


def test_without_plotly_the_tables_are_still_there(browser: Any, page_path: Path, tmp_path: Path) -> None:
    alone = Path(shutil.copy(page_path, tmp_path / "index.html"))
    page = browser.new_page()
    page.goto(alone.as_uri())
    page.wait_for_selector("html[data-drawn]", timeout=20000)
    assert page.locator("#no-plotly").is_visible()
    assert page.locator("#runs tbody tr").count() == 12
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_themes_have_their_own_colours(browser: Any, page_path: Path, scheme: str) -> None:
    page = browser.new_page(color_scheme=scheme)
    page.goto(page_path.as_uri())
    page.wait_for_selector("html[data-drawn]", timeout=20000)
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colour == {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 23, 29)"}[scheme]
    page.close()
