"""The report of usage and cost: a period by key, account, client, model, day or hour, beside the period before it."""

from __future__ import annotations

import datetime as dt
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone

from keys.admin.base import ReadOnlyAdmin
from keys.admin.charts import TONES, Chart, Series
from keys.admin.display import NANO_PER_USD, NOTHING, change, decimals_of, dollars
from keys.admin.rows import list_of
from keys.csv_text import csv_response
from keys.models import RequestLog, UsageHour
from keys.report_form import ReportForm
from keys.report_rows import csv_heading, csv_rows
from keys.reports import TIMES, Line, Question, Report, change_of, read_report
from keys.spans import DAY, HOUR, Span
from keys.usage import Usage, known_models

PRESETS = (
    ("today", 0, 0),
    ("yesterday", 1, 1),
    ("7 days", 6, 0),
    ("30 days", 29, 0),
    ("90 days", 89, 0),
    ("12 months", 364, 0),
)
MOST_BARS = 20
SOURCES = (
    ("reported", "in the answers", "reported_nano"),
    ("reconciled", "with OpenRouter afterwards", "reconciled_nano"),
    ("estimated", "from list prices", "estimated_nano"),
)


@admin.register(UsageHour)
class UsageAdmin(ReadOnlyAdmin):
    """Takes the place of the list of the hourly sums, which nobody reads one by one."""

    def get_urls(self) -> list[Any]:
        view, name = self.admin_site.admin_view, f"{self.opts.app_label}_{self.opts.model_name}"
        return [
            path("", view(self.report_view), name=f"{name}_changelist"),
            path("usage.csv", view(self.csv_view), name=f"{name}_csv"),
        ]

    def report_view(self, request: HttpRequest) -> HttpResponse:
        form = self._form(request)
        form.offer_choices()
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "Usage and cost",
            "form": form,
            "presets": list(_presets(form)),
            "models": known_models(),
            "csv": f"{reverse('admin:keys_usagehour_csv')}?{request.GET.urlencode()}",
            **(_shown(request, read_report(form.question())) if form.is_valid() else {}),
        }
        return TemplateResponse(request, "keys/admin/usage.html", context)

    def csv_view(self, request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
        """Of exactly what the page shows."""
        form = self._form(request)
        if not form.is_valid():
            return HttpResponse("The page of the report says what is wrong.", status=400, content_type="text/plain")
        report = read_report(form.question())
        question = report.question
        name = f"usage-by-{question.group}-{question.since}-{question.until}.csv"
        return csv_response(request, name, csv_heading(report), csv_rows(report))

    def _form(self, request: HttpRequest) -> ReportForm:
        if not self.has_view_permission(request):
            raise PermissionDenied
        return ReportForm(request.GET.dict())


def _presets(form: ReportForm) -> Any:
    today = timezone.now().date()
    for words, first, last in PRESETS:
        since, until = ((today - days * DAY).isoformat() for days in (first, last))
        is_on = str(form.data.get("since")) == since and str(form.data.get("until")) == until
        yield words, {"since": since, "until": until}, is_on


def _shown(request: HttpRequest, report: Report) -> dict[str, Any]:
    question = report.question
    sums = [report.totals, *(line.usage for line in report.lines)]
    decimals = decimals_of(nano for usage in sums for nano in (usage.cost_nano, usage.estimated_nano))
    may_see_requests = request.user.has_perm("keys.view_requestlog")
    return {
        "report": report,
        "heading": f"By {question.group}{' (UTC)' if question.group in TIMES else ''}",
        "totals": {**_numbers(report.totals, report.before, decimals), **_headline(report.totals, report.before)},
        "before": question.before,
        "is_open": question.until >= timezone.now().date(),
        "sources": list(_sources(report.totals)),
        "lines": [
            {
                "label": _label(line),
                "requests_link": _drill_down(question, line) if may_see_requests else "",
                **_numbers(line.usage, line.before, decimals),
            }
            for line in report.lines
        ],
        "chart": _chart(report),
    }


def _numbers(usage: Usage, before: Usage, decimals: int) -> dict[str, str]:
    return {
        "requests": f"{usage.requests:,}",
        "errors": f"{usage.errors:,}",
        "tokens_in": f"{usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens:,}",
        "tokens_out": f"{usage.output_tokens:,}",
        "cost": dollars(usage.cost_nano, decimals=decimals),
        "estimated": dollars(usage.estimated_nano, decimals=decimals) if usage.estimated_nano else NOTHING,
        "unknown": f"{usage.unknown_costs:,}" if usage.unknown_costs else NOTHING,
        "cost_change": change(change_of(usage.cost_nano, before.cost_nano)),
        "requests_change": change(change_of(usage.requests, before.requests)),
    }


def _headline(usage: Usage, before: Usage) -> dict[str, str]:
    """The sums at the top, and beside them what the period before had."""
    if not before.requests:
        return {"sum": dollars(usage.cost_nano), "cost_beside": "nothing before", "requests_beside": "none before"}
    return {
        "sum": dollars(usage.cost_nano),
        "cost_beside": f"{change(change_of(usage.cost_nano, before.cost_nano))}, was {dollars(before.cost_nano)}",
        "requests_beside": f"{change(change_of(usage.requests, before.requests))}, was {before.requests:,}",
    }


def _sources(usage: Usage) -> Any:
    decimals = decimals_of(getattr(usage, column) for _, _, column in SOURCES)
    for name, words, column in SOURCES:
        nano = getattr(usage, column)
        share = f"{nano / usage.cost_nano:.1%}" if usage.cost_nano else NOTHING
        yield name, words, dollars(nano, decimals=decimals), share


def _label(line: Line) -> str:
    return line.label or NOTHING


def _drill_down(question: Question, line: Line) -> str:
    """The requests that the line sums; "" where the search can't name them."""
    period = _period_of(question, line)
    values: dict[str, Any] = {"since": period.start, "until": period.end}
    for name in ("key", "account", "client", "model"):
        values[name] = getattr(question, name) or ""
    if question.group not in TIMES:
        is_unnamed = line.target in (None, "") and question.group != "key"
        if question.joined or is_unnamed:
            return ""
        values[question.group] = line.target or "none"
    return list_of(RequestLog, urlencode({name: _text(value) for name, value in values.items() if value}))


def _period_of(question: Question, line: Line) -> Span:
    match question.group:
        case "day":
            return Span.of_days(line.target, line.target)
        case "hour":
            return Span(line.target, line.target + HOUR)
    return question.period


def _text(value: Any) -> str:
    return f"{value:%Y-%m-%dT%H:%MZ}" if isinstance(value, dt.datetime) else str(value)


def _chart(report: Report) -> dict[str, Any]:
    """Cost by source, over time or of the dearest targets."""
    is_time = report.question.group in TIMES
    lines = report.lines if is_time else [line for line in report.lines if line.usage.cost_nano][:MOST_BARS]
    series = [
        Series(name, [getattr(line.usage, column) / NANO_PER_USD for line in lines], tone)
        for (name, _, column), tone in zip(SOURCES, TONES, strict=False)
    ]
    shown = [one for one in series if any(one.values)] or series[:1]
    return Chart(
        title="Cost in USD", unit="usd", labels=[_label(line) for line in lines], series=shown, is_across=not is_time
    ).as_json()
