"""A window of the browser for tests of the pages: what it complains of, and whatever it asks of a network, fails."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

DESK, PHONE = 1280, 375
TIMEOUT = 60_000  # milliseconds: a busy machine is no failure
LOCAL = ("file:", "data:", "blob:")
SCREENSHOTS = Path(__file__).resolve().parents[1] / "build" / "screenshots"  # CI keeps them
expect.set_options(timeout=TIMEOUT)


class Window:
    """Opens pages; keeps what the console said, and what was asked of a network.

    A page follows a click or a key a moment later, so tests ask through Playwright's `expect`, which waits.
    """

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.contexts: list[BrowserContext] = []
        self.said: list[str] = []
        self.asked: list[str] = []

    def show(self, path: Path, *, width: int = DESK, height: int = 900, dark: bool = False) -> Page:
        """Open the file; return Playwright's page."""
        context = self.browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
        )
        self.contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("dialog", lambda dialog: self.said.append("a dialog opened"))
        page.on("request", lambda request: request.url.startswith(LOCAL) or self.asked.append(request.url))
        page.set_default_timeout(TIMEOUT)
        page.goto(path.as_uri())
        return page

    def close(self) -> None:
        for context in self.contexts:
            context.close()


WHAT_WAS_COPIED = """async () => {
    for (let i = 0; i < 600; i++) {
        const text = await navigator.clipboard.readText();
        if (text) return text;
        await new Promise(resolve => setTimeout(resolve, 100));
    }
    return "nothing was copied";
}"""


def copied(page: Page, button: Locator) -> str:
    """Press a button that copies; return what the clipboard then holds."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate("navigator.clipboard.writeText('')")
    button.click()
    text: str = page.evaluate(WHAT_WAS_COPIED)
    return text
