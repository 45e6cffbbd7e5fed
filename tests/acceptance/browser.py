"""A real browser for the tests: Debian's Chromium, headless, driven by Playwright.

Everything a page complains about is kept: a test ends with `desk.assert_quiet()`. Screenshots of what was opened go to
`BROWSER_SCREENSHOTS`, four of each; without it two of each to a folder of the temp directory, whose name is printed.
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
SCREENSHOTS = "BROWSER_SCREENSHOTS"
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
LOOKS = (("light", WIDE, ""), ("light", NARROW, "-narrow"), ("dark", WIDE, ""), ("dark", NARROW, "-narrow"))
MISSING = "No Chromium: the browser tests are skipped. On Debian: apt-get install chromium"

# Of the page: wide tables scroll in their own box, the page never does sideways.
TOO_WIDE = """() => [document.documentElement.scrollWidth - document.documentElement.clientWidth]
  .filter((wider) => wider > 1)"""
# What lies on top of something else: buttons, notices and headings take no part in each other's place.
OVERLAPPING = """() => {
  const kinds = "#content :is(h1, h2), .object-tools a, .notice, .row-actions .button, .messagelist li, .submit-row";
  const all = [...document.querySelectorAll(kinds)];
  const inked = (one) => {
    const range = document.createRange();
    range.selectNodeContents(one);
    return (/^H[12]$/.test(one.tagName) ? range : one).getBoundingClientRect();
  };
  const boxes = all.map((one) => [one, inked(one)]).filter(([, box]) => box.width && box.height);
  const meet = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 2
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2;
  return boxes.flatMap(([one, box], at) => boxes.slice(at + 1)
    .filter(([other, its]) => !one.contains(other) && !other.contains(one) && meet(box, its))
    .map(([other]) => [one.textContent.trim().slice(0, 40), other.textContent.trim().slice(0, 40)]));
}"""
# Texts of less than WCAG's 4.5 to 1 against their ground.
FAINT = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => [r, g, b].map((v) => linear(v / 255))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] > 0.5) return colour;
    }
    return [255, 255, 255];
  };
  const hasText = (one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  const kinds = "span, strong, .notice, .next-step, .quiet, dt, dd, p, li, td, th, label, a, h1, h2, .help";
  return [...document.querySelectorAll(`:is(#content, .alone main) :is(${kinds})`)]
    .filter((one) => one.checkVisibility() && hasText(one))
    .map((one) => {
      const [a, b] = [light(parse(getComputedStyle(one).color)), light(ground(one))].sort((x, y) => y - x);
      return [one.tagName + "." + one.className, one.textContent.trim().slice(0, 40), (a + 0.05) / (b + 0.05)];
    })
    .filter(([, , ratio]) => ratio < 4.5);
}"""
NAMELESS = """() => [...document.querySelectorAll("#content :is(input, select, textarea, canvas)")]
  .filter((one) => !["hidden", "submit"].includes(one.type))
  .filter((one) => one.checkVisibility() && !one.labels?.length && !one.getAttribute("aria-label")
    && !one.getAttribute("aria-labelledby"))
  .map((one) => one.outerHTML.slice(0, 120))"""
UNHEADED = """() => [...document.querySelectorAll("#content table:not(.calendar) thead th:not([scope])")]
  .map((one) => one.outerHTML.slice(0, 80))"""
TWICE = """() => {
  const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
  return ids.filter((id, at) => ids.indexOf(id) !== at);
}"""
ONE_HEADING = """() => [[...document.querySelectorAll("h1")].map((one) => one.textContent)]
  .filter((headings) => headings.length !== 1)"""
LOOKED_AT = (TOO_WIDE, OVERLAPPING, FAINT)
READ_ALOUD = (NAMELESS, ONE_HEADING, UNHEADED, TWICE)  # what a screen reader needs

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
        """The page as it is: wide and light, narrow and dark; all four where somebody has asked for screenshots."""
        for theme, size, words in LOOKS if os.environ.get(SCREENSHOTS) else (LOOKS[0], LOOKS[-1]):
            self.page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
            self.page.set_viewport_size(size)  # type: ignore[arg-type]
            self.page.evaluate("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
            self.page.screenshot(path=self.screenshots / f"{name}-{theme}{words}.png", full_page=True)
            self._complain(f"{name}-{theme}{words}", ("wider than its window", "overlapping", "faint"), LOOKED_AT)
        self.page.emulate_media(color_scheme="light")
        self.page.set_viewport_size(WIDE)  # type: ignore[arg-type]

        self._complain(name, ("without a name", "not one h1", "without a scope", "two of one id"), READ_ALOUD)

    def assert_quiet(self) -> None:
        assert not self.complaints, "\n".join(self.complaints)

    def _complain(self, name: str, words: tuple[str, ...], checks: tuple[str, ...]) -> None:
        """Of what the checks find on the page that is open."""
        for word, check in zip(words, checks, strict=True):
            self.complaints += [f"{name}: {word}: {found}" for found in self.page.evaluate(check)]

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
    wanted = os.environ.get(SCREENSHOTS, "")
    folder = Path(wanted) if wanted else Path(tempfile.gettempdir()) / "opensvm-screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
