"""How large the page of a large run is, and how long Chromium takes to open it.

    python benchmarks/open_report.py [--cases 7] [--tensors 500] [--times 5]

"Opened" is when the page's script is done: answer, matrix and checks are there, and links work. The figures in sight
follow once Plotly's script is read. Each is the best of several fresh pages, told beside an empty page of the same
browser.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from sample_report import large

from parity.report.page import write_report
from parity.report.results import Report

LIMIT_SECONDS, LIMIT_MB = 2.0, 15.0
OPENED = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd / 1000"


def main() -> None:
    options = arguments()
    report = large(cases=options.cases, tensors=options.tensors)
    tensors = sum(len(result.tensors) for result in report.results)
    print(f"{options.cases} cases, {len(report.results)} checks, {tensors:,} tensors in all")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = write_report(report, Path(folder) / "large")
        empty = write_report(Report({}), Path(folder) / "empty")
        size = sum(path.stat().st_size for path in page.parent.iterdir() if path.name != "results.json") / 1e6
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        nothing = min(measure(browser, empty, "h1", "h1")[0] for _ in range(options.times))
        found = [measure(browser, page, "#chain", "#chain .point") for _ in range(options.times)]
        browser.close()
    opened, drawn = (min(each) for each in zip(*found, strict=True))
    print(f"page and script  {size:6.1f} MB  ({size / LIMIT_MB:.2f} of the limit)")
    print(f"opened           {opened:6.2f} s   ({opened / LIMIT_SECONDS:.2f} of the limit; empty page {nothing:.2f} s)")
    print(f"figures in sight {drawn:6.2f} s   ({drawn / LIMIT_SECONDS:.2f} of the limit)")


def measure(browser: Any, path: Path, seen: str, last: str) -> tuple[float, float]:
    """Return the seconds until a page is opened, and until, with a part of it in sight, something is drawn there."""
    page = browser.new_page(viewport={"width": 1280, "height": 1400})
    page.goto(path.as_uri())
    page.locator(seen).scroll_into_view_if_needed()
    page.locator(last).first.wait_for(state="attached")
    seconds = page.evaluate(OPENED), page.evaluate("performance.now() / 1000")
    page.close()
    return seconds


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=7)
    parser.add_argument("--tensors", type=int, default=500)
    parser.add_argument("--times", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
