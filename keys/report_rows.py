"""A report as data: the rows of its CSV and the object of its JSON. Money is a decimal text in USD, never a float."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from keys.reports import Line, Question, Report
from keys.usage import Usage

TOTAL = "total"
NUMBERS = (
    "requests",
    "errors",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cost_usd",
    "reported_usd",
    "reconciled_usd",
    "estimated_usd",
    "unknown_costs",
)
BEFORE = ("requests_before", "cost_usd_before")


def usd(nano: int) -> str:
    """All nine decimals, as `1234.000000001`."""
    return f"{Decimal(nano).scaleb(-9):.9f}"


def numbers_of(usage: Usage) -> dict[str, Any]:
    """By the names of `NUMBERS`. The three sources add up to the cost; `unknown_costs` counts requests."""
    return {
        "requests": usage.requests,
        "errors": usage.errors,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "cost_usd": usd(usage.cost_nano),
        "reported_usd": usd(usage.reported_nano),
        "reconciled_usd": usd(usage.reconciled_nano),
        "estimated_usd": usd(usage.estimated_nano),
        "unknown_costs": usage.unknown_costs,
    }


def csv_heading(report: Report) -> list[str]:
    return [report.question.group, *NUMBERS, *BEFORE]


def csv_rows(report: Report) -> Iterator[list[Any]]:
    """A row for each line, and one for the totals."""
    for line in report.lines:
        yield _row(line)
    yield _row(Line(None, TOTAL, report.totals, report.before))


def json_of(report: Report) -> dict[str, Any]:
    question = report.question
    return {
        "period": _period(question),
        "periodBefore": _period(question.before),
        "group": question.group,
        "filters": {
            name: str(value)
            for name in ("key", "account", "client", "model")
            if (value := getattr(question, name)) not in (None, "")
        },
        "joined": question.joined,
        "currency": "USD",
        "totals": _beside(report.totals, report.before),
        "lines": [
            {question.group: _target(line.target), "label": line.label, **_beside(line.usage, line.before)}
            for line in report.lines
        ],
    }


def _row(line: Line) -> list[Any]:
    return [line.label, *numbers_of(line.usage).values(), line.before.requests, usd(line.before.cost_nano)]


def _beside(usage: Usage, before: Usage) -> dict[str, Any]:
    return {**numbers_of(usage), "before": numbers_of(before)}


def _period(question: Question) -> dict[str, str]:
    return {"since": question.since.isoformat(), "until": question.until.isoformat()}


def _target(target: Any) -> str | None:
    if target is None:
        return None
    return target.isoformat().replace("+00:00", "Z") if isinstance(target, dt.datetime) else str(target)
