"""The page on which an operator chooses a time zone."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme

from keys.time_zones import COOKIE, COOKIE_SECONDS, zone_names


def choose_time_zone(request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
    """`context` is that of every page of the site."""
    back = _way_back(request)
    if request.method == "POST" and request.POST.get("time_zone") in zone_names():
        response = HttpResponseRedirect(back)
        response.set_cookie(
            COOKIE,
            request.POST["time_zone"],
            max_age=COOKIE_SECONDS,
            path=reverse("admin:index"),
            secure=settings.SESSION_COOKIE_SECURE,
            httponly=True,
            samesite="Lax",
        )
        return response
    chosen = timezone.get_current_timezone_name()
    page = {**context, "title": "Time zone", "names": zone_names(), "chosen": chosen, "next": back}
    return TemplateResponse(request, "keys/admin/time_zone.html", page)


def _way_back(request: HttpRequest) -> str:
    """Where the operator came from; never another site."""
    wanted = request.POST.get("next") or request.GET.get("next") or ""
    is_ours = url_has_allowed_host_and_scheme(wanted, allowed_hosts={request.get_host()}, require_https=False)
    return wanted if is_ours and wanted.startswith("/") else reverse("admin:index")
