"""What was used and what it cost: sums of the ledger, and the reports the admin and the API show.

Reports read the roll-ups (`UsageHour`), and the ledger itself for the hours whose roll-up is not up to date, so they
are exact at any time, also when no background task runs. `keys.services.rollups` writes the roll-ups.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal
from uuid import UUID

from django.db.models import Case, Count, IntegerField, Q, Sum, Value, When
from django.db.models.functions import Coalesce, TruncDate, TruncHour

from keys.models import Client, OpenRouterKey, RequestLog, UsageHour, Watermark

HOUR = dt.timedelta(hours=1)
DAY = dt.timedelta(days=1)
LATE = dt.timedelta(minutes=5)  # a row may be committed so long after its `recorded_at`
ROLLUP = "usage"  # the watermark's name
MAX_SPANS = 40
LATENCY_BOUNDS_MS = (100, 250, 500, 1000, 2500, 5000, 10_000, 20_000, 30_000, 60_000, 120_000, 300_000, 600_000)
LATENCY_BUCKETS = len(LATENCY_BOUNDS_MS) + 1  # the last one counts what is over every bound

Group = Literal["key", "client", "model"]
NO_KEY = "no key"
NOT_SENT = "not sent upstream"


@dataclass(frozen=True, slots=True)
class Usage:
    """Sums of some requests. `cost_nano` is of those whose cost is known; `unknown_costs` counts the others."""

    requests: int = 0
    errors: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cost_nano: int = 0
    unknown_costs: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in COUNTS})


COUNTS = tuple(column.name for column in fields(Usage))


@dataclass(frozen=True, slots=True)
class UsageOfDay:
    """One line of a report. `target` is the key's or client's id, or the model's name; None where there was no key."""

    day: dt.date
    target: UUID | str | None
    label: str
    usage: Usage


@dataclass(frozen=True, slots=True)
class Span:
    """From `start` until just before `end`."""

    start: dt.datetime
    end: dt.datetime

    @classmethod
    def of_days(cls, since: dt.date, until: dt.date) -> Span:
        """UTC days, both included."""
        start, last = (dt.datetime.combine(day, dt.time(), dt.UTC) for day in (since, until))
        return cls(start, last + DAY)

    def condition(self, column: str) -> Q:
        return Q(**{f"{column}__gte": self.start, f"{column}__lt": self.end})


def usage_by_day(since: dt.date, until: dt.date, group: Group = "key") -> list[UsageOfDay]:
    """Usage of each UTC day from `since` to `until`, both included, by key, client or model; dearest first in a day.

    At most five queries, whatever the period.
    """
    sums = _sum_days(Span.of_days(since, until), group)
    labels = _labels(group, {target for _, target in sums})
    lines = [UsageOfDay(day, target, labels[target], usage) for (day, target), usage in sums.items()]
    return sorted(lines, key=lambda line: (line.day, -line.usage.cost_nano, -line.usage.requests, line.label))


def usage_by_key(since: dt.date, until: dt.date) -> dict[UUID | None, Usage]:
    """Usage of the UTC days from `since` to `until` by key id; None for requests that found no key. Four queries."""
    sums: dict[UUID | None, Usage] = defaultdict(Usage)
    for (_, target), usage in _sum_days(Span.of_days(since, until), "key").items():
        sums[target] += usage
    return dict(sums)


def today_by_key(now: dt.datetime) -> dict[UUID | None, Usage]:
    """Usage since midnight UTC by key id. Four queries."""
    today = now.astimezone(dt.UTC).date()
    return usage_by_key(today, today)


def sum_ledger(condition: Q, first: str, *others: str) -> dict[tuple[Any, ...], Usage]:
    """The ledger's rows that match, summed by group, in one query.

    `first` and `others` name columns, `day` or `hour` of admission, or `bucket` of latency by `LATENCY_BOUNDS_MS`.
    """
    return dict(_ledger_sums(condition, (first, *others)))


def hours_of(condition: Q) -> list[dt.datetime]:
    """The hours of admission of the ledger's rows that match, ascending. One query."""
    rows = RequestLog.objects.filter(condition).order_by()
    hours = rows.annotate(hour=TruncHour("created_at", tzinfo=dt.UTC)).values_list("hour", flat=True)
    return sorted(hours.distinct())


def spans_of(hours: Iterable[dt.datetime]) -> list[Span]:
    """Ascending `hours` as few spans; as one that covers them all when they are too many for one query."""
    spans: list[Span] = []
    for hour in hours:
        if spans and spans[-1].end == hour:
            spans[-1] = Span(spans[-1].start, hour + HOUR)
        else:
            spans.append(Span(hour, hour + HOUR))
    return spans if len(spans) <= MAX_SPANS else [Span(spans[0].start, spans[-1].end)]


def _sum_days(period: Span, group: Group) -> dict[tuple[dt.date, Any], Usage]:
    mark = Watermark.objects.filter(name=ROLLUP).first()
    not_summed = Q(recorded_at__gt=mark.at - LATE) if mark else Q()
    live = spans_of(hours_of(period.condition("created_at") & not_summed))
    sums: dict[tuple[dt.date, Any], Usage] = defaultdict(Usage)
    for target, usage in _stored_sums(period, live, group):
        sums[target] += usage
    if live:
        column = {"key": "key_id", "client": "client_id", "model": "model_sent"}[group]
        condition = period.condition("created_at") & _any(live, "created_at")
        for (day, found), usage in _ledger_sums(condition, ("day", column)):
            sums[day, found] += usage
    return sums


def _stored_sums(period: Span, without: Iterable[Span], group: Group) -> Iterator[tuple[tuple[dt.date, Any], Usage]]:
    column = {"key": "key_id", "client": "client_id", "model": "model"}[group]
    rows = UsageHour.objects.filter(period.condition("hour"))
    for span in without:
        rows = rows.exclude(span.condition("hour"))
    sums = rows.order_by().annotate(day=TruncDate("hour", tzinfo=dt.UTC)).values("day", column)
    for row in sums.annotate(**{f"sum_{name}": Sum(name) for name in COUNTS}):
        yield (row["day"], row[column]), _usage_of(row)


def _ledger_sums(condition: Q, group: Iterable[str]) -> Iterator[tuple[tuple[Any, ...], Usage]]:
    names = tuple(group)
    bounds = [When(latency_ms__lte=bound, then=Value(number)) for number, bound in enumerate(LATENCY_BOUNDS_MS)]
    derived: dict[str, Any] = {
        "day": TruncDate("created_at", tzinfo=dt.UTC),
        "hour": TruncHour("created_at", tzinfo=dt.UTC),
        "bucket": Case(*bounds, default=Value(LATENCY_BUCKETS - 1), output_field=IntegerField()),
    }
    rows = RequestLog.objects.filter(condition).annotate(**{name: derived[name] for name in names if name in derived})
    tokens = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
    sums = (
        rows.order_by()
        .values(*names)
        .annotate(
            sum_requests=Count("id"),
            sum_errors=Count("id", filter=~Q(error_type="")),
            sum_unknown_costs=Count("id", filter=Q(cost_nano__isnull=True)),
            sum_cost_nano=Coalesce(Sum("cost_nano"), 0),
            **{f"sum_{name}": Sum(name) for name in tokens},
        )
    )
    for row in sums:
        yield tuple(row[name] for name in names), _usage_of(row)


def _usage_of(row: Mapping[str, Any]) -> Usage:
    return Usage(**{name: row[f"sum_{name}"] for name in COUNTS})


def _any(spans: Iterable[Span], column: str) -> Q:
    condition = Q()
    for span in spans:
        condition |= span.condition(column)
    return condition


def _labels(group: Group, targets: set[Any]) -> dict[Any, str]:
    labels: dict[Any, str] = {target: str(target) for target in targets}
    match group:
        case "key":
            keys = OpenRouterKey.objects.filter(pk__in=targets - {None}).only("name", "tail")
            labels |= {None: NO_KEY} | {key.pk: str(key) for key in keys}
        case "client":
            labels |= dict(Client.objects.filter(pk__in=targets).values_list("pk", "name"))
        case "model":
            labels |= {"": NOT_SENT}
    return labels
