"""The admin site of the operators' desk, and the app config that makes it Django's default one.

Both live outside the package `keys.admin`: the site must exist before that package registers anything with it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import update_wrapper
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.admin import AdminSite
from django.contrib.admin.apps import AdminConfig
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.loader import render_to_string
from django.template.response import SimpleTemplateResponse
from django.urls import path
from django.utils import timezone

if TYPE_CHECKING:
    from django.http.response import HttpResponseBase

logger = logging.getLogger("opensvm.admin")

# The order in which an operator needs them, and the words for it; what is not named here follows by name.
SECTIONS = {
    "OpenRouterKey": "OpenRouter keys",
    "Account": "Accounts",
    "Cooldown": "Cooldowns",
    "Client": "Clients",
    "ModelAlias": "Model aliases",
    "RequestLog": "Requests",
    "UsageHour": "Usage and cost",
    "AuditEvent": "Audit",
}


class OperatorsSite(AdminSite):
    site_header = "OpenSVM key service"
    site_title = "OpenSVM"
    index_title = "Operators' desk"
    site_url = None
    index_template = "keys/admin/home.html"
    empty_value_display = "–"

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        return {
            **super().each_context(request),
            "environment": settings.OPENSVM_ENVIRONMENT,
            "sandbox": settings.OPENSVM_SANDBOX,
            "time_zone": timezone.get_current_timezone_name(),
        }

    def get_urls(self) -> list[Any]:
        return [path("time-zone/", self.admin_view(self.time_zone_view), name="time_zone"), *super().get_urls()]

    def time_zone_view(self, request: HttpRequest) -> HttpResponse:
        from keys.admin.time_zone_view import choose_time_zone  # as with the home page

        return choose_time_zone(request, self.each_context(request))

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        from keys.admin.home import home_context  # models are loaded only after this module

        return super().index(request, {**home_context(request), **(extra_context or {})})

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        """The sections of `keys` first and in our order, then Django's own."""
        apps = super().get_app_list(request, app_label)
        for app in apps:
            if app["app_label"] == "keys":
                app["models"] = _in_our_order(app["models"])
        return sorted(apps, key=lambda app: app["app_label"] != "keys")

    def admin_view(self, view: Callable[..., Any], cacheable: bool = False) -> Any:
        guarded = super().admin_view(view, cacheable)
        return update_wrapper(_in_words(guarded), guarded)

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        return _in_words(self._audited_login)(request, extra_context)

    def _audited_login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """A session is stored with the answer, so without the audit's row there is none."""
        from keys.admin.base import actor_of  # models are loaded only after this module
        from keys.services.users import record_login

        answer = super().login(request, extra_context)
        if request.method == "POST" and isinstance(answer, HttpResponseRedirect) and request.user.is_authenticated:
            record_login(request.user, actor=actor_of(request))
        elif request.method == "POST":
            address = request.META.get("REMOTE_ADDR") or ""
            logger.warning("refuse a login", extra={"event": "admin.login_refused", "ip": address})
        return answer

    def password_change(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        from keys.admin.passwords import change_own_password  # as above

        return change_own_password(request, {**self.each_context(request), **(extra_context or {})})


def _in_our_order(models: list[Any]) -> list[Any]:
    order = list(SECTIONS)
    for model in models:
        model["name"] = SECTIONS.get(model["object_name"], model["name"])
    return sorted(models, key=lambda m: order.index(m["object_name"]) if m["object_name"] in SECTIONS else len(order))


def _in_words(view: Callable[..., Any]) -> Callable[..., HttpResponseBase]:
    """`view`, whose loss of the database is told in words. It renders inside, so that templates are covered too."""

    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        from keys.admin.viewer import seen_by  # its package registers pages, which need the site

        try:
            with seen_by(getattr(request, "user", None)):
                response = view(request, *args, **kwargs)
                return response.render() if isinstance(response, SimpleTemplateResponse) else response
        except (OperationalError, InterfaceError):
            logger.exception("lose the database under an admin page", extra={"event": "admin.database_lost"})
            page = render_to_string("keys/admin/database_lost.html")
            return HttpResponse(page, status=503, headers={"Cache-Control": "no-store", "Retry-After": "10"})

    return answer


class OperatorsAdminConfig(AdminConfig):
    default_site = "keys.admin_site.OperatorsSite"
