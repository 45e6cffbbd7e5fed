"""Filters of the lists. None of them asks the database which values there are: on a table that grows that is a scan."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone

from keys.causes import SCOPES, Cause
from keys.models import KeyState

PERIODS = {
    "1h": ("last hour", 1),
    "24h": ("last 24 hours", 24),
    "7d": ("last 7 days", 168),
    "30d": ("last 30 days", 720),
}
STATUSES = {
    "ok": ("answered (below 400)", Q(status__lt=400)),
    "error": ("any error", Q(status__gte=400)),
    "4xx": ("400 to 499", Q(status__gte=400, status__lt=500)),
    "5xx": ("500 to 599", Q(status__gte=500)),
    **{
        str(status): (f"{status} {words}", Q(status=status))
        for status, words in (
            (400, "bad request"),
            (404, "not found"),
            (429, "rate limit"),
            (499, "client left"),
            (500, "error"),
            (504, "timeout"),
            (529, "overloaded"),
        )
    },
}


def first_id_of(moment: dt.datetime) -> uuid.UUID:
    """The smallest UUIDv7 of `moment`: a period of requests is a range of their primary key."""
    return uuid.UUID(int=int(moment.timestamp() * 1000) << 80)


class PeriodFilter(admin.SimpleListFilter):
    title = "period"
    parameter_name = "period"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(value, words) for value, (words, _) in PERIODS.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() not in PERIODS:
            return queryset
        hours = PERIODS[str(self.value())][1]
        return queryset.filter(pk__gte=first_id_of(timezone.now() - dt.timedelta(hours=hours)))


class StatusFilter(admin.SimpleListFilter):
    title = "status"
    parameter_name = "answer"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(value, words) for value, (words, _) in STATUSES.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        chosen = STATUSES.get(str(self.value()))
        return queryset.filter(chosen[1]) if chosen else queryset


class BenchCauseFilter(admin.SimpleListFilter):
    """Only the causes that bench something."""

    title = "cause"
    parameter_name = "cause"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(cause.value, str(cause.label)) for cause in SCOPES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(cause=self.value()) if self.value() in Cause.values else queryset


class OpenFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "open"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "open"), ("due", "open and due for a trial"), ("no", "cleared")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        match self.value():
            case "yes":
                return queryset.filter(cleared_at__isnull=True)
            case "due":
                return queryset.filter(cleared_at__isnull=True, until__lte=timezone.now())
            case "no":
                return queryset.filter(cleared_at__isnull=False)
        return queryset


class StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "is"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("here", "all but retired"), *((state.value, str(state.label)) for state in KeyState)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() == "here":
            return queryset.exclude(state=KeyState.RETIRED)
        return queryset.filter(state=self.value()) if self.value() in KeyState.values else queryset


class RevokedFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "is"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("valid", "valid"), ("expired", "expired"), ("revoked", "revoked")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        now = timezone.now()
        match self.value():
            case "valid":
                unexpired = Q(expires_at__isnull=True) | Q(expires_at__gt=now)
                return queryset.filter(unexpired, revoked_at__isnull=True)
            case "expired":
                return queryset.filter(revoked_at__isnull=True, expires_at__lte=now)
            case "revoked":
                return queryset.filter(revoked_at__isnull=False)
        return queryset
