"""A real browser for the tests: Debian's Chromium, headless, driven by Playwright.

Everything a page complains about is kept: a test ends with `desk.assert_quiet()`. Screenshots of what was opened go to
`BROWSER_SCREENSHOTS`, by default a folder of the temp directory, whose name is printed.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM = os.environ.get("BROWSER_CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
MISSING = "No Chromium: the browser tests are skipped. On Debian: apt-get install chromium"

try:
    from playwright.sync_api import Browser, Page, Response, sync_playwright
except ImportError:  # pragma: no cover  # the development requirements bring it
    sync_playwright = None  # type: ignore[assignment]


def need_chromium() -> None:
    if sync_playwright is None or not Path(CHROMIUM).exists():
        pytest.skip(MISSING)


@contextmanager
def running_browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS, headless=True)
        try:
            yield browser
        finally:
            browser.close()


class Desk:
    """One window on the service's admin."""

    def __init__(self, browser: Browser, url: str, screenshots: Path) -> None:
        self.url = url
        self.screenshots = screenshots
        self.complaints: list[str] = []
        self.page = browser.new_context(viewport=WIDE, accept_downloads=True).new_page()  # type: ignore[arg-type]
        self.page.set_default_timeout(15_000)
        self.page.on("console", lambda message: self._hear(message.type, message.text))
        self.page.on("pageerror", lambda error: self._hear("error", str(error)))
        self.page.on("dialog", self._refuse_dialog)
        self.page.on("response", self._look_at)

    def log_in(self, name: str, password: str) -> None:
        self.go("/admin/")
        self.page.fill("#id_username", name)
        self.page.fill("#id_password", password)
        self.press("Log in")

    def go(self, path: str) -> Page:
        self.page.goto(f"{self.url}{path}", wait_until="load")
        return self.page

    def press(self, name: str) -> None:
        """A button or a link by its whole words."""
        exact = re.compile(rf"^\s*{re.escape(name)}\s*$", re.IGNORECASE)
        button = self.page.get_by_role("button", name=exact).or_(self.page.get_by_role("link", name=exact))
        button.first.click()
        self.page.wait_for_load_state("load")

    def text(self) -> str:
        return self.page.inner_text("body")

    def picture(self, name: str) -> None:
        """The page as it is, light and dark, wide and narrow."""
        for theme in ("light", "dark"):
            self.page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
            for size, words in ((WIDE, ""), (NARROW, "-narrow")):
                self.page.set_viewport_size(size)  # type: ignore[arg-type]
                self.page.wait_for_timeout(80)  # charts are drawn anew
                self.page.screenshot(path=self.screenshots / f"{name}-{theme}{words}.png", full_page=True)
                self._assert_fits(name)
        self.page.emulate_media(color_scheme="light")
        self.page.set_viewport_size(WIDE)  # type: ignore[arg-type]

    def assert_quiet(self) -> None:
        assert self.complaints == []

    def _assert_fits(self, name: str) -> None:
        """Wide tables scroll in their own box; the page never does sideways."""
        wider = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wider <= 1, f"{name} is {wider} px wider than its window"

    def _hear(self, kind: str, text: str) -> None:
        if kind in {"error", "warning", "assert"}:
            self.complaints.append(f"{self.page.url}: {text}")

    def _refuse_dialog(self, dialog: object) -> None:
        self.complaints.append(f"{self.page.url}: a dialog was opened")
        dialog.dismiss()  # type: ignore[attr-defined]

    def _look_at(self, response: Response) -> None:
        if response.status >= 400 or "content-security-policy" not in response.headers:
            self.complaints.append(f"{response.status} {response.url}, or no content security policy")


def screenshot_folder() -> Path:
    wanted = os.environ.get("BROWSER_SCREENSHOTS", "")
    folder = Path(wanted) if wanted else Path(tempfile.gettempdir()) / "opensvm-screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
