"""What was used and what it cost: sums of the ledger, and the reports the admin and the API show.

Reports read the roll-ups (`UsageDay`, `UsageHour`), and the ledger itself for the hours whose roll-up is not up to
date, so they are exact at any time, also when no background task runs. `keys.services.rollups` writes the roll-ups.
"""

from __future__ import annotations

import datetime as dt
import operator
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal
from uuid import UUID

from django.db.models import Case, Count, IntegerField, Q, QuerySet, Sum, Value, When
from django.db.models.functions import Coalesce, TruncDate, TruncHour
from django.utils import timezone

from keys.models import Client, CostSource, OpenRouterKey, RequestLog, TrafficHour, UsageDay, UsageHour, Watermark
from keys.spans import DAY, Span, any_of, spans_of

LATE = dt.timedelta(minutes=5)  # a row may be committed so long after its `recorded_at`
ROLLUP = "usage"  # the watermark's name
LATENCY_BOUNDS_MS = (100, 250, 500, 1000, 2500, 5000, 10_000, 20_000, 30_000, 60_000, 120_000, 300_000, 600_000)
LATENCY_BUCKETS = len(LATENCY_BOUNDS_MS) + 1  # the last one counts what is over every bound

Group = Literal["key", "client", "model"]
Part = Literal["key", "client", "model", "day", "hour"]
STORED_COLUMNS: dict[Part, str] = {
    "key": "key_id",
    "client": "client_id",
    "model": "model",
    "day": "day",
    "hour": "hour",
}
LEDGER_COLUMNS: dict[Part, str] = {**STORED_COLUMNS, "model": "model_sent"}
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
    reconciled_nano: int = 0  # the part of the cost that was asked for afterwards
    estimated_nano: int = 0  # the part that is made of list prices

    @property
    def reported_nano(self) -> int:
        """The part of the cost that came with the answers."""
        return self.cost_nano - self.reconciled_nano - self.estimated_nano

    def __add__(self, other: Usage) -> Usage:
        return Usage(*map(operator.add, _counts_of(self), _counts_of(other)))


COUNTS = tuple(column.name for column in fields(Usage))
_counts_of: Callable[[Usage], tuple[int, ...]] = operator.attrgetter(*COUNTS)


@dataclass(frozen=True, slots=True)
class UsageOfDay:
    """One line of a report. `target` is the key's or client's id, or the model's name; None where there was no key."""

    day: dt.date
    target: UUID | str | None
    label: str
    usage: Usage


@dataclass(frozen=True, slots=True)
class Where:
    """Which requests are summed. Keys: any of these; an empty tuple is none. `model` is the name sent upstream."""

    keys: tuple[UUID | None, ...] | None = None
    client: UUID | None = None
    model: str | None = None

    def condition(self, model_column: str) -> Q:
        condition = Q()
        if self.keys is not None:
            keyless = Q(key__isnull=True) if None in self.keys else Q(pk__in=[])
            condition &= Q(key_id__in=[key for key in self.keys if key is not None]) | keyless
        if self.client is not None:
            condition &= Q(client_id=self.client)
        return condition if self.model is None else condition & Q(**{model_column: self.model})


EVERYTHING = Where()


def usage_by_day(since: dt.date, until: dt.date, group: Group = "key") -> list[UsageOfDay]:
    """Usage of each UTC day from `since` to `until`, both included, by key, client or model; dearest first in a day.

    At most six queries, whatever the period.
    """
    sums = _sum_days(Span.of_days(since, until), group)
    labels = labels_of(group, {target for _, target in sums})
    lines = [UsageOfDay(day, target, labels[target], usage) for (day, target), usage in sums.items()]
    return sorted(lines, key=lambda line: (line.day, -line.usage.cost_nano, -line.usage.requests, line.label))


def usage_by_key(since: dt.date, until: dt.date) -> dict[UUID | None, Usage]:
    """Usage of the UTC days from `since` to `until` by key id; None for requests that found no key. Five queries."""
    sums: dict[UUID | None, Usage] = defaultdict(Usage)
    for (_, target), usage in _sum_days(Span.of_days(since, until), "key").items():
        sums[target] += usage
    return dict(sums)


def today_by_key(now: dt.datetime) -> dict[UUID | None, Usage]:
    """Usage since midnight UTC by key id. Five queries."""
    today = now.astimezone(dt.UTC).date()
    return usage_by_key(today, today)


def known_models(days: int = 30) -> list[str]:
    """The models that were sent upstream in the last days. One query, of the sums by day."""
    rows = UsageDay.objects.filter(day__gte=timezone.now().date() - days * DAY).exclude(model="")
    return list(rows.order_by("model").values_list("model", flat=True).distinct())


def sum_ledger(condition: Q, *names: str) -> dict[tuple[Any, ...], Usage]:
    """The ledger's rows that match, summed by group, in one query.

    `names` are columns, `day` or `hour` of admission, or `bucket` of latency by `LATENCY_BOUNDS_MS`.
    """
    return dict(_ledger_sums(condition, names))


def hours_of(condition: Q) -> list[dt.datetime]:
    """The hours of admission of the ledger's rows that match, ascending. One query."""
    rows = RequestLog.objects.filter(condition).order_by()
    hours = rows.annotate(hour=TruncHour("created_at", tzinfo=dt.UTC)).values_list("hour", flat=True)
    return sorted(hours.distinct())


def sum_usage(period: Span, *parts: Part, where: Where = EVERYTHING) -> dict[tuple[Any, ...], Usage]:
    """Usage by the values of `parts`, in their order. At most five queries, whatever the period.

    Whole days come from the sums by day, the rest from those by hour; by hour all of it.
    """
    live = live_spans(period)
    sums: dict[tuple[Any, ...], Usage] = defaultdict(Usage)
    for source in _stored(period, live, parts, where):
        rows = source if where == EVERYTHING else source.filter(where.condition("model"))
        for target, usage in _stored_sums(rows, parts):
            sums[target] += usage
    if live:
        condition = period.condition("created_at") & any_of(live, "created_at") & where.condition("model_sent")
        for target, usage in _ledger_sums(condition, [LEDGER_COLUMNS[part] for part in parts]):
            sums[target] += usage
    return sums


def live_spans(period: Span) -> list[Span]:
    """The hours of `period` whose roll-up may lack rows. Two queries.

    The period is cut here: given both conditions, SQLite would read the rows of the whole period.
    """
    mark = Watermark.objects.filter(name=ROLLUP).first()
    rows = Q(recorded_at__gt=mark.at - LATE) if mark else period.condition("created_at")
    first = period.start.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0)
    return spans_of(hour for hour in hours_of(rows) if first <= hour < period.end)


def _sum_days(period: Span, group: Group) -> dict[tuple[dt.date, Any], Usage]:
    return sum_usage(period, "day", group)


def _stored(period: Span, live: Iterable[Span], parts: tuple[Part, ...], where: Where) -> Iterator[QuerySet[Any]]:
    """The roll-ups that make up `period` without the hours of `live`: those with the fewest rows that will do."""
    is_all_traffic = parts == ("hour",) and where == EVERYTHING
    hours: QuerySet[Any] = (TrafficHour if is_all_traffic else UsageHour).objects.filter(period.condition("hour"))
    for span in live:
        hours = hours.exclude(span.condition("hour"))
    if is_all_traffic:
        yield hours
        return
    if "hour" in parts:
        yield hours.annotate(day=TruncDate("hour", tzinfo=dt.UTC))
        return
    broken = {day for span in (*live, *_edges(period)) for day in span.days()}
    first, *_, last = (*period.days(), *period.days())
    yield UsageDay.objects.filter(day__gte=first, day__lte=last).exclude(day__in=broken)
    if broken:
        condition = any_of((Span.of_days(day, day) for day in sorted(broken)), "hour")
        yield hours.filter(condition).annotate(day=TruncDate("hour", tzinfo=dt.UTC))


def _edges(period: Span) -> Iterator[Span]:
    """The days that `period` cuts."""
    for moment in (period.start, period.end):
        day = moment.astimezone(dt.UTC).date()
        if Span.of_days(day, day).start != moment:
            yield Span.of_days(day, day)


def _stored_sums(rows: QuerySet[Any], parts: Iterable[Part]) -> Iterator[tuple[tuple[Any, ...], Usage]]:
    columns = [STORED_COLUMNS[part] for part in parts]
    sums = rows.order_by().values(*columns).annotate(**{f"sum_{name}": Coalesce(Sum(name), 0) for name in COUNTS})
    for row in sums:
        if row["sum_requests"]:  # without columns there is a row for nothing too
            yield tuple(row[column] for column in columns), _usage_of(row)


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
    parts = {"reconciled": CostSource.RECONCILED, "estimated": CostSource.ESTIMATED}
    sums = (
        rows.order_by()
        .values(*names)
        .annotate(
            sum_requests=Count("id"),
            sum_errors=Count("id", filter=~Q(error_type="")),
            sum_unknown_costs=Count("id", filter=Q(cost_nano__isnull=True)),
            sum_cost_nano=Coalesce(Sum("cost_nano"), 0),
            **{f"sum_{name}": Coalesce(Sum(name), 0) for name in tokens},
            **{
                f"sum_{name}_nano": Coalesce(Sum("cost_nano", filter=Q(cost_source=source)), 0)
                for name, source in parts.items()
            },
        )
    )
    for row in sums:
        if not row["sum_requests"]:
            continue
        yield tuple(row[name] for name in names), _usage_of(row)


def _usage_of(row: Mapping[str, Any]) -> Usage:
    return Usage(**{name: row[f"sum_{name}"] for name in COUNTS})


def labels_of(group: Group, targets: set[Any]) -> dict[Any, str]:
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
