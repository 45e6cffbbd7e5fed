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
from dataclasses import asdict, dataclass
from typing import Any

from django.db import transaction
from django.db.models import Min, Q

from keys.models import RequestLog, UsageHour, Watermark
from keys.usage import COUNTS, HOUR, LATE, LATENCY_BUCKETS, ROLLUP, Span, Usage, hours_of, sum_ledger

logger = logging.getLogger("opensvm.usage")

LEASE = "usage.lease"
LEASE_DURATION = dt.timedelta(minutes=3)  # longer than the task may take
LONGEST_RUN_SECONDS = 60.0
STEP = dt.timedelta(hours=1)  # a backlog is worked off in steps of so much `recorded_at`
WRITE_ROWS = 100
BEGINNING = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

Target = tuple[Any, ...]  # key id, client id, model
Sums = tuple[Usage, list[int]]  # with the latency histogram


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
            for hour in hours_of(Q(recorded_at__gte=start, recorded_at__lte=mark)):
                written += _write(lease, hour)
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


def _write(lease: Lease, hour: dt.datetime) -> int:
    """Make the stored sums of `hour` equal to its rows."""
    wanted, stored = _sums(hour), _stored(hour)
    changed = [target for target in wanted.keys() | stored.keys() if stored.get(target) != wanted.get(target)]
    for start in range(0, len(changed), WRITE_ROWS):
        _replace(lease, hour, {target: wanted.get(target) for target in changed[start : start + WRITE_ROWS]})
    return len(changed)


def _replace(lease: Lease, hour: dt.datetime, sums: dict[Target, Sums | None]) -> None:
    rows = [
        UsageHour(hour=hour, key_id=key, client_id=client, model=model, latency_histogram=found[1], **asdict(found[0]))
        for (key, client, model), found in sums.items()
        if found is not None
    ]
    with transaction.atomic():
        lease.prove()
        old = UsageHour.objects.filter(hour=hour).values_list("id", "key_id", "client_id", "model")
        UsageHour.objects.filter(pk__in=[row for row, *target in old if tuple(target) in sums]).delete()
        UsageHour.objects.bulk_create(rows)


def _sums(hour: dt.datetime) -> dict[Target, Sums]:
    """The truth: one query over the ledger's rows of `hour`."""
    usages: dict[Target, Usage] = defaultdict(Usage)
    histograms: dict[Target, list[int]] = defaultdict(lambda: [0] * LATENCY_BUCKETS)
    span = Span(hour, hour + HOUR)
    for (*group, bucket), usage in sum_ledger(
        span.condition("created_at"), "key_id", "client_id", "model_sent", "bucket"
    ).items():
        target = tuple(group)
        usages[target] += usage
        histograms[target][bucket] += usage.requests
    return {target: (usage, histograms[target]) for target, usage in usages.items()}


def _stored(hour: dt.datetime) -> dict[Target, Sums]:
    rows = UsageHour.objects.filter(hour=hour).values("key_id", "client_id", "model", "latency_histogram", *COUNTS)
    return {
        (row["key_id"], row["client_id"], row["model"]): (
            Usage(**{name: row[name] for name in COUNTS}),
            row["latency_histogram"],
        )
        for row in rows
    }
