"""An operator's day in a real browser, from the login to a finished rotation and a downloaded CSV."""

from __future__ import annotations

import csv
import html
import re
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from keys.ledger_search import PAGE_ROWS
from tests.acceptance.browser import Desk, need_chromium, running_browser, screenshot_folder
from tests.acceptance.payloads import PAYLOADS, planting_code
from tests.acceptance.service import Service
from tests.sandbox import SandboxFixture

PASSWORD = "a-long-password-of-a-test"
KEYS = [f"sk-or-v1-test-desk-{name}" for name in ("alpha", "beta")]
SUCCESSOR, ADDED, IMPORTED = (f"sk-or-v1-test-desk-{name}" for name in ("gamma", "delta", "epsilon"))
MOST_BYTES_OF_HOME = 500_000


@pytest.fixture
def service(tmp_path: Path, sandbox: SandboxFixture) -> Iterator[Service]:
    need_chromium()
    for number, text in enumerate((*KEYS, SUCCESSOR, ADDED, IMPORTED)):
        sandbox.add_key(text, name=f"desk-{number}")
    variables = {
        "OPENROUTER_API_KEYS": ",".join(KEYS),
        "OPENROUTER_BASE_URL": sandbox.base_url,
        "OPENROUTER_RETRY_DELAY": "10",
        "DJANGO_SUPERUSER_USERNAME": "olivia",
        "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
        "OPENSVM_WORKERS": "1",
    }
    with Service(tmp_path, variables) as running:
        yield running


@pytest.fixture
def desk(service: Service) -> Iterator[Desk]:
    folder = screenshot_folder()
    with running_browser() as browser:
        yield Desk(browser, service.url, folder)
    print(f"Screenshots are in {folder}")


@pytest.fixture(scope="module")
def chromium() -> None:
    need_chromium()


@pytest.fixture
def sandbox_desk(chromium: None, sandbox_service: Service) -> Iterator[Desk]:
    """Logged in to a service that several tests share."""
    with running_browser() as browser:
        desk = Desk(browser, sandbox_service.url, screenshot_folder())
        desk.log_in("admin", (sandbox_service.var_dir / "admin-password").read_text().strip())
        yield desk
        desk.assert_quiet()


def ask(service: Service, client_key: str, model: str = "claude-3-opus-4") -> httpx.Response:
    body = {"model": model, "max_tokens": 20, "messages": [{"role": "user", "content": "Hello!"}]}
    return httpx.post(f"{service.url}/v1/messages", json=body, headers={"x-api-key": client_key}, timeout=20)


def test_an_operators_day(desk: Desk, service: Service, sandbox: SandboxFixture, tmp_path: Path) -> None:
    page = desk.page
    desk.go("/admin/")
    desk.picture("login")
    desk.log_in("olivia", PASSWORD)
    assert "env-1" in desk.text()
    desk.picture("home-without-traffic")

    client_key = create_client(desk)
    for _ in range(6):
        assert ask(service, client_key).status_code == 200
    sandbox.fail("rate_limited", key="desk-0", times=1, retry_after=300)
    answer = ask(service, client_key)
    ask(service, client_key)
    refused = ask(service, client_key, model="maker/no-such-model")

    look_at_home(desk)
    add_and_import(desk)
    with asking(service, client_key) as statuses:
        rotate(desk, service)
    assert Counter(statuses) == {200: len(statuses)}, "no request fails while a key is rotated"
    assert len(statuses) > 30
    look_for_a_request(desk, answer.headers["request-id"], refused.headers["request-id"])
    download_the_report(desk, tmp_path)
    choose_a_time_zone(desk)
    walk_the_rest(desk)

    desk.go("/admin/")
    page.get_by_role("button", name="Log out").click()
    page.wait_for_load_state("load")
    assert "Logged out" in desk.text()
    desk.assert_quiet()


def create_client(desk: Desk) -> str:
    desk.go("/admin/")
    desk.press("Create the first client")
    desk.page.fill("#id_name", "laptop")
    desk.press("Save")
    client_key = desk.page.inner_text("#client-key").strip()
    assert client_key.startswith("sk-ant-api03-")
    assert desk.page.get_by_role("button", name=re.compile("Copy Client key")).is_visible()
    desk.picture("client-key")
    desk.press("I have copied it")
    assert client_key not in desk.page.content()
    return client_key


def look_at_home(desk: Desk) -> None:
    desk.go("/admin/")
    desk.page.wait_for_timeout(300)
    weight = desk.page.evaluate(WEIGHT)
    print(f"Home weighs {weight:,} bytes")
    assert 100_000 < weight < MOST_BYTES_OF_HOME
    text = desk.text()
    assert "rate-limited" in text
    assert re.search(r"\d:\d\d left", desk.page.inner_text(".countdown"))
    assert "1 key benched" in text
    assert desk.page.evaluate("Object.keys(window.Chart.instances).length") == 4
    for link, name in (("24 hours", "home"), ("7 days", "home-7-days"), ("30 days", "home-30-days")):
        desk.press(link)
        desk.picture(name)
    desk.page.get_by_text("Requests in numbers").click()
    assert "answered" in desk.page.inner_text("#numbers-requests").lower()


def add_and_import(desk: Desk) -> None:
    desk.go("/admin/keys/openrouterkey/add/")
    desk.page.fill("#id_name", "added")
    desk.page.fill("#id_key_text", ADDED)
    desk.picture("key-add")
    desk.press("Save")
    assert "added" in desk.text()
    desk.go("/admin/keys/openrouterkey/import/")
    desk.page.fill("#id_pasted", f"{IMPORTED}\n{ADDED}\nnot a key")
    desk.page.fill("#id_name_pattern", "prod-{n}")
    desk.picture("import")
    desk.press("Preview")
    assert "prod-1" in desk.text()
    desk.picture("import-preview")
    desk.press("Add 1 key")
    assert "prod-1" in desk.text()
    desk.picture("keys")


@contextmanager
def asking(service: Service, client_key: str) -> Iterator[list[int]]:
    """Three clients that ask without a pause; the statuses of their answers."""
    statuses: list[int] = []
    stop = threading.Event()

    def ask_on() -> None:
        while not stop.is_set():
            statuses.append(ask(service, client_key).status_code)

    with ThreadPoolExecutor(3) as clients:
        running = [clients.submit(ask_on) for _ in range(3)]
        try:
            yield statuses
        finally:
            stop.set()
        for one in running:
            one.result(30)


def rotate(desk: Desk, service: Service) -> None:
    desk.go("/admin/keys/openrouterkey/")
    desk.page.get_by_role("link", name=re.compile(r"^env-2")).first.click()
    desk.page.wait_for_load_state("load")
    desk.picture("key")
    key_page = desk.page.url
    desk.page.goto(key_page.replace("/change/", "/rotation/"))
    desk.page.fill("#id_key_text", SUCCESSOR)
    desk.picture("rotation-start")
    desk.press("Store and check")
    assert "answers requests" in desk.text()
    desk.picture("rotation")
    desk.press("Drain env-2")
    desk.page.get_by_text("its secret is erased").wait_for(timeout=30_000)  # the page reads itself anew
    desk.picture("rotation-finished")
    desk.page.goto(key_page)
    desk.picture("key-retired")


def look_for_a_request(desk: Desk, request_id: str, refused: str) -> None:
    desk.go("/admin/keys/requestlog/")
    desk.picture("requests")
    desk.page.fill("#id_q", request_id)
    desk.press("Search")
    desk.page.locator("#content tbody th a").first.click()
    desk.page.wait_for_load_state("load")
    assert "key rate-limited" in desk.text()
    desk.picture("request")
    desk.go("/admin/keys/requestlog/?status=error&period=1h")
    desk.page.locator("#content tbody th a").first.click()
    desk.page.wait_for_load_state("load")
    assert refused in desk.text()
    desk.go("/admin/keys/requestlog/?status=504")
    assert "No request matches" in desk.text()


def download_the_report(desk: Desk, folder: Path) -> None:
    desk.go("/admin/keys/usagehour/")
    desk.page.select_option("#id_group", "client")
    desk.press("Show")
    assert "laptop" in desk.page.inner_text("#report-lines")
    shown = desk.page.inner_text("#report-lines tfoot td >> nth=4")
    desk.picture("usage")
    with desk.page.expect_download() as download:
        desk.page.get_by_role("link", name="Download CSV").click()
    path = folder / "usage.csv"
    download.value.save_as(path)
    with path.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["client"] for row in rows] == ["laptop", "total"]
    requests = int(rows[-1]["requests"])
    assert f"{requests:,}" == shown
    assert requests >= 9
    desk.page.locator("#report-lines tbody th a").first.click()
    desk.page.wait_for_load_state("load")
    assert desk.page.locator("#content tbody tr").count() == min(requests, PAGE_ROWS)
    for group in ("day", "hour", "model"):
        desk.go(f"/admin/keys/usagehour/?group={group}")
        desk.picture(f"usage-by-{group}")


def choose_a_time_zone(desk: Desk) -> None:
    desk.go("/admin/keys/requestlog/")
    desk.press("Times in UTC")
    desk.page.select_option("#id_time_zone", "Asia/Tokyo")
    desk.picture("time-zone")
    desk.press("Use it")
    assert desk.page.url.endswith("/admin/keys/requestlog/")
    assert "JST" in desk.page.inner_text("#content tbody")


def walk_the_rest(desk: Desk) -> None:
    """Every other list, the first page behind it, and its form."""
    for model in ("account", "cooldown", "client", "modelalias", "auditevent"):
        desk.go(f"/admin/keys/{model}/")
        desk.picture(f"{model}-list")
        first = desk.page.locator("#result_list tbody th a").first
        if first.count():
            first.click()
            desk.page.wait_for_load_state("load")
            desk.picture(f"{model}-page")
    for path, name in (("auth/user/", "users"), ("auth/group/add/", "group-add"), ("password_change/", "password")):
        desk.go(f"/admin/{path}")
        desk.picture(name)
    desk.go("/api/docs/")
    desk.page.get_by_text("/v1/messages", exact=True).first.wait_for()


def test_the_keyboard_reaches_what_the_mouse_does(sandbox_desk: Desk) -> None:
    desk = sandbox_desk
    desk.go("/admin/")
    desk.page.keyboard.press("Tab")
    assert desk.page.evaluate("document.activeElement.textContent.trim()") == "Skip to main content"
    for path in ("/admin/", "/admin/keys/requestlog/", "/admin/keys/usagehour/", "/admin/time-zone/"):
        desk.go(path)
        desk.page.keyboard.press("Tab")
        desk.page.keyboard.press("Enter")
        assert desk.page.evaluate("document.activeElement.id") == "content-start", path


WEIGHT = """() => ["navigation", "resource"].flatMap((kind) => performance.getEntriesByType(kind))
  .reduce((sum, entry) => sum + entry.decodedBodySize, 0)"""


def test_no_stored_text_runs_in_the_browser_or_in_a_spreadsheet(
    sandbox_desk: Desk, sandbox_service: Service, tmp_path: Path
) -> None:
    desk = sandbox_desk
    planted = sandbox_service.manage("shell", "-v", "0", "-c", planting_code()).stdout
    detail_pages = planted.split()
    assert len(PAYLOADS) == 100
    assert len(detail_pages) > 100

    lists = [
        "",
        "account",
        "cooldown",
        "client",
        "modelalias",
        "auditevent",
        "openrouterkey",
        "requestlog",
        "usagehour",
    ]
    seen = ""
    for name in lists:
        for query in ("", "p=2", "p=3", "group=client", "group=model", "group=account"):
            desk.go(f"/admin/keys/{name}/?{query}" if name else "/admin/")
            seen += desk.page.content()
    older = True
    desk.go("/admin/keys/requestlog/")
    while older:
        seen += desk.page.content()
        older = desk.page.get_by_role("link", name="Older").count() > 0
        if older:
            desk.press("Older")
    for path in detail_pages:
        desk.go(path)
        seen += desk.text()

    missing = [payload for payload in PAYLOADS if payload[:25] not in _unescaped(seen)]
    assert missing == [], "the pages were opened, but did not show these"
    assert_no_formula(desk, tmp_path)


def assert_no_formula(desk: Desk, folder: Path) -> None:
    cells: list[str] = []
    reports = [f"keys/usagehour/usage.csv?group={group}" for group in ("key", "account", "client", "model")]
    for number, path in enumerate(("keys/auditevent/csv/", *reports)):
        with desk.page.expect_download() as download:
            desk.page.evaluate("(url) => { window.location = url }", f"/admin/{path}")
        file = folder / f"{number}.csv"
        download.value.save_as(file)
        with file.open(newline="") as lines:
            cells += [cell for row in csv.reader(lines) for cell in row]
    assert sum("cmd|" in cell or "HYPERLINK" in cell for cell in cells) > 20, "the payloads are in the files"
    assert [cell for cell in cells if cell.lstrip().startswith(("=", "+", "-", "@"))] == []


def _unescaped(page: str) -> str:
    return html.unescape(page)
