"""The home page: how the pool is, what needs attention, and how the traffic of the last days was."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from django.db.models import Count
from django.http import HttpRequest
from django.utils import timezone

from keys.admin.attention import attention_of
from keys.admin.display import clock, cost, countdown, relative
from keys.admin.pool import KeyView, one_account_warning, view_keys
from keys.admin.rows import page_of
from keys.admin.traffic_charts import PERIODS, traffic_charts
from keys.models import Client, InFlight, KeyState, OpenRouterKey
from keys.spans import HOUR, Span
from keys.traffic import Traffic, hour_of, traffic_by_hour

MOST_KEYS = 24  # on the strip; the list has all
MOST_DAYS = 30
TONES = ("bad", "wait", "good", "off")


def home_context(request: HttpRequest) -> dict[str, Any]:
    """Each part for who may view it; a fixed number of queries."""
    may_view: Callable[[str], bool] = request.user.has_perm
    now = timezone.now()
    context: dict[str, Any] = {}
    hours = _traffic(now) if may_view("keys.view_requestlog") else None
    if hours is not None:
        context |= {"traffic": traffic_charts(hours, request.GET.get("period", ""), now), "periods": _periods(request)}
    if may_view("keys.view_openrouterkey"):
        context |= _pool(now, hours)
    return context


def _traffic(now: dt.datetime) -> dict[dt.datetime, Traffic]:
    end = hour_of(now) + HOUR
    return traffic_by_hour(Span(end - dt.timedelta(days=MOST_DAYS), end))


def _periods(request: HttpRequest) -> list[tuple[str, str, bool]]:
    chosen = request.GET.get("period", "")
    chosen = chosen if chosen in PERIODS else next(iter(PERIODS))
    return [(name, period.words, name == chosen) for name, period in PERIODS.items()]


def _pool(now: dt.datetime, hours: dict[dt.datetime, Traffic] | None) -> dict[str, Any]:
    in_pool = OpenRouterKey.objects.exclude(state=KeyState.RETIRED).select_related("account").defer("secret")
    keys = list(in_pool.order_by("created_at", "pk"))
    views = view_keys(keys)
    in_flight = dict(InFlight.objects.order_by().values_list("key").annotate(count=Count("pk")))
    return {
        "pool": [_card(key, views[key.pk], in_flight.get(key.pk, 0), now) for key in _first(keys, views)],
        "attention": attention_of(keys, views, hours, now),
        "more_keys": max(len(keys) - MOST_KEYS, 0),
        "has_no_key": not keys,
        "has_no_client": not Client.objects.filter(revoked_at__isnull=True).exists(),
        "one_account_warning": one_account_warning,
        "today_began": clock(now.astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0), now),
    }


def _first(keys: Sequence[OpenRouterKey], views: dict[uuid.UUID, KeyView]) -> Sequence[OpenRouterKey]:
    """In the order they were added; of too many those that are in trouble."""
    if len(keys) <= MOST_KEYS:
        return keys
    return sorted(keys, key=lambda key: TONES.index(views[key.pk].standing.tone))[:MOST_KEYS]


def _card(key: OpenRouterKey, view: KeyView, in_flight: int, now: dt.datetime) -> dict[str, Any]:
    free_at = view.blocking.free_at if key.state == KeyState.ACTIVE else None
    return {
        "key": key,
        "page": page_of(key),
        "standing": view.standing,
        "reason": view.standing.beside_countdown or view.standing.reason,
        "until": free_at.isoformat() if free_at and free_at > now else "",
        "left": countdown(free_at, now) if free_at and free_at > now else "",
        "in_flight": f"{in_flight:,}",
        "requests": f"{view.today.requests:,}",
        "cost": cost(view.today.cost_nano, view.today.unknown_costs),
        "check": _check(key, now),
    }


def _check(key: OpenRouterKey, now: dt.datetime) -> dict[str, str]:
    if key.checked_at is None:
        return {"tone": "off", "word": "not checked yet", "when": ""}
    when = relative(key.checked_at, now)
    if key.check_error:
        return {"tone": "bad", "word": "check failed", "when": when}
    return {"tone": "good", "word": "check ok", "when": when}
