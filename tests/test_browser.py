"""The page of a run in a real browser: Chromium, headless, driven by Playwright.

It leaves screenshots in build/screenshots.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from browser_window import DESK, PHONE, SCREENSHOTS, Window, copied
from playwright.sync_api import Browser, Page, expect
from sample_report import CASE, green, large, planted, tensor

from parity.compare.verdicts import Verdict
from parity.report.page import write_report
from parity.report.plotly import SCRIPT
from parity.report.results import DecisionResult, Report, StageResult

BAD_LINK = ".matrix tr:not(.whole) a.verdict.bad"
Open = Callable[..., Page]


@pytest.fixture
def opened(window: Window, tmp_path: Path) -> Open:
    """Return a function that writes a report and opens its page."""
    return lambda report, **look: window.show(write_report(report, tmp_path), **look)


def follow_reference(page: Page) -> None:
    """Follow the answer's link to the tensor that diverged."""
    page.locator("#answer").get_by_role("link", name="references[2]").click()
    expect(page.locator("#tensor h4")).to_contain_text("references[2]")


def test_a_green_run_says_so_in_one_screen(opened: Open) -> None:
    page = opened(green())
    expect(page.locator("h1")).to_contain_text("The engines are the same")
    matrix = page.locator("#matrix")
    expect(matrix).to_contain_text("31 %")
    assert page.get_by_text("\N{BALLOT X}").count() + page.get_by_text("\N{MULTIPLICATION X}").count() == 0
    box = matrix.bounding_box()
    assert box is not None
    assert box["y"] + box["height"] < 900


def test_stage_tensor_and_command_are_three_clicks_away(opened: Open) -> None:
    page = opened(planted())
    page.locator(BAD_LINK).first.click()
    check = page.locator("#check")
    expect(check.locator("h3")).to_contain_text("decoder float64 isolated, record padded")
    check.locator(".tensors a").first.click()
    shown = page.locator("#tensor")
    expect(shown.locator("h4")).to_contain_text("references[2]")
    command = f'pytest parity -k "{CASE}-padded-decoder-isolated-fp64-cpu"'
    expect(shown).to_contain_text(command)
    assert copied(page, shown.get_by_role("button", name="Copy command")) == command


def test_the_answer_names_all_three_without_a_click(opened: Open) -> None:
    page = opened(planted())
    answer = page.locator("#answer")
    expect(answer).to_contain_text("First to diverge: stage decoder")
    expect(answer).to_contain_text("references[2]")
    expect(answer).to_contain_text("padded-decoder-isolated-fp64-cpu")
    follow_reference(page)
    expect(page.locator("#tensor h4")).to_have_text(re.compile("^\N{MULTIPLICATION X} diverged references"))


def test_a_tensor_shows_map_histogram_and_worst_values(opened: Open) -> None:
    page = opened(planted())
    follow_reference(page)
    expect(page.locator("#tensor .js-plotly-plot")).to_have_count(2)
    expect(page.locator("#tensor .hm image")).to_have_count(1)
    expect(page.locator("#tensor .bars .point").nth(5)).to_be_attached()
    expect(page.locator("#tensor table")).to_contain_text("[1, 89, ")
    text = copied(page, page.locator("#tensor figure").first.get_by_role("button", name="Copy as text")).splitlines()
    assert text[1] == "axes 0, 1 (180) down, axis 2 (16) across"
    assert len(text) == 2 + 32


def test_the_chain_marks_the_first_stage_that_diverges(opened: Open) -> None:
    page = opened(planted())
    page.locator("#chain").scroll_into_view_if_needed()
    expect(page.locator("#chain .js-plotly-plot")).to_have_count(2)
    expect(page.locator("#chain .annotation-text")).to_have_text(["first to diverge", "first to diverge"])


def test_filters_leave_what_they_name(opened: Open) -> None:
    page = opened(planted())
    rows = page.locator("#list tbody tr")
    expect(page.locator("#verdict")).to_have_value("failed")
    assert set(page.locator("#list tbody td:first-child").all_inner_texts()) == {"decoder", "detr_head", "predict"}
    page.locator("#verdict").select_option("all")
    page.locator("#text").fill("backbone_tensor[2]")
    expect(page.locator("#count")).to_contain_text(re.compile("^6 checks of "))
    expect(rows.first).to_contain_text(re.compile("^backbone"))
    page.locator("#text").fill("no such thing")
    expect(rows).to_have_count(0)
    expect(page.locator("#list")).to_contain_text("No check is left")


def test_the_case_filter_changes_every_section(opened: Open) -> None:
    page = opened(large(cases=2, tensors=20))
    other = next(value for value in page.locator("#case option").all_inner_texts() if value != CASE)
    named = page.locator(".of-case")
    page.locator("#case").select_option(other)
    expect(named).to_have_text([other] * named.count())
    page.locator("#verdict").select_option("all")
    expect(page.locator("#list tbody tr").first).to_be_attached()


def test_the_keyboard_reaches_everything(opened: Open) -> None:
    page = opened(planted())
    focused = page.locator(":focus")
    page.locator(BAD_LINK).first.focus()
    page.keyboard.press("ArrowDown")
    expect(focused).to_have_attribute("title", re.compile("float64 cascade"))
    page.keyboard.press("Enter")
    expect(page.locator("#check h3")).to_contain_text("float64 cascade")
    expect(focused).to_have_id("check")
    page.locator(".tensors a").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#tensor")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.locator("#tensor")).to_have_count(0)
    page.keyboard.press("Escape")
    expect(page.locator("#check")).to_have_count(0)
    expect(focused).to_have_id("start")


def test_swapped_boxes_lie_on_the_image(opened: Open) -> None:
    page = opened(planted())
    expect(page.locator("#ties")).to_contain_text("came out otherwise")
    expect(page.locator("#ties tbody tr").nth(7)).to_be_attached()
    drawn = page.locator("#ties svg.boxes").first
    expect(drawn.locator("rect")).to_have_count(2)
    expect(drawn.locator("image")).to_have_count(1)
    expect(drawn.locator("rect").nth(0)).to_have_attribute("width", "128")
    expect(drawn.locator("text")).to_have_text(["17", "23 new"])


def test_training_has_its_figures(opened: Open) -> None:
    page = opened(green())
    titles = [
        "Loss terms",
        "Gradients by parameter",
        "Groups, schedule, initialisation and training data",
        "Trajectory",
    ]
    expect(page.locator("#training h3")).to_have_text(titles)
    gradients = page.locator("figure", has_text="gradients, float64, train-two-sizes: 12 parameters")
    gradients.scroll_into_view_if_needed()
    expect(gradients.locator(".point")).to_have_count(12)


@pytest.mark.parametrize("width", [DESK, PHONE])
@pytest.mark.parametrize(("made", "dark"), [(green, False), (planted, False), (planted, True)])
def test_screenshots_are_kept_and_nothing_is_wider_than_the_window(
    opened: Open, made: Callable[[], Report], width: int, dark: bool
) -> None:
    page = opened(made(), width=width, dark=dark)
    if made is planted:
        follow_reference(page)
    for figure in page.locator("figure").all():
        figure.scroll_into_view_if_needed()
        page.wait_for_timeout(60)
    expect(page.locator("#chain .js-plotly-plot")).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    red, green_, blue = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (red + green_ + blue < 200) is dark
    path = SCREENSHOTS / f"{made.__name__}-{width}-{'dark' if dark else 'light'}.png"
    page.screenshot(path=path, full_page=True)
    assert path.stat().st_size > 10_000


def test_what_looks_like_html_is_shown_as_text(opened: Open) -> None:
    evil = "</script><img src=x onerror=alert(1)><script>alert(2)</script>"
    bad = replace(tensor("a", used=4e9, look=True), name=evil, unit=evil, note=evil)
    decision = DecisionResult(evil, evil, Verdict.DIVERGED, flips=1, uncertified=1, note=evil)
    result = StageResult(evil, evil, evil, "isolated", "fp64", evil, 1.0, (bad,), (decision,), (evil,))
    page = opened(Report({"new": {evil: evil}, "records": {evil: {"legacy": {"torch": evil}}}}, (result,)))
    page.locator("#answer a.id").nth(1).click()
    expect(page.locator("#tensor h4")).to_contain_text(evil)
    page.locator("#chain").scroll_into_view_if_needed()
    expect(page.locator("#chain .ytick text")).to_have_text([evil])
    assert page.locator("img").count() == 0


def test_without_plotlys_script_the_tables_still_work(browser: Browser, tmp_path: Path) -> None:
    path = write_report(planted(), tmp_path)
    (tmp_path / SCRIPT).unlink()
    window = Window(browser)  # one of its own, since the browser complains of the missing file
    page = window.show(path)
    follow_reference(page)
    expect(page.get_by_text("This figure needs plotly.min.js beside the page").first).to_be_visible()
    expect(page.locator("#tensor table")).to_contain_text("[1, 89, ")
    window.close()


def test_a_run_of_seven_cases_with_500_tensors_each_stays_small_and_opens(opened: Open, tmp_path: Path) -> None:
    page = opened(large())
    expect(page.locator("#matrix tbody tr.whole")).to_have_count(7)
    expect(page.locator("#list tbody tr").first).to_be_attached()
    size = sum((tmp_path / name).stat().st_size for name in ("index.html", SCRIPT))
    assert size < 15e6
