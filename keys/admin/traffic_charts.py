"""The charts of the home page, each with the table of its numbers."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.utils import timezone

from keys.admin.charts import TONES, Chart, Series
from keys.admin.display import NANO_PER_USD, cost, milliseconds
from keys.causes import Cause
from keys.spans import HOUR, Span
from keys.traffic import Traffic, hour_of, in_steps, percentile_ms

MOST_CAUSES = 5
NO_CAUSE = "other error"


@dataclass(frozen=True, slots=True)
class Period:
    """A choice of the page. `step_of` gives the local start of the step that an hour is in."""

    words: str
    hours: int
    pattern: str
    step_of: Callable[[dt.datetime], dt.datetime]


def _of_hours(count: int) -> Callable[[dt.datetime], dt.datetime]:
    def step_of(hour: dt.datetime) -> dt.datetime:
        local = timezone.localtime(hour)
        return local.replace(hour=local.hour // count * count, minute=0, fold=0) if count > 1 else local

    return step_of


PERIODS = {
    "24h": Period("24 hours", 24, "%H:%M", _of_hours(1)),
    "7d": Period("7 days", 168, "%a %H:%M", _of_hours(6)),
    "30d": Period("30 days", 720, "%b %-d", _of_hours(24)),
}


@dataclass(frozen=True, slots=True)
class Drawn:
    """A chart and the table of its numbers. `is_empty`: there is nothing to draw."""

    id: str
    chart: dict[str, Any]
    headings: list[str]
    lines: list[list[str]]


def traffic_charts(hours: Mapping[dt.datetime, Traffic], name: str, now: dt.datetime) -> dict[str, Any]:
    """For the period of that name, by default the first. `drawn` is empty when there was no request."""
    period = PERIODS.get(name) or next(iter(PERIODS.values()))
    end = hour_of(now) + HOUR
    steps = in_steps(hours, Span(end - period.hours * HOUR, end), period.step_of)
    labels = [f"{start:{period.pattern}}" for start in steps]
    totals = list(steps.values())
    total = Traffic()
    for one in totals:
        total += one
    makers = (_requests, _costs, _errors, _latency)
    return {
        "words": period.words,
        "zone": timezone.get_current_timezone_name(),
        "requests": f"{total.usage.requests:,}",
        "errors": f"{total.usage.errors:,}",
        "cost": cost(total.usage.cost_nano, total.usage.unknown_costs),
        "p50": milliseconds(percentile_ms(total.latency, 0.5)),
        "p95": milliseconds(percentile_ms(total.latency, 0.95)),
        "drawn": [make(labels, totals, total) for make in makers] if total.usage.requests else [],
    }


def _requests(labels: list[str], steps: list[Traffic], total: Traffic) -> Drawn:
    good = [one.usage.requests - one.usage.errors for one in steps]
    bad = [one.usage.errors for one in steps]
    chart = Chart("Requests", "count", labels, [Series("answered", good, "good"), Series("errors", bad, "bad")])
    return _drawn("requests", chart, str_of_count)


def _costs(labels: list[str], steps: list[Traffic], total: Traffic) -> Drawn:
    values = [one.usage.cost_nano / NANO_PER_USD for one in steps]
    table = [[cost(one.usage.cost_nano, one.usage.unknown_costs)] for one in steps]
    chart = Chart("Cost in USD", "usd", labels, [Series("cost", values)])
    return Drawn("cost", chart.as_json(), ["time", "cost"], _with(labels, table))


def _errors(labels: list[str], steps: list[Traffic], total: Traffic) -> Drawn:
    names = [cause for cause, _ in total.causes.most_common(MOST_CAUSES)]
    series = [
        Series(_words(cause), [one.causes[cause] for one in steps], tone)
        for cause, tone in zip(names, TONES, strict=False)
    ]
    rest = [one.causes.total() - sum(one.causes[cause] for cause in names) for one in steps]
    if any(rest):
        series.append(Series("all others", rest, "f"))
    return _drawn("errors", Chart("Errors by cause", "count", labels, series), str_of_count)


def _latency(labels: list[str], steps: list[Traffic], total: Traffic) -> Drawn:
    series = [
        Series(words, [percentile_ms(one.latency, share) for one in steps], tone)
        for words, share, tone in (("p50", 0.5, TONES[0]), ("p95", 0.95, TONES[1]))
    ]
    return _drawn("latency", Chart("Latency", "ms", labels, series, is_lines=True), milliseconds)


def _drawn(name: str, chart: Chart, text_of: Callable[[Any], str]) -> Drawn:
    rows = [[text_of(series.values[n]) for series in chart.series] for n in range(len(chart.labels))]
    return Drawn(name, chart.as_json(), ["time", *(one.name for one in chart.series)], _with(chart.labels, rows))


def _with(labels: list[str], rows: list[list[str]]) -> list[list[str]]:
    return [[label, *row] for label, row in zip(labels, rows, strict=True)]


def _words(cause: str) -> str:
    return str(Cause(cause).label) if cause in Cause.values else cause or NO_CAUSE


def str_of_count(value: int) -> str:
    return f"{value:,}"
