"""The report of usage and cost: a period, its totals, and a line for each key, client or model and day."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.urls import path
from django.utils import timezone

from keys.admin.base import ReadOnlyAdmin
from keys.admin.key_page import numbers_of
from keys.models import UsageHour
from keys.usage import Usage, UsageOfDay, usage_by_day

GROUPS = (("key", "key"), ("client", "client"), ("model", "model"))
PRESETS = (("today", 1), ("7 days", 7), ("30 days", 30), ("90 days", 90))
DEFAULT_DAYS = 7
MOST_DAYS = 366
MOST_LINES = 2_000


class PeriodForm(forms.Form):
    """UTC days, both included."""

    since = forms.DateField(label="from", widget=forms.DateInput(attrs={"type": "date"}))
    until = forms.DateField(label="to", widget=forms.DateInput(attrs={"type": "date"}))
    group = forms.ChoiceField(label="by", choices=GROUPS)

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        since, until = cleaned.get("since"), cleaned.get("until")
        if since and until and since > until:
            self.add_error("until", "The period ends before it begins.")
        elif since and until and (until - since).days >= MOST_DAYS:
            self.add_error("until", f"The period has more than {MOST_DAYS} days.")
        if until and until > timezone.now().date() + dt.timedelta(days=1):
            self.add_error("until", "The period ends after today.")
        return cleaned


@admin.register(UsageHour)
class UsageAdmin(ReadOnlyAdmin):
    """Takes the place of the list of the hourly sums, which nobody reads one by one."""

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.report_view)
        return [path("", view, name=f"{self.opts.app_label}_{self.opts.model_name}_changelist")]

    def report_view(self, request: HttpRequest) -> TemplateResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        today = timezone.now().date()
        form = PeriodForm({**_defaults(today), **request.GET.dict()})
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "Usage and cost",
            "form": form,
            "presets": [(words, _preset(today, days, form.data["group"])) for words, days in PRESETS],
            **(_report(**form.cleaned_data) if form.is_valid() else {}),
        }
        return TemplateResponse(request, "keys/admin/usage.html", context)


def _defaults(today: dt.date) -> dict[str, str]:
    since = today - dt.timedelta(days=DEFAULT_DAYS - 1)
    return {"since": since.isoformat(), "until": today.isoformat(), "group": "key"}


def _preset(today: dt.date, days: int, group: str) -> dict[str, str]:
    since = today - dt.timedelta(days=days - 1)
    return {"since": since.isoformat(), "until": today.isoformat(), "group": group}


def _report(*, since: dt.date, until: dt.date, group: Any) -> dict[str, Any]:
    lines = usage_by_day(since, until, group)
    newest_first = sorted(lines, key=lambda line: line.day, reverse=True)
    return {
        "group": group,
        "totals": numbers_of(sum((line.usage for line in lines), Usage())),
        "by_target": [{"label": label, **numbers_of(used)} for label, used in _by_target(lines)],
        "lines": [
            {"day": line.day.isoformat(), "label": line.label, **numbers_of(line.usage)}
            for line in newest_first[:MOST_LINES]
        ],
        "left_out": max(len(lines) - MOST_LINES, 0),
    }


def _by_target(lines: list[UsageOfDay]) -> list[tuple[str, Usage]]:
    """Each target's whole period, dearest first."""
    sums: dict[tuple[Any, str], Usage] = {}
    for line in lines:
        target = (line.target, line.label)
        sums[target] = sums.get(target, Usage()) + line.usage
    dearest = sorted(sums.items(), key=lambda item: (-item[1].cost_nano, -item[1].requests, item[0][1]))
    return [(label, used) for (_, label), used in dearest]
