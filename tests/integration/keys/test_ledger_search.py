"""A search finds every request that matches and no other, page by page, whatever the roll-ups know already."""

from __future__ import annotations

import dataclasses
import datetime as dt
import random
import uuid
from typing import Any

import pytest
from django.db import connection
from django.db.models import Model
from django.test.utils import CaptureQueriesContext

from keys import ledger_search
from keys.ledger_search import Search, find_page, first_id_of, moment_of
from keys.models import RequestLog, TrafficHour, UsageDay, UsageHour, Watermark
from keys.services.rollups import aggregate_usage
from keys.usage import Where

pytestmark = pytest.mark.django_db

NOON = dt.datetime(2026, 5, 4, 12, 0, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
KEYS = [uuid.UUID(int=n) for n in (11, 12)]
CLIENTS = [uuid.UUID(int=n) for n in (1, 2, 3)]
TABLES: list[type[Model]] = [RequestLog, UsageHour, UsageDay, TrafficHour, Watermark]
OUTCOMES = [
    (200, "", ""),
    (200, "", ""),
    (429, "rate_limit_error", "no_key"),
    (529, "overloaded_error", "provider_busy"),
]


def add_row(at: dt.datetime, **values: Any) -> RequestLog:
    request = uuid.UUID(int=first_id_of(at).int | random.Random(at.timestamp()).getrandbits(60))
    facts = {"client_id": CLIENTS[0], "key_id": KEYS[0], "model_asked": "opus", "model_sent": "a/opus", "status": 200}
    facts |= {"request_id": f"req_{request.hex}", "created_at": at, "recorded_at": at}
    return RequestLog.objects.create(id=request, **facts | values)


@pytest.fixture(scope="module")
def built() -> dict[type[Model], list[Any]]:
    """All rows that the first test's ledger came to: to sum them takes longer than any search."""
    return {}


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch, built: dict[type[Model], list[Any]]) -> list[RequestLog]:
    """Two days of requests, the last hours of them not summed yet; pages and readings are small."""
    monkeypatch.setattr(ledger_search, "PAGE_ROWS", 5)
    monkeypatch.setattr(ledger_search, "MOST_ROWS_READ", 12)
    monkeypatch.setattr(ledger_search, "MOST_HOURS", 4)
    monkeypatch.setattr(ledger_search, "MOST_SUMS_READ", 6)
    if built:
        for model, rows in built.items():
            model._default_manager.bulk_create(rows)
    else:
        build_ledger()
        built.update((model, list(model._default_manager.all())) for model in TABLES)
    return sorted(built[RequestLog], key=lambda row: row.pk)


def build_ledger() -> None:
    chance = random.Random(5)
    for n in range(140):
        status, error, cause = chance.choice(OUTCOMES)
        add_row(
            NOON + n * HOUR / 3 + dt.timedelta(seconds=chance.randrange(600)),
            client_id=CLIENTS[0 if n % 9 else 1],
            key_id=None if cause == "no_key" else chance.choice(KEYS),
            model_asked=chance.choice(["opus", "haiku"]),
            model_sent=chance.choice(["a/opus", "a/haiku", "b/rare" if n % 40 == 0 else "a/opus"]),
            status=status,
            error_type=error,
            cause=cause,
            generation_id=f"gen-{n}",
        )
    aggregate_usage(NOON + 40 * HOUR)


def all_pages(search: Search) -> list[RequestLog]:
    found: list[RequestLog] = []
    for _ in range(200):
        page = find_page(search)
        found += page.rows
        if page.older is None:
            return found
        assert page.older < search.before, "every page is older than the one before"
        search = dataclasses.replace(search, before=page.older)
    raise AssertionError("the pages never end")


SEARCHES: dict[str, tuple[Search, Any]] = {
    "all": (Search(), lambda row: True),
    "client": (Search(where=Where(client=CLIENTS[1])), lambda row: row.client_id == CLIENTS[1]),
    "unknown client": (Search(where=Where(client=CLIENTS[2])), lambda row: False),
    "key": (Search(where=Where(keys=(KEYS[1],))), lambda row: row.key_id == KEYS[1]),
    "no key": (Search(where=Where(keys=(None,))), lambda row: row.key_id is None),
    "no such account": (Search(where=Where(keys=())), lambda row: False),
    "model sent": (Search(model="b/rare"), lambda row: row.model_sent == "b/rare"),
    "model asked": (Search(model="haiku"), lambda row: row.model_asked == "haiku"),
    "unknown model": (Search(model="x"), lambda row: False),
    "status": (Search(status="429"), lambda row: row.status == 429),
    "good ones": (Search(status="ok"), lambda row: row.status < 400),
    "any error": (Search(status="error"), lambda row: row.status >= 400),
    "5xx": (Search(status="5xx"), lambda row: row.status >= 500),
    "cause": (Search(cause="provider_busy"), lambda row: row.cause == "provider_busy"),
    "status and cause": (Search(cause="no_key", status="529"), lambda row: False),
    "client, model and status": (
        Search(where=Where(client=CLIENTS[0], keys=(KEYS[0],)), model="a/opus", status="529"),
        lambda row: (row.client_id, row.key_id, row.model_sent, row.status) == (CLIENTS[0], KEYS[0], "a/opus", 529),
    ),
    "period": (
        Search(since=NOON + 3 * HOUR, until=NOON + 5.5 * HOUR),
        lambda row: NOON + 3 * HOUR <= row.created_at < NOON + 5.5 * HOUR,
    ),
    "client in a period": (
        Search(where=Where(client=CLIENTS[1]), since=NOON + 3.5 * HOUR, until=NOON + 45 * HOUR),
        lambda row: row.client_id == CLIENTS[1] and NOON + 3.5 * HOUR <= row.created_at < NOON + 45 * HOUR,
    ),
}


@pytest.mark.parametrize(("search", "matches"), SEARCHES.values(), ids=SEARCHES)
def test_all_pages_together_are_all_that_match(ledger: list[RequestLog], search: Search, matches: Any) -> None:
    wanted = sorted((row.pk for row in ledger if matches(row)), reverse=True)

    assert [row.pk for row in all_pages(search)] == wanted


@pytest.mark.parametrize(("search", "matches"), SEARCHES.values(), ids=SEARCHES)
def test_a_search_needs_no_roll_up(ledger: list[RequestLog], search: Search, matches: Any) -> None:
    for model in (TrafficHour, UsageHour, Watermark):
        model.objects.all().delete()

    assert {row.pk for row in all_pages(search)} == {row.pk for row in ledger if matches(row)}


@pytest.mark.parametrize("search", [search for search, _ in SEARCHES.values()], ids=SEARCHES)
def test_a_page_takes_at_most_five_queries_and_counts_nothing(ledger: list[RequestLog], search: Search) -> None:
    with CaptureQueriesContext(connection) as queries:
        find_page(search)

    assert len(queries) <= 5
    of_ledger = [query["sql"] for query in queries.captured_queries if 'FROM "keys_requestlog"' in query["sql"]]
    assert len(of_ledger) <= 1
    assert not any(word in sql for sql in of_ledger for word in ("COUNT", "DISTINCT", "OFFSET"))


@pytest.mark.parametrize("field", ["pk", "request_id", "generation_id"])
def test_a_whole_id_finds_its_request(ledger: list[RequestLog], field: str) -> None:
    wanted = ledger[17]

    assert [row.pk for row in find_page(Search(text=str(getattr(wanted, field)))).rows] == [wanted.pk]


def test_rows_without_a_generation_id_are_not_found_by_none(ledger: list[RequestLog]) -> None:
    add_row(NOON, generation_id="")

    assert find_page(Search(text="gen-")).rows == []


def test_a_page_that_ends_early_says_how_far_it_looked(ledger: list[RequestLog]) -> None:
    page = find_page(Search(where=Where(client=CLIENTS[1]), status="529"))

    assert len(page.rows) < 5
    assert page.looked_back_to is not None
    assert page.older is not None
    assert moment_of(page.older) <= page.looked_back_to


def test_a_request_whose_stamp_is_in_the_hour_after_its_id_is_found() -> None:
    made_at, stamped_at = NOON - dt.timedelta(milliseconds=1), NOON + dt.timedelta(milliseconds=1)
    row = add_row(made_at, client_id=CLIENTS[2])
    RequestLog.objects.filter(pk=row.pk).update(created_at=stamped_at, recorded_at=stamped_at)
    add_row(NOON + 9 * HOUR)
    aggregate_usage(NOON + 10 * HOUR)

    assert [row.pk for row in all_pages(Search(where=Where(client=CLIENTS[2])))] == [row.pk]


@pytest.mark.parametrize("value", [0, 1 << 127, (1 << 128) - 1], ids=["zero", "far", "last"])
def test_an_id_that_no_clock_made_is_no_error(ledger: list[RequestLog], value: int) -> None:
    find_page(Search(before=uuid.UUID(int=value), where=Where(client=CLIENTS[0])))
