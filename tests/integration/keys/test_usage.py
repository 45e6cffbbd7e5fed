"""Roll-ups of usage, and the reports made of them."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.db.models import Q
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keys.models import Client, CostSource, OpenRouterKey, RequestLog, TrafficHour, UsageDay, UsageHour, Watermark
from keys.services import rollups
from keys.services.rollups import LEASE, Lease, LeaseLost, aggregate_usage
from keys.spans import Span
from keys.traffic import in_steps, percentile_ms, traffic_by_hour
from keys.usage import (
    COUNTS,
    LATENCY_BUCKETS,
    NO_KEY,
    NOT_SENT,
    Usage,
    Where,
    sum_ledger,
    sum_usage,
    today_by_key,
    usage_by_day,
    usage_by_key,
)

pytestmark = pytest.mark.django_db

NOON = dt.datetime(2026, 5, 4, 12, 0, tzinfo=dt.UTC)
MINUTE = dt.timedelta(minutes=1)
HOUR = dt.timedelta(hours=1)
ALICE, BOB = uuid.UUID(int=1), uuid.UUID(int=2)
KEY_1, KEY_2 = uuid.UUID(int=11), uuid.UUID(int=12)


def add_row(
    *,
    created_at: dt.datetime = NOON,
    recorded_at: dt.datetime | None = None,
    key: uuid.UUID | None = KEY_1,
    client: uuid.UUID = ALICE,
    model: str = "anthropic/claude-3-opus",
    cost_nano: int | None = 1_000,
    latency_ms: int = 700,
    error_type: str = "",
    **values: Any,
) -> RequestLog:
    return RequestLog.objects.create(
        id=uuid.uuid4(),
        client_id=client,
        key_id=key,
        model_asked="claude-3-opus-4",
        model_sent=model,
        status=values.pop("status", 200),
        error_type=error_type,
        attempts=1,
        input_tokens=10,
        output_tokens=20,
        cache_read_tokens=3,
        cache_write_tokens=4,
        cost_nano=cost_nano,
        latency_ms=latency_ms,
        request_id="req_test",
        created_at=created_at,
        recorded_at=recorded_at or created_at,
        **values,
    )


def usage_in(row: Any) -> Usage:
    return Usage(**{name: getattr(row, name) for name in COUNTS})


def rollup_sums() -> dict[tuple[object, ...], Usage]:
    return {(row.hour, row.key_id, row.client_id, row.model): usage_in(row) for row in UsageHour.objects.all()}


def ledger_sums() -> dict[tuple[object, ...], Usage]:
    return sum_ledger(Q(), "hour", "key_id", "client_id", "model_sent")


def test_rows_become_one_sum_for_each_hour_key_client_and_model() -> None:
    add_row(latency_ms=100)
    add_row(latency_ms=101, cost_nano=None, error_type="api_error")
    add_row(key=KEY_2, latency_ms=700_000)
    add_row(created_at=NOON + HOUR)

    aggregate_usage(NOON + HOUR + MINUTE)

    row = UsageHour.objects.get(hour=NOON, key_id=KEY_1)
    assert UsageHour.objects.count() == 3
    assert (row.requests, row.errors, row.cost_nano, row.unknown_costs) == (2, 1, 1_000, 1)
    assert (row.input_tokens, row.output_tokens, row.cache_read_tokens, row.cache_write_tokens) == (20, 40, 6, 8)
    assert row.latency_histogram == [1, 1] + [0] * (LATENCY_BUCKETS - 2)
    assert UsageHour.objects.get(key_id=KEY_2).latency_histogram == [0] * (LATENCY_BUCKETS - 1) + [1]


def test_a_second_run_without_news_writes_nothing() -> None:
    add_row()
    aggregate_usage(NOON + MINUTE)
    before = list(UsageHour.objects.values())

    assert aggregate_usage(NOON + 2 * MINUTE) == 0
    assert list(UsageHour.objects.values()) == before


def test_a_row_that_was_committed_late_is_found() -> None:
    add_row()
    aggregate_usage(NOON + 4 * MINUTE)
    add_row(recorded_at=NOON + MINUTE)  # its transaction ended after the run

    aggregate_usage(NOON + 5 * MINUTE)

    assert rollup_sums() == ledger_sums()


def test_an_improved_cost_moves_the_hour_of_its_request() -> None:
    row = add_row(cost_nano=None)
    aggregate_usage(NOON + MINUTE)
    RequestLog.objects.filter(pk=row.pk).update(cost_nano=77, recorded_at=NOON + 30 * HOUR)

    aggregate_usage(NOON + 30 * HOUR + MINUTE)

    assert rollup_sums() == ledger_sums()
    assert UsageHour.objects.get().cost_nano == 77


def test_a_request_that_changes_its_key_leaves_nothing_behind() -> None:
    row = add_row(key=KEY_1)
    aggregate_usage(NOON + MINUTE)
    RequestLog.objects.filter(pk=row.pk).update(key_id=KEY_2, recorded_at=NOON + MINUTE)

    aggregate_usage(NOON + 2 * MINUTE)

    assert [row.key_id for row in UsageHour.objects.all()] == [KEY_2]


def test_a_backlog_of_days_is_worked_off_in_one_run() -> None:
    for day in range(5):
        add_row(created_at=NOON + day * 24 * HOUR)

    aggregate_usage(NOON + 5 * 24 * HOUR)

    assert rollup_sums() == ledger_sums()
    assert Watermark.objects.get(name="usage").at == NOON + 5 * 24 * HOUR


step = st.one_of(
    st.tuples(st.just("run"), st.integers(0, 90)),
    st.tuples(
        st.just("add"),
        st.integers(0, 300),  # minutes that the request took
        st.integers(0, 4),  # minutes that its commit is late
        st.sampled_from([KEY_1, KEY_2, None]),
        st.sampled_from([ALICE, BOB]),
        st.sampled_from(["a/opus", "a/haiku", ""]),
        st.one_of(st.none(), st.integers(0, 10**15)),
        st.integers(0, 700_000),
    ),
    st.tuples(st.just("improve"), st.integers(0, 50), st.integers(0, 10**12)),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(step, max_size=12))
def test_a_rollup_always_equals_the_sum_of_its_rows(steps: list[tuple[object, ...]]) -> None:
    for model in (RequestLog, UsageHour, UsageDay, TrafficHour, Watermark):
        model.objects.all().delete()
    now = NOON
    for action, *arguments in steps:
        now = ACTIONS[action](now, *arguments)
        assert report_total(now) == ledger_total()
    aggregate_usage(now + MINUTE)
    assert rollup_sums() == ledger_sums()
    assert all(sum(row.latency_histogram) == row.requests for row in UsageHour.objects.all())
    by_day = {(row.day, row.key_id, row.client_id, row.model): usage_in(row) for row in UsageDay.objects.all()}
    assert by_day == sum_ledger(Q(), "day", "key_id", "client_id", "model_sent")
    by_hour = {(row.hour,): usage_in(row) for row in TrafficHour.objects.all()}
    assert by_hour == sum_ledger(Q(), "hour")


def _run(now: dt.datetime, minutes: int) -> dt.datetime:
    aggregate_usage(now + minutes * MINUTE)
    return now + minutes * MINUTE


def _add(
    now: dt.datetime,
    took: int,
    late: int,
    key: uuid.UUID,
    client: uuid.UUID,
    model: str,
    cost: int | None,
    latency: int,
) -> dt.datetime:
    add_row(
        created_at=now - (took + late) * MINUTE,
        recorded_at=now - late * MINUTE,
        key=key,
        client=client,
        model=model,
        cost_nano=cost,
        latency_ms=latency,
    )
    return now + MINUTE / 2


def _improve(now: dt.datetime, which: int, cost: int) -> dt.datetime:
    rows = list(RequestLog.objects.order_by("created_at", "id").values_list("pk", flat=True))
    if rows:
        RequestLog.objects.filter(pk=rows[which % len(rows)]).update(cost_nano=cost, recorded_at=now)
    return now + MINUTE / 2


ACTIONS: dict[object, Callable[..., dt.datetime]] = {"run": _run, "add": _add, "improve": _improve}


def report_total(now: dt.datetime) -> Usage:
    return sum(usage_by_key(NOON.date() - dt.timedelta(days=2), now.date()).values(), Usage())


def ledger_total() -> Usage:
    return sum(sum_ledger(Q(), "day").values(), Usage())


def test_only_one_run_at_a_time_holds_the_lease() -> None:
    first = Lease.take(NOON)

    assert first is not None
    assert Lease.take(NOON + MINUTE) is None
    first.give_back(NOON + MINUTE)
    assert Lease.take(NOON + MINUTE) is not None


def test_a_run_that_died_is_followed_by_another() -> None:
    Lease.take(NOON)

    assert Lease.take(NOON + rollups.LEASE_DURATION) is not None


def test_a_run_that_was_overtaken_can_not_write() -> None:
    slow = Lease.take(NOON)
    assert slow is not None
    Lease.take(NOON + rollups.LEASE_DURATION)

    with pytest.raises(LeaseLost):
        slow.prove()


def test_a_run_beside_another_does_nothing() -> None:
    add_row()
    Lease.take(NOON)

    assert aggregate_usage(NOON + MINUTE) == 0
    assert not UsageHour.objects.exists()


def test_an_overtaken_run_leaves_the_sums_to_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    add_row()
    lease = Lease(NOON)
    monkeypatch.setattr(Lease, "take", lambda now: lease)

    assert aggregate_usage(NOON + MINUTE) == 0
    assert not UsageHour.objects.exists()
    assert not Watermark.objects.filter(name=LEASE).exists()


def test_a_report_shows_days_by_key_client_and_model() -> None:
    key = OpenRouterKey.objects.create(id=KEY_1, name="prod-1", tail="...abc1", fingerprint="f1", secret=b"x")
    Client.objects.create(id=ALICE, name="alice", digest="d", prefix="sk-ant-api03-Ab3d")
    add_row(cost_nano=5)
    add_row(cost_nano=7, created_at=NOON + 24 * HOUR)
    add_row(key=None, model="", cost_nano=0)
    aggregate_usage(NOON + MINUTE)
    add_row(cost_nano=11, client=BOB)

    first, last = NOON.date(), (NOON + 24 * HOUR).date()
    by_key = [(line.day, line.label, line.usage.cost_nano) for line in usage_by_day(first, last)]
    by_client = [(line.day, line.label, line.usage.requests) for line in usage_by_day(first, last, "client")]
    by_model = [(line.day, line.label, line.usage.requests) for line in usage_by_day(first, last, "model")]

    assert by_key == [(first, str(key), 16), (first, NO_KEY, 0), (last, str(key), 7)]
    assert by_client == [(first, str(BOB), 1), (first, "alice", 2), (last, "alice", 1)]
    assert by_model == [
        (first, "anthropic/claude-3-opus", 2),
        (first, NOT_SENT, 1),
        (last, "anthropic/claude-3-opus", 1),
    ]


def test_a_report_ends_where_its_period_ends() -> None:
    midnight = dt.datetime(2026, 5, 4, tzinfo=dt.UTC)
    for created_at in (midnight - dt.timedelta(microseconds=1), midnight, midnight + 24 * HOUR):
        add_row(created_at=created_at)
    aggregate_usage(midnight + 25 * HOUR)

    assert sum(line.usage.requests for line in usage_by_day(midnight.date(), midnight.date())) == 1


def test_today_begins_at_midnight_utc_also_for_a_clock_elsewhere() -> None:
    add_row(created_at=dt.datetime(2026, 5, 4, 23, 59, tzinfo=dt.UTC))
    tokyo = dt.timezone(9 * HOUR)

    assert today_by_key(dt.datetime(2026, 5, 5, 8, 59, tzinfo=tokyo))[KEY_1].requests == 1
    assert today_by_key(dt.datetime(2026, 5, 5, 9, 1, tzinfo=tokyo)) == {}


@pytest.mark.parametrize("hours", [1, 200], ids=["one hour", "many hours, not adjacent"])
def test_a_report_takes_six_queries_whatever_the_period(hours: int) -> None:
    for number in range(hours):
        add_row(created_at=NOON + 2 * number * HOUR)
    aggregate_usage(NOON + 4 * HOUR)

    with CaptureQueriesContext(
        connection,
    ) as queries:
        lines = usage_by_day(NOON.date(), (NOON + 2 * hours * HOUR).date())

    assert sum(line.usage.requests for line in lines) == hours
    assert len(queries) <= 6


@pytest.mark.parametrize("part", ["day", "hour", "key", "client", "model"])
@pytest.mark.parametrize(
    "hours", [(0, 72), (5, 50), (13, 14), (30, 30)], ids=["days", "cut days", "an hour", "nothing"]
)
def test_a_period_is_summed_alike_by_roll_ups_and_ledger(part: Any, hours: tuple[int, int]) -> None:
    midnight = NOON.replace(hour=0)
    for hour in range(0, 80, 3):
        add_row(created_at=midnight + hour * HOUR, key=[KEY_1, KEY_2, None][hour % 2], cost_nano=10**hour % 997)
    aggregate_usage(midnight + 60 * HOUR)  # the last ones are not summed yet
    period = Span(midnight + hours[0] * HOUR, midnight + hours[1] * HOUR)

    found = sum_usage(period, part, where=Where(keys=(KEY_1, None)))

    column = {"key": "key_id", "client": "client_id", "model": "model_sent"}.get(part, part)
    condition = period.condition("created_at") & (Q(key_id=KEY_1) | Q(key_id=None))
    assert found == sum_ledger(condition, column)


def test_a_sum_tells_where_its_costs_come_from() -> None:
    for source, cost in (("reported", 1), ("reconciled", 10), ("estimated", 100), ("unknown", None)):
        add_row(cost_nano=cost, cost_source=CostSource(source))

    live = sum_usage(Span.of_days(NOON.date(), NOON.date()))[()]
    aggregate_usage(NOON + 10 * MINUTE)
    stored = sum_usage(Span.of_days(NOON.date(), NOON.date()))[()]

    assert live == stored
    assert (stored.reported_nano, stored.reconciled_nano, stored.estimated_nano, stored.unknown_costs) == (
        1,
        10,
        100,
        1,
    )


def test_traffic_is_alike_from_the_roll_up_and_from_the_ledger() -> None:
    add_row(latency_ms=90)
    add_row(status=429, error_type="rate_limit_error", cause="no_key", latency_ms=3_000)
    add_row(status=500, error_type="api_error", created_at=NOON + HOUR)
    period = Span(NOON, NOON + 2 * HOUR)

    live = traffic_by_hour(period)
    aggregate_usage(NOON + 3 * HOUR)
    stored = traffic_by_hour(period)

    assert live == stored
    assert stored[NOON].statuses == {"200": 1, "429": 1}
    assert stored[NOON].causes == {"no_key": 1}
    assert stored[NOON + HOUR].causes == {"": 1}
    steps = in_steps(stored, Span(NOON - HOUR, NOON + 2 * HOUR), lambda hour: NOON)
    assert [(start, total.usage.requests) for start, total in steps.items()] == [(NOON, 3)]


@pytest.mark.parametrize(
    ("buckets", "share", "expected"),
    [
        ({}, 0.5, None),
        ({0: 2}, 0.5, 50),
        ({0: 90, 4: 10}, 0.5, 56),
        ({0: 90, 4: 10}, 0.95, 1_750),
        ({LATENCY_BUCKETS - 1: 1}, 0.5, 600_000),
    ],
    ids=["none", "half of the first bucket", "within the first", "within a later one", "over every bound"],
)
def test_a_percentile_is_interpolated_within_its_bucket(buckets: dict[int, int], share: float, expected: int) -> None:
    histogram = [buckets.get(number, 0) for number in range(LATENCY_BUCKETS)]

    assert percentile_ms(histogram, share) == expected
