"""The page of a run in a real browser: Chromium, headless, driven by Playwright.

It leaves screenshots in build/screenshots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sample_report import CASE, green, large, planted, tensor

from parity.compare.verdicts import Verdict
from parity.report.page import write_report
from parity.report.plotly import SCRIPT
from parity.report.results import DecisionResult, Report, StageResult

SCREENSHOTS = Path(__file__).resolve().parents[1] / "build" / "screenshots"  # CI keeps them
DESK, PHONE = 1280, 375
BAD_LINK = ".matrix tr:not(.whole) a.verdict.bad"


class Window:
    """Opens reports; keeps what the console said, and what was asked of a network."""

    def __init__(self, browser: Any, folder: Path) -> None:
        self.browser, self.folder = browser, folder
        self.said: list[str] = []
        self.asked: list[str] = []

    def open(
        self, report: Report, *, width: int = DESK, height: int = 900, dark: bool = False, wait: bool = True
    ) -> Any:
        path = write_report(report, self.folder)
        return self.show(path, width=width, height=height, dark=dark)

    def show(self, path: Path, *, width: int = DESK, height: int = 900, dark: bool = False) -> Any:
        context = self.browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
        )
        page = context.new_page()
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: request.url.startswith(("file:", "data:")) or self.asked.append(request.url))
        page.set_default_timeout(60_000)  # a busy machine is no failure
        page.goto(path.as_uri())
        return page


@pytest.fixture
def window(browser: Any, tmp_path: Path) -> Iterator[Window]:
    window = Window(browser, tmp_path)
    yield window
    for context in browser.contexts:
        context.close()
    assert window.said == []
    assert window.asked == []


def wait_for(locator: Any, count: int) -> None:
    """Wait until there are so many; Playwright's own way evaluates text, which the page's policy forbids."""
    for _ in range(1200):
        if locator.count() == count:
            return
        locator.page.wait_for_timeout(50)
    pytest.fail(f"{locator.count()} of {locator} where {count} were expected")


def test_a_green_run_says_so_in_one_screen(window: Window) -> None:
    page = window.open(green())
    assert page.locator("h1").inner_text().endswith("The engines are the same")
    matrix = page.locator("#matrix")
    assert "31 %" in matrix.inner_text()
    assert page.get_by_text("\N{BALLOT X}").count() + page.get_by_text("\N{MULTIPLICATION X}").count() == 0
    box = matrix.bounding_box()
    assert box["y"] + box["height"] < 900


def test_stage_tensor_and_command_are_three_clicks_away(window: Window) -> None:
    page = window.open(planted())
    page.locator(BAD_LINK).first.click()
    check = page.locator("#check")
    assert "decoder float64 isolated, record padded" in check.locator("h3").inner_text()
    check.locator(".tensors a").first.click()
    shown = page.locator("#tensor")
    assert "references[2]" in shown.locator("h4").inner_text()
    command = f'pytest parity -k "{CASE}-padded-decoder-isolated-fp64-cpu"'
    assert command in shown.inner_text()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    shown.get_by_role("button", name="Copy command").click()
    assert page.evaluate("navigator.clipboard.readText()") == command


def test_the_answer_names_all_three_without_a_click(window: Window) -> None:
    page = window.open(planted())
    answer = page.locator("#answer").inner_text()
    assert "First to diverge: stage decoder" in answer
    assert "references[2]" in answer
    assert "padded-decoder-isolated-fp64-cpu" in answer
    page.locator("#answer").get_by_role("link", name="references[2]").click()
    assert page.locator("#tensor h4").inner_text().startswith("\N{MULTIPLICATION X} diverged references[2]")


def test_a_tensor_shows_map_histogram_and_worst_values(window: Window) -> None:
    page = window.open(planted())
    page.locator("#answer").get_by_role("link", name="references[2]").click()
    wait_for(page.locator("#tensor .js-plotly-plot"), 2)
    assert page.locator("#tensor .hm image").count() == 1
    assert page.locator("#tensor .bars .point").count() > 5
    assert "[1, 89, " in page.locator("#tensor table").inner_text()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("#tensor figure").first.get_by_role("button", name="Copy as text").click()
    copied = page.evaluate("navigator.clipboard.readText()").splitlines()
    assert copied[1] == "axes 0, 1 (180) down, axis 2 (16) across"
    assert len(copied) == 2 + 32


def test_the_chain_marks_the_first_stage_that_diverges(window: Window) -> None:
    page = window.open(planted())
    page.locator("#chain").scroll_into_view_if_needed()
    wait_for(page.locator("#chain .js-plotly-plot"), 2)
    assert page.locator("#chain .annotation-text").all_text_contents() == ["first to diverge", "first to diverge"]


def test_filters_leave_what_they_name(window: Window) -> None:
    page = window.open(planted())
    rows = page.locator("#list tbody tr")
    assert page.locator("#verdict").input_value() == "failed"
    assert set(page.locator("#list tbody td:first-child").all_inner_texts()) == {"decoder", "detr_head", "predict"}
    page.locator("#verdict").select_option("all")
    page.locator("#text").fill("backbone_tensor[2]")
    assert page.locator("#count").inner_text().startswith("6 checks of ")
    assert rows.first.inner_text().startswith("backbone")
    page.locator("#text").fill("no such thing")
    assert rows.count() == 0
    assert "No check is left" in page.locator("#list").inner_text()


def test_the_case_filter_changes_every_section(window: Window) -> None:
    page = window.open(large(cases=2, tensors=20))
    other = next(value for value in page.locator("#case option").all_inner_texts() if value != CASE)
    page.locator("#case").select_option(other)
    assert set(page.locator(".of-case").all_inner_texts()) == {other}
    page.locator("#verdict").select_option("all")
    assert page.locator("#list tbody tr").count() > 0


def test_the_keyboard_reaches_everything(window: Window) -> None:
    page = window.open(planted())
    page.locator(BAD_LINK).first.focus()
    page.keyboard.press("ArrowDown")
    assert "float64 cascade" in page.evaluate("document.activeElement.title")
    page.keyboard.press("Enter")
    assert "float64 cascade" in page.locator("#check h3").inner_text()
    assert page.evaluate("document.activeElement.id") == "check"
    page.locator(".tensors a").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.locator("#tensor").count() == 1
    page.keyboard.press("Escape")
    wait_for(page.locator("#tensor"), 0)
    page.keyboard.press("Escape")
    wait_for(page.locator("#check"), 0)
    assert page.evaluate("document.activeElement.id") == "start"


def test_swapped_boxes_lie_on_the_image(window: Window) -> None:
    page = window.open(planted())
    assert "came out otherwise" in page.locator("#ties").inner_text()
    assert page.locator("#ties tbody tr").count() >= 8
    drawn = page.locator("#ties svg.boxes").first
    drawn.locator("rect").first.wait_for()
    assert (drawn.locator("rect").count(), drawn.locator("image").count()) == (2, 1)
    assert drawn.locator("rect").nth(0).get_attribute("width") == "128"
    assert drawn.locator("text").all_text_contents() == ["17", "23 new"]


def test_training_has_its_figures(window: Window) -> None:
    page = window.open(green())
    titles = page.locator("#training h3").all_inner_texts()
    assert titles == [
        "Loss terms",
        "Gradients by parameter",
        "Groups, schedule, initialisation and training data",
        "Trajectory",
    ]
    gradients = page.locator("figure", has_text="gradients, float64, train-two-sizes: 12 parameters")
    gradients.scroll_into_view_if_needed()
    wait_for(gradients.locator(".point"), 12)


@pytest.mark.parametrize("width", [DESK, PHONE])
@pytest.mark.parametrize(("made", "dark"), [(green, False), (planted, False), (planted, True)])
def test_screenshots_are_kept_and_nothing_is_wider_than_the_window(
    window: Window, made: Callable[[], Report], width: int, dark: bool
) -> None:
    page = window.open(made(), width=width, dark=dark)
    if made is planted:
        page.locator("#answer").get_by_role("link", name="references[2]").click()
    for figure in page.locator("figure").all():
        figure.scroll_into_view_if_needed()
        page.wait_for_timeout(60)
    wait_for(page.locator("#chain .js-plotly-plot"), 2)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    red, green_, blue = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (red + green_ + blue < 200) is dark
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    path = SCREENSHOTS / f"{made.__name__}-{width}-{'dark' if dark else 'light'}.png"
    page.screenshot(path=path, full_page=True)
    assert path.stat().st_size > 10_000


def test_what_looks_like_html_is_shown_as_text(window: Window) -> None:
    evil = "</script><img src=x onerror=alert(1)><script>alert(2)</script>"
    bad = replace(tensor("a", used=4e9, look=True), name=evil, unit=evil, note=evil)
    decision = DecisionResult(evil, evil, Verdict.DIVERGED, flips=1, uncertified=1, note=evil)
    result = StageResult(evil, evil, evil, "isolated", "fp64", evil, 1.0, (bad,), (decision,), (evil,))
    page = window.open(Report({"new": {evil: evil}, "records": {evil: {"legacy": {"torch": evil}}}}, (result,)))
    page.on("dialog", lambda dialog: window.said.append("a dialog opened"))
    page.locator("#answer a.id").nth(1).click()
    assert evil in page.locator("#tensor h4").inner_text()
    assert page.locator("img").count() == 0
    page.locator("#chain").scroll_into_view_if_needed()
    wait_for(page.locator("#chain .ytick"), 1)
    assert page.locator("#chain .ytick text").all_text_contents() == [evil]


def test_without_plotlys_script_the_tables_still_work(browser: Any, tmp_path: Path) -> None:
    path = write_report(planted(), tmp_path)
    (tmp_path / SCRIPT).unlink()
    page = Window(browser, tmp_path).show(path)
    page.locator("#answer").get_by_role("link", name="references[2]").click()
    page.get_by_text("This figure needs plotly.min.js beside the page").first.wait_for()
    assert "[1, 89, " in page.locator("#tensor table").inner_text()
    page.context.close()


def test_a_run_of_seven_cases_with_500_tensors_each_stays_small_and_opens(window: Window) -> None:
    page = window.open(large())
    assert page.locator("#matrix tbody tr.whole").count() == 7
    assert page.locator("#list tbody tr").count() > 0
    size = sum((window.folder / name).stat().st_size for name in ("index.html", SCRIPT))
    assert size < 15e6
