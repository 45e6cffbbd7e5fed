"""How the whole pool did, hour by hour: requests, errors by cause, latency. The home page draws it.

Read like the reports of `keys.usage`: from the roll-up `TrafficHour`, and from the ledger for the hours that it lacks.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from keys.models import TrafficHour
from keys.spans import HOUR, Span, any_of
from keys.usage import COUNTS, LATENCY_BOUNDS_MS, LATENCY_BUCKETS, Usage, live_spans, sum_ledger

TRAFFIC_PARTS = ("status", "cause", "bucket")  # what the ledger is grouped by to make a `Traffic`


@dataclass(slots=True)
class Traffic:
    """Sums of all requests of some time. `causes` counts requests by cause, "" those errors that have none."""

    usage: Usage = field(default_factory=Usage)
    statuses: Counter[str] = field(default_factory=Counter)
    causes: Counter[str] = field(default_factory=Counter)
    latency: list[int] = field(default_factory=lambda: [0] * LATENCY_BUCKETS)

    def add(self, usage: Usage, status: int, cause: str, bucket: int) -> None:
        self.usage += usage
        self.statuses[str(status)] += usage.requests
        if count := usage.requests if cause else usage.errors:
            self.causes[cause] += count
        self.latency[bucket] += usage.requests

    def __iadd__(self, other: Traffic) -> Traffic:
        self.usage += other.usage
        self.statuses += other.statuses
        self.causes += other.causes
        self.latency = [a + b for a, b in zip(self.latency, other.latency, strict=True)]
        return self

    def columns(self) -> dict[str, Any]:
        """As `TrafficHour` stores it."""
        return {
            **dataclasses.asdict(self.usage),
            "statuses": dict(self.statuses),
            "causes": dict(self.causes),
            "latency_histogram": self.latency,
        }

    @classmethod
    def from_columns(cls, row: Mapping[str, Any]) -> Traffic:
        return cls(
            Usage(**{name: row[name] for name in COUNTS}),
            Counter(row["statuses"]),
            Counter(row["causes"]),
            list(row["latency_histogram"]),
        )


def traffic_by_hour(period: Span) -> dict[dt.datetime, Traffic]:
    """By hour, for the hours that have requests. Four queries; an hour at the edge of `period` counts whole."""
    whole = Span(hour_of(period.start), hour_of(period.end + HOUR - dt.timedelta(microseconds=1)))
    live = live_spans(whole)
    rows = TrafficHour.objects.filter(whole.condition("hour")).order_by()
    for span in live:
        rows = rows.exclude(span.condition("hour"))
    found = {row["hour"]: Traffic.from_columns(row) for row in rows.values()}
    if live:
        condition = whole.condition("created_at") & any_of(live, "created_at")
        for (hour, *parts), usage in sum_ledger(condition, "hour", *TRAFFIC_PARTS).items():
            found.setdefault(hour, Traffic()).add(usage, *parts)
    return found


def in_steps(
    hours: Mapping[dt.datetime, Traffic], period: Span, step_of: Callable[[dt.datetime], dt.datetime]
) -> dict[dt.datetime, Traffic]:
    """The sums of `period` by the step that each hour belongs to, oldest first, also those without a request."""
    steps: dict[dt.datetime, Traffic] = {}
    hour = hour_of(period.start)
    while hour < period.end:
        total = steps.setdefault(step_of(hour), Traffic())
        if hour in hours:
            total += hours[hour]
        hour += HOUR
    return steps


def percentile_ms(histogram: Sequence[int], share: float) -> int | None:
    """The latency that `share` of the requests did not exceed, interpolated within its bucket; None without any."""
    wanted = sum(histogram) * share
    if not wanted:
        return None
    low, passed = 0, 0
    for count, high in zip(histogram, (*LATENCY_BOUNDS_MS, LATENCY_BOUNDS_MS[-1]), strict=True):
        if count and passed + count >= wanted:
            return round(low + (high - low) * (wanted - passed) / count)
        low, passed = high, passed + count
    return LATENCY_BOUNDS_MS[-1]


def hour_of(moment: dt.datetime) -> dt.datetime:
    return moment.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0)
