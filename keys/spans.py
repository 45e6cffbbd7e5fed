"""Pieces of time: what reports sum, and what the roll-ups lack. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from django.db.models import Q

HOUR = dt.timedelta(hours=1)
DAY = dt.timedelta(days=1)
MOMENT = dt.timedelta(microseconds=1)
MAX_SPANS = 40


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

    def days(self) -> Iterator[dt.date]:
        """The UTC days that it touches."""
        day, last = self.start.astimezone(dt.UTC).date(), (self.end - MOMENT).astimezone(dt.UTC).date()
        while day <= last:
            yield day
            day += DAY


def spans_of(hours: Iterable[dt.datetime]) -> list[Span]:
    """Ascending `hours` as few spans; as one that covers them all when they are too many for one query."""
    spans: list[Span] = []
    for hour in hours:
        if spans and spans[-1].end == hour:
            spans[-1] = Span(spans[-1].start, hour + HOUR)
        else:
            spans.append(Span(hour, hour + HOUR))
    return spans if len(spans) <= MAX_SPANS else [Span(spans[0].start, spans[-1].end)]


def any_of(spans: Iterable[Span], column: str) -> Q:
    condition = Q()
    for span in spans:
        condition |= span.condition(column)
    return condition
