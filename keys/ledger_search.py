"""Finds requests in a ledger of any size: a page at a time, newest first, in a fixed number of queries.

Nothing counts or sorts the table. Ids are in the order of admission, so a page is a range of the primary key. What
can't be found by an index (a client, a key, a model, a status, a cause) is led by the roll-ups: they tell the hours
that have such requests, and only the rows of those are read, at most about `MOST_ROWS_READ` for a page. A page may
therefore end early; `Page.older` goes on where it stopped.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from django.db.models import IntegerField, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce

from keys.models import RequestLog, TrafficHour, UsageHour, Watermark
from keys.traffic import hour_of
from keys.usage import EVERYTHING, HOUR, LATE, ROLLUP, Where

PAGE_ROWS = 50
MOST_ROWS_READ = 50_000
MOST_HOURS = 60
SLACK = dt.timedelta(seconds=5)  # a request's id is made a little before or after its stamp
END_OF_TIME = dt.datetime(9000, 1, 1, tzinfo=dt.UTC).timestamp()
FIRST_ID, LAST_ID = uuid.UUID(int=0), uuid.UUID(int=(1 << 128) - 1)
ERROR_STATUSES = {"error": Q(status__gte=400), "4xx": Q(status__gte=400, status__lt=500), "5xx": Q(status__gte=500)}


@dataclass(frozen=True, slots=True)
class Search:
    """What to find; everything that is set must match. `text` is a whole request id, row id or generation id.

    `status` is a number, "ok", or a name of `ERROR_STATUSES`. `model` is a name sent upstream, or else one asked.
    """

    text: str = ""
    where: Where = EVERYTHING
    model: str = ""
    status: str = ""
    cause: str = ""
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    before: uuid.UUID = LAST_ID


@dataclass(frozen=True, slots=True)
class Page:
    """`older`: where the next page begins, None at the end. `looked_back_to`: set when the page ended early."""

    rows: list[RequestLog]
    older: uuid.UUID | None = None
    looked_back_to: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class Hour:
    """An hour that may have matches: at least `matches` of them, among `rows`."""

    start: dt.datetime
    matches: int
    rows: int


def first_id_of(moment: dt.datetime) -> uuid.UUID:
    """The smallest UUIDv7 of `moment`: a period of requests is a range of their primary key."""
    return uuid.UUID(int=max(int(moment.timestamp() * 1000), 0) << 80)


def moment_of(row_id: uuid.UUID) -> dt.datetime:
    """When the request of this id was admitted; the end of time for an id that no clock made."""
    return dt.datetime.fromtimestamp(min((row_id.int >> 80) / 1000, END_OF_TIME), dt.UTC)


def find_page(search: Search, rows: QuerySet[RequestLog] | None = None) -> Page:
    """At most four queries, and those that `rows` prefetches."""
    ledger = (RequestLog.objects.all() if rows is None else rows).order_by("-pk")
    if search.text:
        return Page(list(ledger.filter(_by_text(search.text))[:PAGE_ROWS]))
    guide = _Guide.of(search)
    mark = Watermark.objects.filter(name=ROLLUP).first() if guide else None
    if guide is None or mark is None:
        in_period = _any_of([_bounds(search)])
        return _page(list(ledger.filter(in_period & _condition(search, is_sent=False))[: PAGE_ROWS + 1]))
    return _guided_page(search, ledger, guide, mark.at - LATE)


def _guided_page(search: Search, ledger: QuerySet[RequestLog], guide: _Guide, summed_to: dt.datetime) -> Page:
    """The hours that are not summed yet are read too: they come first."""
    tail = hour_of(summed_to) - HOUR
    hours, has_more = _pick(guide.hours(before=tail))
    first, last = _bounds(search)
    ranges = [(max(first_id_of(tail - SLACK), first), last)]
    for start, end in _spans(hour.start for hour in hours):
        ranges.append((max(first_id_of(start - SLACK), first), min(first_id_of(end + SLACK), last)))
    condition = _condition(search, is_sent=guide.is_sent)
    page = _page(list(ledger.filter(condition & _any_of(ranges))[: PAGE_ROWS + 1]))
    if page.older is None and has_more:
        return Page(page.rows, older=first_id_of(hours[-1].start - SLACK), looked_back_to=hours[-1].start)
    return page


def _bounds(search: Search) -> tuple[uuid.UUID, uuid.UUID]:
    """The first id of the period, and the one before which it ends."""
    first = FIRST_ID if search.since is None else first_id_of(search.since)
    last = search.before if search.until is None else min(first_id_of(search.until), search.before)
    return first, last


def _any_of(ranges: Iterable[tuple[uuid.UUID, uuid.UUID]]) -> Q:
    """Each range bounded by itself: with a common bound beside them PostgreSQL reads the index of all that it spans."""
    condition = Q(pk__in=[])
    for first, last in ranges:
        if first < last:
            condition |= Q(pk__gte=first, pk__lt=last)
    return condition


def _page(found: list[RequestLog]) -> Page:
    rows = found[:PAGE_ROWS]
    return Page(rows, older=rows[-1].pk if len(found) > PAGE_ROWS else None)


def _pick(hours: Iterable[Hour]) -> tuple[list[Hour], bool]:
    """The newest hours that fill a page, as far as the rows of a page allow; whether there are more."""
    picked: list[Hour] = []
    matches = rows = 0
    for hour in hours:
        if picked and (matches > PAGE_ROWS or rows + hour.rows > MOST_ROWS_READ or len(picked) == MOST_HOURS):
            return picked, True
        picked.append(hour)
        matches, rows = matches + hour.matches, rows + hour.rows
    return picked, False


def _spans(hours: Iterable[dt.datetime]) -> Iterator[tuple[dt.datetime, dt.datetime]]:
    """Descending hours as few pieces of time."""
    end = start = None
    for hour in hours:
        if start is not None and end is not None and hour + HOUR != start:
            yield start, end
            end = None
        end = end or hour + HOUR
        start = hour
    if start is not None and end is not None:
        yield start, end


@dataclass(frozen=True, slots=True)
class _Guide:
    """The roll-ups that know in which hours a search can have matches."""

    search: Search
    is_sent: bool  # the model's name is one that was sent upstream; else only the ledger knows it

    @classmethod
    def of(cls, search: Search) -> _Guide | None:
        """None if the primary key is all that the search needs. One query if it is about a model."""
        if not (search.where != EVERYTHING or search.model or search.status or search.cause):
            return None
        is_sent = bool(search.model) and UsageHour.objects.filter(model=search.model).exists()
        return cls(search, is_sent)

    def hours(self, *, before: dt.datetime) -> Iterator[Hour]:
        """Newest first; one query."""
        start = min(before, hour_of(moment_of(self.search.before)) + HOUR, _end(self.search))
        period = Q(hour__lt=start)
        if self.search.since is not None:
            period &= Q(hour__gte=hour_of(self.search.since))
        most = MOST_HOURS + 1
        if self.search.where != EVERYTHING or self.is_sent:
            is_exact = not (self.search.status or self.search.cause or (self.search.model and not self.is_sent))
            found = self._usage(period)[:most]
            return (Hour(hour, matches if is_exact else 0, rows) for hour, matches, rows in found)
        return (Hour(hour, self._matches(s, c), n) for hour, n, s, c in self._traffic(period)[:most])

    def _usage(self, period: Q) -> Any:
        search = self.search
        where = search.where.condition("model") & (Q(model=search.model) if self.is_sent else Q())
        rows = UsageHour.objects.filter(period & where)
        if search.status or search.cause:
            rows = rows.filter(hour__in=self._outcomes(TrafficHour.objects.filter(period)).values("hour"))
        all_rows = TrafficHour.objects.filter(hour=OuterRef("hour")).values("requests")
        summed = rows.order_by("-hour").values("hour").annotate(matches=Sum("requests"))
        return summed.annotate(rows=Coalesce(Subquery(all_rows, output_field=IntegerField()), 0)).values_list(
            "hour", "matches", "rows"
        )

    def _traffic(self, period: Q) -> Any:
        rows = self._outcomes(TrafficHour.objects.filter(period)).order_by("-hour")
        return rows.values_list("hour", "requests", "statuses", "causes")

    def _outcomes(self, hours: QuerySet[TrafficHour]) -> QuerySet[TrafficHour]:
        status, cause = self.search.status, self.search.cause
        if status in ERROR_STATUSES:
            hours = hours.filter(errors__gt=0)
        elif status.isdecimal():
            hours = hours.filter(statuses__has_key=status)
        return hours.filter(causes__has_key=cause) if cause else hours

    def _matches(self, statuses: dict[str, int], causes: dict[str, int]) -> int:
        """How many there are at least; 0 if that can't be told."""
        search = self.search
        if search.model or (search.status and search.cause):
            return 0
        return causes.get(search.cause, 0) if search.cause else statuses.get(search.status, 0)


def _end(search: Search) -> dt.datetime:
    return search.until or dt.datetime.max.replace(tzinfo=dt.UTC)


def _condition(search: Search, *, is_sent: bool) -> Q:
    condition = search.where.condition("model_sent")
    if search.model:
        asked = Q(pk__in=[]) if is_sent else Q(model_asked=search.model)
        condition &= Q(model_sent=search.model) | asked
    if search.status:
        condition &= _by_status(search.status)
    return condition & Q(cause=search.cause) if search.cause else condition


def _by_status(status: str) -> Q:
    if status.isdecimal():
        return Q(status=int(status))
    return ERROR_STATUSES.get(status, Q(status__lt=400))


def _by_text(text: str) -> Q:
    try:
        return Q(pk=uuid.UUID(text.removeprefix("req_")))  # a request id is its row's id
    except ValueError:
        return Q(generation_id=text) & ~Q(generation_id="")
