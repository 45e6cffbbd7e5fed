"""Every page of a desk with a past, in a real browser: looked at, fitting, legible, named for who can't see it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.acceptance.browser import Desk, need_chromium, running_browser, screenshot_folder
from tests.acceptance.service import Service

ERRORS = {"error-404": "/admin/keys/nothing/", "error-400": "/admin/keys/openrouterkey/?secret__startswith=a"}


@pytest.fixture(scope="module")
def pages(sandbox_service: Service) -> dict[str, str]:
    """The addresses of the pages by their names, once what they show is there."""
    need_chromium()
    code = "from tests.acceptance.busy_desk import make; make()"
    return {"home": "/admin/", **json.loads(sandbox_service.manage("shell", "-v", "0", "-c", code).stdout)}


@pytest.fixture
def desk(pages: dict[str, str], sandbox_service: Service) -> Iterator[Desk]:
    with running_browser() as browser:
        desk = Desk(browser, sandbox_service.url, screenshot_folder())
        desk.log_in("admin", (sandbox_service.var_dir / "admin-password").read_text().strip())
        yield desk


def test_every_page_is_fit_to_be_seen(desk: Desk, pages: dict[str, str]) -> None:
    for name, path in pages.items():
        desk.go(path)
        desk.picture(f"busy-{name}")
    desk.assert_quiet()


def test_a_page_of_an_error_is_one_of_ours(desk: Desk) -> None:
    for name, path in ERRORS.items():
        desk.go(path)
        desk.picture(name)
    allowed = ("400 ", "404 ", "Failed to load resource")
    assert [one for one in desk.complaints if not any(words in one for words in allowed)] == []


def test_an_auditor_sees_reports_and_no_buttons(desk: Desk) -> None:
    desk.page.get_by_role("button", name="Log out").click()
    desk.log_in("audrey", "a-long-password-of-a-test")
    desk.picture("auditor-home")
    assert desk.page.get_by_role("button", name="Disable").count() == 0
    desk.go("/admin/keys/requestlog/")
    desk.picture("auditor-requests")
    desk.assert_quiet()
    assert desk.page.goto(f"{desk.url}/admin/keys/openrouterkey/").status == 403  # type: ignore[union-attr]
    desk.picture("error-403")


def test_home_says_when_it_can_not_be_read_any_more(desk: Desk) -> None:
    desk.page.clock.install()
    desk.go("/admin/")
    notice = desk.page.locator("[data-stale]")
    link = desk.page.locator("#pool a").first
    link.focus()
    assert notice.is_hidden()

    desk.page.route("**/admin/", lambda route: route.abort())
    desk.page.clock.run_for(16_000)
    notice.wait_for(state="visible")
    assert "0:1" in notice.inner_text()
    desk.picture("home-stale")

    desk.page.unroute("**/admin/")
    desk.page.clock.run_for(16_000)
    notice.wait_for(state="hidden")
    assert desk.page.evaluate("document.activeElement.getAttribute('href')") == link.get_attribute("href")
