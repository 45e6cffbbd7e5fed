"""Finds requests in a ledger of any size: a page at a time, newest first, in a fixed number of queries.

Nothing counts or sorts the table. Ids are in the order of admission, so a page is a range of the primary key. What
can't be found by an index (a client, a key, a model, a status, a cause) is led by the roll-ups: they tell the hours
that have such requests, and only the rows of those are read, at most about `MOST_ROWS_READ` for a page. A page may
therefore end early; `Page.older` goes on where it stopped.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Q, QuerySet, prefetch_related_objects

from keys.models import RequestLog, TrafficHour, UsageHour, Watermark
from keys.spans import HOUR
from keys.traffic import hour_of
from keys.usage import EVERYTHING, LATE, ROLLUP, Where

PAGE_ROWS = 50
MOST_ROWS_READ = 50_000
MOST_HOURS = 60
MOST_SUMS_READ = 600  # an hour has one sum for each key, client and model
SLACK = dt.timedelta(seconds=5)  # a request's id is made a little before or after its stamp, perhaps in another hour
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


def find_page(search: Search, *related: str) -> Page:
    """At most five queries, and one for each of the `related` rows, which may be missing."""
    page = _find(search)
    prefetch_related_objects(page.rows, *related)
    return page


def _find(search: Search) -> Page:
    if search.text:
        return Page(list(_in_order([_by_text(search.text)])[:PAGE_ROWS]))
    guide = _Guide.of(search)
    mark = Watermark.objects.filter(name=ROLLUP).first() if guide else None
    if guide is None or mark is None:
        return _page(search, [_bounds(search)], is_sent=False)
    return _guided_page(search, guide, mark.at - LATE)


def _guided_page(search: Search, guide: _Guide, summed_to: dt.datetime) -> Page:
    """The hours that are not summed yet are read too: they come first."""
    tail = hour_of(summed_to) - HOUR
    hours, has_more = _pick(guide.hours(before=tail))
    tail_id = first_id_of(tail - SLACK)
    ranges = [(tail_id, LAST_ID)]
    for start, end in _spans(hour.start for hour in hours):
        ranges.append((first_id_of(start - SLACK), min(first_id_of(end + SLACK), tail_id)))
    first, last = _bounds(search)
    clipped = [(max(start, first), min(end, last)) for start, end in ranges]
    page = _page(search, clipped, is_sent=guide.is_sent)
    if page.older is None and has_more:
        return Page(page.rows, older=first_id_of(hours[-1].start - SLACK), looked_back_to=hours[-1].start)
    return page


def _bounds(search: Search) -> tuple[uuid.UUID, uuid.UUID]:
    """The first id of the period, and the one before which it ends."""
    first = FIRST_ID if search.since is None else first_id_of(search.since)
    last = search.before if search.until is None else min(first_id_of(search.until), search.before)
    return first, last


def _page(search: Search, ranges: Iterable[tuple[uuid.UUID, uuid.UUID]], *, is_sent: bool) -> Page:
    """The newest rows of the ranges that match. One query, or none if there is nothing to read."""
    condition = _condition(search, is_sent=is_sent)
    parts = [Q(pk__gte=first, pk__lt=last) & condition for first, last in ranges if first < last]
    found = list(_in_order(parts)[: PAGE_ROWS + 1]) if parts else []
    rows = found[:PAGE_ROWS]
    return Page(rows, older=rows[-1].pk if len(found) > PAGE_ROWS else None)


def _in_order(parts: Sequence[Q]) -> QuerySet[RequestLog]:
    """The rows of any of the disjoint `parts`, newest first.

    A union and not an OR: for an OR of ranges SQLite reads the whole table, and PostgreSQL all that the ranges span.
    """
    first, *others = (RequestLog.objects.filter(part) for part in parts)
    return (first.union(*others, all=True) if others else first).order_by("-id")


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
        """Newest first; two queries at most."""
        start = min(before, hour_of(moment_of(self.search.before)) + HOUR, _end(self.search))
        period = Q(hour__lt=start)
        if self.search.since is not None:
            period &= Q(hour__gte=hour_of(self.search.since))
        if self.search.where != EVERYTHING or self.is_sent:
            return self._by_usage(period)
        rows = self._traffic(period)[: MOST_HOURS + 1]
        return (Hour(hour, self._matches(statuses, causes), count) for hour, count, statuses, causes in rows)

    def _by_usage(self, period: Q) -> Iterator[Hour]:
        """Grouped here and not in SQL, which would sum all hours to find the newest."""
        matches: dict[dt.datetime, int] = {}
        found = list(self._usage(period)[:MOST_SUMS_READ])
        for hour, requests in found:
            matches[hour] = matches.get(hour, 0) + requests
        newest = list(matches)[: MOST_HOURS + 1]
        rows = dict(TrafficHour.objects.filter(hour__in=newest).order_by().values_list("hour", "requests"))
        is_exact = not (self.search.status or self.search.cause or (self.search.model and not self.is_sent))
        for hour in newest:
            yield Hour(hour, matches[hour] if is_exact else 0, rows.get(hour, 0))
        if len(found) == MOST_SUMS_READ:  # there are older ones, whose sums were not read
            yield Hour(newest[-1], 0, MOST_ROWS_READ + 1)

    def _usage(self, period: Q) -> QuerySet[UsageHour, tuple[dt.datetime, int]]:
        search = self.search
        where = search.where.condition("model") & (Q(model=search.model) if self.is_sent else Q())
        rows = UsageHour.objects.filter(period & where)
        if search.status or search.cause:
            rows = rows.filter(hour__in=self._outcomes(TrafficHour.objects.filter(period)).values("hour"))
        return rows.order_by("-hour").values_list("hour", "requests")

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
