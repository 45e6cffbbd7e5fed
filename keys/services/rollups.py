"""Brings the roll-ups of usage up to date with the ledger. Called by the background task, safe on several at once.

One run at a time holds the lease, a row of `Watermark`, and each of its writes proves first that it still does: what
a slow or suspended run has read can never replace newer sums. The ledger is read outside of any transaction, and only
the sums that differ are written, at most `WRITE_ROWS` in a transaction.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import Min, Q, Sum

from keys.models import RequestLog, TrafficHour, UsageDay, UsageHour, Watermark
from keys.spans import HOUR, Span
from keys.traffic import TRAFFIC_PARTS, Traffic
from keys.usage import COUNTS, LATE, LATENCY_BUCKETS, ROLLUP, Usage, hours_of, sum_ledger

logger = logging.getLogger("opensvm.usage")

LEASE = "usage.lease"
LEASE_DURATION = dt.timedelta(minutes=3)  # longer than the task may take
LONGEST_RUN_SECONDS = 60.0
STEP = dt.timedelta(hours=6)  # a backlog is worked off in steps of so much `recorded_at`
WRITE_ROWS = 100
BEGINNING = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

TARGET = ("key_id", "client_id", "model")
Target = tuple[Any, ...]  # values of TARGET
Values = tuple[Any, ...]  # of COUNTS; for an hour, the latency histogram too


class LeaseLost(Exception):
    """Another run has taken over."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write roll-ups, until `at`."""

    at: dt.datetime

    @classmethod
    def take(cls, now: dt.datetime) -> Lease | None:
        """None while another run holds it."""
        until = now + LEASE_DURATION
        with transaction.atomic():
            Watermark.objects.get_or_create(name=LEASE, defaults={"at": BEGINNING})
            taken = Watermark.objects.filter(name=LEASE, at__lte=now).update(at=until)
        return cls(until) if taken else None

    def prove(self) -> None:
        """Lock the lease in the caller's transaction; LeaseLost if it is not ours any more."""
        if Watermark.objects.select_for_update(no_key=True).filter(name=LEASE, at=self.at).first() is None:
            raise LeaseLost

    def give_back(self, now: dt.datetime) -> None:
        with transaction.atomic():
            Watermark.objects.filter(name=LEASE, at=self.at).update(at=now)


def aggregate_usage(now: dt.datetime) -> int:
    """Recompute the hours of rows recorded since the last run; answers how many sums were written.

    Does nothing while another run is at it. A backlog that takes too long is continued by the next run.
    """
    lease = Lease.take(now)
    if lease is None:
        return 0
    try:
        return _catch_up(lease, now)
    except LeaseLost:
        logger.warning("left usage to another run that took over", extra={"event": "usage.lease_lost"})
        return 0
    finally:
        lease.give_back(now)


def _catch_up(lease: Lease, now: dt.datetime) -> int:
    written, stop_at = 0, time.monotonic() + LONGEST_RUN_SECONDS
    mark = _last_run()
    while mark < now and time.monotonic() < stop_at:
        start = _first_row_after(mark - LATE)
        if start is None:
            mark = now
        else:
            mark = min(now, max(mark, start) + STEP)
            written += _write(lease, hours_of(Q(recorded_at__gte=start, recorded_at__lte=mark)))
        _save_run(lease, mark)
    return written


def _last_run() -> dt.datetime:
    mark = Watermark.objects.filter(name=ROLLUP).first()
    return mark.at if mark else BEGINNING + LATE


def _save_run(lease: Lease, at: dt.datetime) -> None:
    with transaction.atomic():
        lease.prove()
        Watermark.objects.update_or_create(name=ROLLUP, defaults={"at": at})


def _first_row_after(mark: dt.datetime) -> dt.datetime | None:
    found: dt.datetime | None = RequestLog.objects.filter(recorded_at__gt=mark).aggregate(at=Min("recorded_at"))["at"]
    return found


def _write(lease: Lease, hours: list[dt.datetime]) -> int:
    """Make the stored sums of `hours`, and of the days they are in, equal to their rows."""
    written = 0
    for hour in hours:
        wanted, traffic = _sums(hour)
        written += HOURS.make_equal(lease, hour, wanted)
        _write_traffic(lease, hour, traffic)
    for day in sorted({hour.astimezone(dt.UTC).date() for hour in hours}):
        DAYS.make_equal(lease, day, _sums_of_hours(day))
    return written


@dataclass(frozen=True, slots=True)
class Table:
    """A roll-up with one row for each key, client and model in a piece of time."""

    model: type[Any]  # UsageHour or UsageDay
    time: str

    @property
    def columns(self) -> tuple[str, ...]:
        return (*COUNTS, "latency_histogram") if self.model is UsageHour else COUNTS

    def make_equal(self, lease: Lease, at: dt.datetime | dt.date, wanted: dict[Target, Values]) -> int:
        """Write only what differs, at most `WRITE_ROWS` in a transaction; how much that was."""
        stored = self._stored(at)
        changed = [target for target in wanted.keys() | stored.keys() if stored.get(target) != wanted.get(target)]
        for start in range(0, len(changed), WRITE_ROWS):
            self._replace(lease, at, {target: wanted.get(target) for target in changed[start : start + WRITE_ROWS]})
        return len(changed)

    def _stored(self, at: dt.datetime | dt.date) -> dict[Target, Values]:
        rows = self.model.objects.filter(**{self.time: at})
        return {row[:3]: row[3:] for row in rows.values_list(*TARGET, *self.columns)}

    def _replace(self, lease: Lease, at: dt.datetime | dt.date, values: dict[Target, Values | None]) -> None:
        named = {self.time: at}
        rows = [
            self.model(**named, **dict(zip((*TARGET, *self.columns), (*target, *found), strict=True)))
            for target, found in values.items()
            if found is not None
        ]
        with transaction.atomic():
            lease.prove()
            old = self.model.objects.filter(**named).values_list("id", *TARGET)
            self.model.objects.filter(pk__in=[row for row, *found in old if tuple(found) in values]).delete()
            self.model.objects.bulk_create(rows)


HOURS, DAYS = Table(UsageHour, "hour"), Table(UsageDay, "day")


def _sums(hour: dt.datetime) -> tuple[dict[Target, Values], Traffic]:
    """The truth: one query over the ledger's rows of `hour`."""
    usages: dict[Target, Usage] = defaultdict(Usage)
    histograms: dict[Target, list[int]] = defaultdict(lambda: [0] * LATENCY_BUCKETS)
    traffic = Traffic()
    condition = Span(hour, hour + HOUR).condition("created_at")
    groups = sum_ledger(condition, "key_id", "client_id", "model_sent", *TRAFFIC_PARTS)
    for (*group, status, cause, bucket), usage in groups.items():
        target = tuple(group)
        usages[target] += usage
        histograms[target][bucket] += usage.requests
        traffic.add(usage, status, cause, bucket)
    return {target: (*_counts(usage), histograms[target]) for target, usage in usages.items()}, traffic


def _sums_of_hours(day: dt.date) -> dict[Target, Values]:
    sums = UsageHour.objects.filter(Span.of_days(day, day).condition("hour")).order_by().values_list(*TARGET)
    return {row[:3]: row[3:] for row in sums.annotate(**{f"sum_{name}": Sum(name) for name in COUNTS})}


def _write_traffic(lease: Lease, hour: dt.datetime, traffic: Traffic) -> None:
    values = traffic.columns()
    if TrafficHour.objects.filter(hour=hour).values(*values).first() == values:
        return
    with transaction.atomic():
        lease.prove()
        if traffic.usage.requests:
            TrafficHour.objects.update_or_create(hour=hour, defaults=values)
        else:
            TrafficHour.objects.filter(hour=hour).delete()


def _counts(usage: Usage) -> tuple[int, ...]:
    return tuple(getattr(usage, name) for name in COUNTS)
