"""Home: the pool, what needs attention, and the charts with their tables."""

from __future__ import annotations

import datetime as dt
import json
import re
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from django.urls import reverse
from django.utils import timezone

from keys.causes import Cause
from keys.models import InFlight
from tests.integration.admin.builders import build_account, build_client, build_cooldown, build_key, build_request
from tests.integration.admin.test_admin_keys import text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User
    from django.test import Client

pytestmark = pytest.mark.django_db

HOME = "admin:index"


def home(desk: Client, **query: str) -> str:
    return text_of(desk.get(reverse(HOME), query))


def chart_in(page: str, name: str) -> dict[str, Any]:
    text = re.findall(rf'(?s)<script id="chart-{name}" type="application/json">(.*?)</script>', page)[0]
    return dict(json.loads(text))


def test_the_strip_shows_state_countdown_traffic_and_check(desk: Client) -> None:
    key, client = build_key("work", checked_at=timezone.now(), check_error=""), build_client()
    build_request(client, key, cost_nano=12_000)
    InFlight.objects.create(id=uuid.uuid4(), client=client, key=key, model="m", started_at=timezone.now())
    cooldown = build_cooldown(key=key, minutes=4)

    page = home(desk)

    assert f'data-until="{cooldown.until.isoformat()}"' in page
    assert re.search(r'>(4:00|3:5\d) left</strong> <span class="reason">until \d\d:\d\d:\d\d UTC</span>', page)
    assert re.search(r"<dt>in flight</dt><dd>1</dd>", page)
    assert re.search(r"<dt>requests today</dt><dd>1</dd>", page)
    assert re.search(r"<dt>cost today</dt><dd>\$0\.000012</dd>", page)
    assert "check ok" in page


def test_a_failed_check_and_a_missing_one_are_told_apart(desk: Client) -> None:
    build_key("a", checked_at=timezone.now(), check_error="HTTP 500")
    build_key("b")

    page = home(desk)

    assert "check failed" in page
    assert "not checked yet" in page
    assert "The last check of 1 key failed" in page


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"state": "invalid"}, "1 key refused by OpenRouter (invalid)"),
        ({"rotates_at": timezone.now() - dt.timedelta(days=1)}, "1 key due for rotation: 90 days are over"),
        ({"rotates_at": timezone.now() + dt.timedelta(days=3)}, "1 key due for rotation within 7 d"),
    ],
    ids=["invalid", "due", "due soon"],
)
def test_what_needs_attention_is_named_and_linked(desk: Client, values: dict[str, Any], words: str) -> None:
    key = build_key("work", **values)

    page = home(desk)

    (line,) = re.findall(rf"(?s)<li>[^/]*?</span>{re.escape(words)}.*?</li>", page)
    assert reverse("admin:keys_openrouterkey_change", args=[key.pk]) in line


def test_many_benched_keys_are_counted(desk: Client) -> None:
    account = build_account()
    for _ in range(7):
        build_key(account=account)
    build_cooldown(account=account, cause=Cause.OUT_OF_CREDIT)

    page = home(desk)

    assert "7 keys benched" in page
    assert "and 2 more" in page
    assert "one OpenRouter account" in page


def test_unknown_costs_are_told_with_their_age(desk: Client) -> None:
    client, key = build_client(), build_key()
    build_request(client, key, cost_nano=None, cost_source="unknown")
    now = timezone.now()
    build_request(client, key, cost_nano=None, cost_source="unknown", created_at=now - dt.timedelta(days=3))

    assert "2 requests of the last 30 days without a known cost, 1 of them older than a day" in home(desk)


def test_a_pool_without_trouble_says_so(desk: Client) -> None:
    build_key()

    assert "no key is benched, refused or due for rotation" in home(desk)


def test_the_charts_have_the_numbers_of_their_tables(desk: Client) -> None:
    client, key = build_client(), build_key()
    build_request(client, key, latency_ms=80)
    build_request(client, key, latency_ms=80, status=529, error_type="overloaded_error", cause="provider_busy")

    page = home(desk)

    requests = {series["name"]: series["values"] for series in chart_in(page, "requests")["series"]}
    assert (requests["answered"][-1], requests["errors"][-1]) == (1, 1)
    assert len(chart_in(page, "requests")["labels"]) == 24
    assert chart_in(page, "errors")["series"][0]["name"] == "provider or model busy"
    assert chart_in(page, "latency")["series"][1]["values"][-1] == 95
    assert chart_in(page, "cost")["series"][0]["values"][-1] == pytest.approx(2 * 0.012345678)
    for name in ("requests", "cost", "errors", "latency"):
        table = page.split(f'id="numbers-{name}"')[1].split("</table>")[0]
        assert table.count('scope="row"') == 24


@pytest.mark.parametrize(("period", "steps"), [("7d", 29), ("30d", 31), ("never", 24)])
def test_other_periods_are_drawn_in_longer_steps(desk: Client, period: str, steps: int) -> None:
    build_request(build_client(), build_key())

    labels = chart_in(home(desk, period=period), "requests")["labels"]

    assert steps - 1 <= len(labels) <= steps


def test_who_may_not_see_requests_sees_no_charts(client: Client, new_user: Callable[..., User]) -> None:
    build_request(build_client(), build_key("work"))
    client.force_login(new_user("vera", "view_openrouterkey"))

    page = home(client)

    assert "work" in page
    assert "chart-requests" not in page


def test_home_without_traffic_says_how_it_begins(desk: Client) -> None:
    build_key()
    build_client()

    page = home(desk)

    assert "POST /v1/messages" in page
    assert "chart.umd" not in page


def test_times_are_shown_in_the_chosen_zone(desk: Client) -> None:
    build_request(build_client(), build_key(), created_at=timezone.now())
    chosen = desk.post(reverse("admin:time_zone"), {"time_zone": "Asia/Tokyo", "next": "/admin/keys/requestlog/"})

    page = text_of(desk.get(reverse("admin:keys_requestlog_changelist")))

    assert chosen["Location"] == "/admin/keys/requestlog/"
    assert " JST</span>" in page
    assert "Times in Asia/Tokyo" in page
    assert timezone.get_current_timezone_name() == "UTC"  # only that request was


@pytest.mark.parametrize("back", ["https://example.invalid/", "//example.invalid/", "javascript:alert(1)", ""])
def test_the_choice_of_a_zone_leads_to_no_other_site(desk: Client, back: str) -> None:
    answer = desk.post(reverse("admin:time_zone"), {"time_zone": "Europe/Berlin", "next": back})

    assert answer["Location"] == reverse(HOME)


@pytest.mark.parametrize("name", ["Mars/Base", "", "../../etc/passwd", "UTC\r\nSet-Cookie: a=b"])
def test_a_zone_that_does_not_exist_is_not_taken(desk: Client, name: str) -> None:
    answer = desk.post(reverse("admin:time_zone"), {"time_zone": name})
    desk.cookies["opensvm_time_zone"] = name.replace("\r\n", " ")

    assert answer.status_code == 200
    assert "Times in UTC" in text_of(desk.get(reverse(HOME)))


def test_home_says_when_its_today_began(desk: Client) -> None:
    build_key()

    assert "it began at 00:00:00 UTC" in home(desk)
    desk.cookies["opensvm_time_zone"] = "Asia/Tokyo"
    assert re.search(r"it began at (\d{4}-\d\d-\d\d 09:00|09:00:00) JST", home(desk))


@pytest.mark.parametrize(
    "url", ["/admin/", "/admin/login/", "/healthz", "/static/keys/admin.css", "/nothing", "/api/usage", "/"]
)
def test_every_answer_has_the_content_security_policy(desk: Client, url: str) -> None:
    answer = desk.get(url)
    answer.close()

    policy = answer["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
