"""The operator's own time zone: a cookie, chosen in the page's header. Without one all times are UTC."""

from __future__ import annotations

import zoneinfo
from collections.abc import Callable
from functools import cache

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils import timezone

COOKIE = "opensvm_time_zone"
COOKIE_SECONDS = 365 * 86_400
DEFAULT = "UTC"


@cache
def zone_names() -> tuple[str, ...]:
    """Of all zones that this machine knows, UTC first."""
    names = {
        name for name in zoneinfo.available_timezones() if "/" in name and not name.startswith(("Etc/", "SystemV/"))
    }
    return (DEFAULT, *sorted(names))


class TimeZoneMiddleware:
    """Shows the times of one request in the zone of who asks."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        name = request.COOKIES.get(COOKIE, DEFAULT)
        if name == DEFAULT or name not in zone_names():
            return self._get_response(request)
        with timezone.override(zoneinfo.ZoneInfo(name)):
            return self._get_response(request)
