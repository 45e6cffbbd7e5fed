"""The report of usage and cost, beside the period before."""

from __future__ import annotations

import datetime as dt
import uuid

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from keys.models import Account, Client, OpenRouterKey, RequestLog
from keys.report_rows import csv_heading, csv_rows, json_of, usd
from keys.reports import GROUPS, NO_ACCOUNT, Group, Question, change_of, read_report
from keys.services.rollups import aggregate_usage
from keys.usage import NO_KEY

pytestmark = pytest.mark.django_db

DAY = dt.timedelta(days=1)
TODAY = dt.date(2026, 5, 4)
NOON = dt.datetime(2026, 5, 4, 12, 0, tzinfo=dt.UTC)


@pytest.fixture
def pool() -> dict[str, uuid.UUID]:
    """`old` was replaced by `new`, both of account acme; `other` has no account."""
    acme = Account.objects.create(name="acme")
    values = {"tail": "...abc1", "secret": b"x"}
    new = OpenRouterKey.objects.create(name="new", fingerprint="1", account=acme, **values)
    old = OpenRouterKey.objects.create(name="old", fingerprint="2", account=acme, replaced_by=new, **values)
    other = OpenRouterKey.objects.create(name="other", fingerprint="3", **values)
    client = Client.objects.create(name="laptop", digest="d", prefix="sk-ant-api03-Ab3d")
    return {"old": old.pk, "new": new.pk, "other": other.pk, "acme": acme.pk, "laptop": client.pk}


def add_row(
    pool: dict[str, uuid.UUID], key: str, cost: int | None, at: dt.datetime = NOON, model: str = "a/opus"
) -> None:
    RequestLog.objects.create(
        id=uuid.uuid4(), client_id=pool["laptop"], key_id=pool.get(key), model_asked=model, model_sent=model,
        status=200, cost_nano=cost, request_id="req_test", created_at=at, recorded_at=at,
    )  # fmt: skip


@pytest.fixture
def rows(pool: dict[str, uuid.UUID]) -> dict[str, uuid.UUID]:
    add_row(pool, "old", 5)
    add_row(pool, "new", 7, model="a/haiku")
    add_row(pool, "other", 1)
    add_row(pool, "none", None)
    add_row(pool, "old", 100, NOON - DAY)
    aggregate_usage(NOON + DAY)
    return pool


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ("key", {"new (...abc1)": (7, 0), "old (...abc1)": (5, 100), "other (...abc1)": (1, 0), NO_KEY: (0, 0)}),
        ("account", {"acme": (12, 100), NO_ACCOUNT: (1, 0)}),
        ("client", {"laptop": (13, 100)}),
        ("model", {"a/haiku": (7, 0), "a/opus": (6, 100)}),
        ("day", {"2026-05-04": (13, 100)}),
    ],
)
def test_a_report_groups_and_compares(
    rows: dict[str, uuid.UUID], group: Group, expected: dict[str, tuple[int, int]]
) -> None:
    report = read_report(Question(TODAY, TODAY, group))

    assert {line.label: (line.usage.cost_nano, line.before.cost_nano) for line in report.lines} == expected
    assert (report.totals.cost_nano, report.before.cost_nano) == (13, 100)
    assert (report.totals.requests, report.totals.unknown_costs) == (4, 1)


def test_a_rotated_key_can_be_one_line_with_its_successors(rows: dict[str, uuid.UUID]) -> None:
    report = read_report(Question(TODAY, TODAY, "key", joined=True))

    costs = {line.label: line.usage.cost_nano for line in report.lines}
    assert costs == {"old (...abc1) and 1 after it": 12, "other (...abc1)": 1, NO_KEY: 0}
    one = read_report(Question(TODAY, TODAY, "day", key=rows["new"], joined=True))
    assert one.totals.cost_nano == 12


@pytest.mark.parametrize(
    ("filters", "cost"),
    [({"key": "old"}, 5), ({"account": "acme"}, 12), ({"client": "laptop"}, 13), ({"model": "a/haiku"}, 7)],
    ids=["key", "account", "client", "model"],
)
@pytest.mark.parametrize("group", GROUPS)
def test_filters_hold_for_every_group(
    rows: dict[str, uuid.UUID], group: Group, filters: dict[str, str], cost: int
) -> None:
    values = {name: rows.get(value, value) for name, value in filters.items()}

    assert read_report(Question(TODAY, TODAY, group, **values)).totals.cost_nano == cost  # type: ignore[arg-type]


def test_hours_and_days_without_a_request_are_lines_too(rows: dict[str, uuid.UUID]) -> None:
    hours = read_report(Question(TODAY, TODAY, "hour"))
    days = read_report(Question(TODAY - 2 * DAY, TODAY, "day"))

    assert [line.usage.requests for line in hours.lines] == [0] * 12 + [4] + [0] * 11
    assert [line.usage.requests for line in days.lines] == [0, 1, 4]


@pytest.mark.parametrize("group", GROUPS)
def test_a_report_takes_a_fixed_number_of_queries(rows: dict[str, uuid.UUID], group: Group) -> None:
    with CaptureQueriesContext(connection) as queries:
        read_report(Question(TODAY - 200 * DAY, TODAY, group))

    assert len(queries) <= 14


def test_csv_and_json_show_the_same_numbers(rows: dict[str, uuid.UUID]) -> None:
    report = read_report(Question(TODAY, TODAY, "model"))

    heading, table = csv_heading(report), [dict(zip(csv_heading(report), row, strict=True)) for row in csv_rows(report)]
    document = json_of(report)
    assert heading[0] == "model"
    assert [row["model"] for row in table] == ["a/haiku", "a/opus", "total"]
    for row, line in zip(table, [*document["lines"], document["totals"]], strict=True):
        assert all(row[name] == line[name] for name in heading[1:-2])
        assert (row["requests_before"], row["cost_usd_before"]) == (
            line["before"]["requests"],
            line["before"]["cost_usd"],
        )


@pytest.mark.parametrize(
    ("nano", "text"),
    [(0, "0.000000000"), (1, "0.000000001"), (10**18 + 1, "1000000000.000000001"), (-5, "-0.000000005")],
)
def test_money_is_written_with_all_its_digits(nano: int, text: str) -> None:
    assert usd(nano) == text


@pytest.mark.parametrize(("now", "before", "change"), [(15, 10, 0.5), (5, 10, -0.5), (5, 0, None), (0, 0, None)])
def test_a_change_is_a_share_of_what_was(now: int, before: int, change: float | None) -> None:
    assert change_of(now, before) == change
