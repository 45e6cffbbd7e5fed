"""The read-only pages: requests, cooldowns, usage and audit."""

from __future__ import annotations

import datetime as dt
import html
import re
import uuid
from typing import TYPE_CHECKING

import pytest
from django.urls import reverse
from django.utils import timezone

from keys import ledger_search
from keys.admin import trail
from keys.admin.paginator import CappedPaginator
from keys.causes import Cause
from tests.integration.admin.builders import (
    build_account,
    build_attempt,
    build_client,
    build_cooldown,
    build_key,
    build_request,
)
from tests.integration.admin.test_admin_keys import text_of

if TYPE_CHECKING:
    from django.test import Client

    from keys.models import RequestLog

pytestmark = pytest.mark.django_db

LIST = "admin:keys_requestlog_changelist"
USAGE = "admin:keys_usagehour_changelist"


def page_of(request: RequestLog) -> str:
    return reverse("admin:keys_requestlog_change", args=[request.pk])


def listed(desk: Client, **query: str) -> str:
    return text_of(desk.get(reverse(LIST), query))


def test_a_request_is_listed_with_what_it_came_to(desk: Client) -> None:
    key, client = build_key("work"), build_client("phone")
    build_request(client, key, cost_nano=123_456)

    page = listed(desk)

    for text in ("phone", "work (...", "claude-3-opus-20240229", "anthropic/claude-3-opus", "$0.000123456", "reported"):
        assert text in page
    assert "1,200 / 340" in page
    assert "2,150 ms" in page


def test_an_unknown_cost_is_not_shown_as_zero(desk: Client) -> None:
    request = build_request(build_client(), build_key(), cost_nano=None, cost_source="unknown")

    assert "unknown" in listed(desk)
    assert "$0.00" not in text_of(desk.get(page_of(request)))


def test_a_request_shows_every_failed_attempt(desk: Client) -> None:
    keys = [build_key(), build_key()]
    request = build_request(build_client(), keys[1], attempts=3)
    build_attempt(request, keys[0], 1, detail="limit of the minute")
    build_attempt(request, keys[1], 2, status=None, cause=Cause.NOT_SENT, detail="no route")

    page = text_of(desk.get(page_of(request)))

    for text in ("limit of the minute", "no route", "no answer", "connection failed before the request was sent"):
        assert text in page


def test_rows_whose_client_and_keys_are_missing_are_shown(desk: Client) -> None:
    request = build_request(build_client(), build_key())
    gone = uuid.uuid4()
    type(request).objects.update(client_id=gone, key_id=gone)
    attempt = build_attempt(request, build_key())
    type(attempt).objects.update(key_id=gone)

    assert f"missing ({gone})" in listed(desk)
    assert f"missing ({gone})" in text_of(desk.get(page_of(request)))


def test_a_request_that_found_no_key_says_so(desk: Client) -> None:
    request = build_request(build_client(), None, status=529, cause=Cause.NO_KEY, attempts=0, model_sent="")

    assert "none was free" in listed(desk)
    assert "no key was asked" in text_of(desk.get(page_of(request)))


@pytest.mark.parametrize(
    "query",
    [
        {"status": "429"},
        {"status": "4xx"},
        {"status": "error"},
        {"cause": "key_rate_limited"},
        {"key": "KEY"},
        {"model": "the-bad-one"},
    ],
    ids=["status", "class of status", "any error", "cause", "key", "model"],
)
def test_requests_are_filtered(desk: Client, query: dict[str, str]) -> None:
    client, key = build_client(), build_key()
    build_request(client, build_key(), model_asked="the-good-one")
    build_request(client, key, model_asked="the-bad-one", status=429, cause=Cause.KEY_RATE_LIMITED)

    page = listed(desk, **{name: str(key.pk) if value == "KEY" else value for name, value in query.items()})

    assert ("the-bad-one" in page, "the-good-one" in page) == (True, False)


def test_requests_are_filtered_by_client_and_period(desk: Client) -> None:
    old = uuid.UUID(int=int((timezone.now() - dt.timedelta(hours=2)).timestamp() * 1000) << 80)
    phone, laptop = build_client("phone"), build_client("laptop")
    build_request(phone, None, model_asked="of-phone", id=old)
    build_request(laptop, None, model_asked="of-laptop")

    by_client = listed(desk, client=str(phone.pk))
    by_period = listed(desk, period="1h")

    assert ("of-phone" in by_client, "of-laptop" in by_client) == (True, False)
    assert ("of-phone" in by_period, "of-laptop" in by_period) == (False, True)


@pytest.mark.parametrize("field", ["request_id", "generation_id", "id"])
def test_a_request_is_found_by_its_whole_id(desk: Client, field: str) -> None:
    client = build_client()
    wanted = build_request(client, None, model_asked="wanted", generation_id="gen-123")
    build_request(client, None, model_asked="other-one", generation_id="gen-124")

    page = listed(desk, q=f" {getattr(wanted, field)} ")

    assert (">wanted<" in page.replace(" <", "<"), "other-one" in page) == (True, False)


def test_a_part_of_an_id_finds_nothing(desk: Client) -> None:
    build_request(build_client(), None, generation_id="gen-123")

    assert "No request matches" in listed(desk, q="gen-12")


def test_the_list_neither_counts_the_table_nor_asks_for_distinct_rows(desk: Client) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    client = build_client()
    for _ in range(3):
        build_request(client, None)

    with CaptureQueriesContext(connection) as queries:
        listed(desk, client=str(client.pk), status="ok")

    of_ledger = [query["sql"] for query in queries.captured_queries if '"keys_requestlog"' in query["sql"]]
    assert len(of_ledger) == 1
    assert "DISTINCT" not in of_ledger[0]
    assert "COUNT" not in of_ledger[0]
    assert "LIMIT 51" in of_ledger[0]


def test_the_newest_request_comes_first(desk: Client) -> None:
    client = build_client()
    for number in range(3):
        build_request(client, None, model_asked=f"number-{number}")

    page = listed(desk)

    assert page.index("number-2") < page.index("number-1") < page.index("number-0")


def models_in(page: str) -> list[str]:
    return re.findall(r"number-\d", page)


def link_to(page: str, relation: str) -> str:
    found = re.findall(rf'href="([^"]*)" rel="{relation}"', page)
    return html.unescape(found[0]) if found else ""


def test_older_and_newer_lead_to_the_same_pages_there_and_back(desk: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_search, "PAGE_ROWS", 2)
    client = build_client()
    for number in range(7):
        build_request(client, None, model_asked=f"number-{number}")
    there = [listed(desk, client=str(client.pk))]
    while older := link_to(there[-1], "next"):
        there.append(text_of(desk.get(f"{reverse(LIST)}{older}")))
    assert [models_in(page) for page in there] == [
        ["number-6", "number-5"],
        ["number-4", "number-3"],
        ["number-2", "number-1"],
        ["number-0"],
    ]

    back = [there[-1]]
    while newer := link_to(back[-1], "prev"):
        back.append(text_of(desk.get(f"{reverse(LIST)}{newer}")))

    assert [models_in(page) for page in back] == [models_in(page) for page in reversed(there)]
    assert all(str(client.pk) in link_to(page, "prev") for page in there[1:]), "the search goes with it"


def test_the_way_back_is_no_longer_than_an_address_may_be() -> None:
    way: trail.Trail = ()
    for number in range(1, 200):
        text = trail.older(way, uuid.UUID(int=number))
        assert text is not None
        way = trail.TrailField().to_python(text)

    assert len(trail.text_of(way)) < 1_700
    assert [step.int for step in way] == list(range(150, 200))
    assert trail.newer(way[:1]) is None


def test_a_page_or_a_year_that_does_not_exist_is_told(desk: Client) -> None:
    build_request(build_client(), None, model_asked="number-1")

    assert "This page does not exist" in listed(desk, before="x.y")
    assert "No request is of that year" in listed(desk, since="0001-01-01T00:00Z")
    assert models_in(listed(desk, since="0001-01-01T00:00Z")) == []


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"q": "a\0b"}, 200),
        ({"q": "x" * 5_000}, 200),
        ({"client": "no id"}, 200),
        ({"period": "ever", "status": "maybe", "o": "5", "p": "99"}, 200),
        ({"since": "yesterday", "until": "9999-12-31T23:59", "before": "x"}, 200),
        ({"since": "0001-01-01T00:00+14:00"}, 200),
        ({"client__digest__startswith": "a"}, 200),
    ],
    ids=["NUL", "long", "no UUID", "unknown choices", "no times", "the beginning of time", "a digest, unheard"],
)
def test_a_query_string_that_makes_no_sense_is_no_error_of_ours(
    desk: Client, query: dict[str, str], status: int
) -> None:
    build_request(build_client(), None)

    assert desk.get(reverse(LIST), query, follow=True).status_code == status


@pytest.mark.parametrize(
    ("model", "field"), [("openrouterkey", "fingerprint"), ("openrouterkey", "secret"), ("client", "digest")]
)
def test_no_filter_feels_its_way_along_a_secret(desk: Client, model: str, field: str) -> None:
    url = reverse(f"admin:keys_{model}_changelist")

    assert desk.get(url, {f"{field}__startswith": "a"}).status_code == 400


def test_a_query_string_cannot_make_the_ledger_sort_without_an_index(desk: Client) -> None:
    client = build_client()
    build_request(client, None, model_asked="first", attempts=9)
    build_request(client, None, model_asked="second", attempts=1)

    for order in ("8", "-8"):
        page = listed(desk, o=order)
        assert page.index(">second ") < page.index(">first ")


def test_a_paginator_counts_no_further_than_its_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    from keys.models import RequestLog

    client = build_client()
    for _ in range(4):
        build_request(client, None)
    monkeypatch.setattr("keys.admin.paginator.MOST_ROWS", 3)

    assert CappedPaginator(RequestLog.objects.order_by("-pk"), 2).count == 3


def test_cooldowns_are_listed_and_filtered(desk: Client) -> None:
    key, account = build_key("work"), build_account("acme")
    build_cooldown(key=key, detail="still-open")
    build_cooldown(
        account=account, cause=Cause.OUT_OF_CREDIT, detail="long-gone", cleared_at=timezone.now(), cleared_by="trial"
    )
    url = reverse("admin:keys_cooldown_changelist")

    both, open_ones, of_cause = (
        text_of(desk.get(url, query)) for query in ({}, {"open": "yes"}, {"cause": "out_of_credit"})
    )

    assert "still-open" in both
    assert "long-gone" in both
    assert ("still-open" in open_ones, "long-gone" in open_ones) == (True, False)
    assert ("still-open" in of_cause, "long-gone" in of_cause) == (False, True)


def test_the_report_sums_a_period_by_key_and_day(desk: Client) -> None:
    key, client = build_key("work"), build_client()
    build_request(client, key, cost_nano=1_000_000)
    build_request(client, key, cost_nano=500)
    yesterday = timezone.now() - dt.timedelta(days=1)
    build_request(client, key, cost_nano=2_000_000_000, created_at=yesterday)
    build_request(client, None, cost_nano=None, cost_source="unknown", status=529, error_type="overloaded_error")

    page = text_of(desk.get(reverse(USAGE)))
    today = text_of(desk.get(reverse(USAGE), {"since": timezone.now().date().isoformat()}))

    assert "$2.0010005" in page
    assert "no key" in page
    assert "<dt>Requests of unknown cost</dt><dd>1</dd>" in page
    assert "$0.0010005" in today
    assert "was $2.00" in today


@pytest.mark.parametrize("group", ["client", "model"])
def test_the_report_groups_by_client_and_model(desk: Client, group: str) -> None:
    build_request(build_client("phone"), build_key(), cost_nano=1_000_000)

    page = text_of(desk.get(reverse(USAGE), {"group": group}))

    assert {"client": "phone", "model": "anthropic/claude-3-opus"}[group] in page


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"since": "2026-02-01", "until": "2026-01-01"}, "ends before it begins"),
        ({"since": "2020-01-01", "until": "2026-01-01"}, "more than 366 days"),
        ({"since": "yesterday"}, "Enter a valid date"),
        ({"group": "password"}, "Select a valid choice"),
        ({"since": "9999-12-31", "until": "9999-12-31"}, "after today"),
    ],
    ids=["turned round", "too long", "no date", "unknown group", "the end of time"],
)
def test_a_period_that_makes_no_sense_is_refused_in_words(desk: Client, query: dict[str, str], words: str) -> None:
    assert words in text_of(desk.get(reverse(USAGE), query))


def test_audit_shows_who_changed_what(desk: Client) -> None:
    key = build_key("work")
    desk.post(reverse("admin:keys_openrouterkey_do", args=[key.pk, "disable"]))

    page = text_of(desk.get(reverse("admin:keys_auditevent_changelist"), {"about": "openrouterkey"}))

    assert "olivia" in page
    assert "state: active → disabled" in page


PAYLOAD = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'"


def test_no_stored_text_becomes_markup(desk: Client) -> None:
    account = build_account(PAYLOAD)
    account.organization = PAYLOAD
    account.save(update_fields=["organization"])
    key = build_key(PAYLOAD[:90], account=account, note=PAYLOAD, label=PAYLOAD, check_error=PAYLOAD, state="invalid")
    client = build_client(PAYLOAD[:90])
    texts = {"model_asked": PAYLOAD, "model_sent": PAYLOAD, "user_agent": PAYLOAD, "session_id": PAYLOAD}
    request = build_request(client, key, **texts, client_ip="<b>", generation_id=PAYLOAD, error_type="<i>", status=500)
    build_attempt(request, key, detail=PAYLOAD)
    cooldown = build_cooldown(key=key, detail=PAYLOAD, pattern="<u>")
    type(key).objects.filter(pk=key.pk).update(state="active")
    build_cooldown(account=account, cause=Cause.OUT_OF_CREDIT, detail=PAYLOAD)

    models = ("openrouterkey", "account", "client", "requestlog", "cooldown", "auditevent", "usagehour", "modelalias")
    urls = [reverse("admin:index"), *(reverse(f"admin:keys_{model}_changelist") for model in models)]
    urls += [f"{reverse(USAGE)}?group={group}" for group in ("client", "model")]
    for row in (key, account, client, request, cooldown):
        urls.append(reverse(f"admin:keys_{row._meta.model_name}_change", args=[row.pk]))
    urls.append(reverse("admin:keys_openrouterkey_do", args=[key.pk, "retire"]))

    pages = {url: text_of(desk.get(url)) for url in urls}

    assert sum("&lt;script&gt;" in page for page in pages.values()) > 10
    for url, page in pages.items():
        assert "<script>alert" not in page, url
        assert "<img src=x" not in page, url
        assert "<u>" not in page, url


def test_no_template_of_ours_has_an_inline_script_or_style(desk: Client) -> None:
    build_request(build_client(), build_key())

    for url in (reverse("admin:index"), reverse(LIST), reverse(USAGE), reverse("admin:keys_openrouterkey_changelist")):
        page = text_of(desk.get(url))
        assert "<style" not in page
        assert " style=" not in page
        assert " onclick=" not in page
        assert "<script>" not in page
