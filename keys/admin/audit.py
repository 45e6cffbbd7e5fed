"""Who did what, read-only for everybody: the database refuses changes too."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseBase
from django.urls import path, reverse
from django.utils import timezone
from django.utils.safestring import SafeString

from keys.admin.audit_csv import audit_csv
from keys.admin.base import LogAdmin
from keys.admin.display import NOTHING, stamp
from keys.models import Account, AuditEvent, Client, ModelAlias, OpenRouterKey
from keys.services.audit import COMMAND_LINE, ENVIRONMENT, TASK

MACHINES = {actor.name: actor for actor in (COMMAND_LINE, ENVIRONMENT, TASK)}
PERIODS = {"24h": ("last 24 hours", 1), "7d": ("last 7 days", 7), "30d": ("last 30 days", 30)}
ACTIONS = {
    "rotation": ("rotations", "key.rotation"),
    "check": ("checks of keys", "key.checked"),
    "secrets": ("uses of secrets", "key.secrets_used"),
    "key": ("all of keys", "key."),
    "client": ("all of clients", "client."),
    "account": ("all of accounts", "account."),
    "alias": ("all of aliases", "alias."),
    "import": ("imports", "import."),
    "master_key": ("master keys", "master_key."),
    "user": ("users", "user."),
    "group": ("groups", "group."),
}


class ObjectFilter(admin.SimpleListFilter):
    title = "subject"
    parameter_name = "about"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        about = (OpenRouterKey, Account, Client, ModelAlias)
        return [(str(model._meta.model_name), str(model._meta.verbose_name_plural)) for model in about]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(object_type=self.value()) if self.value() else queryset


class ActionFilter(admin.SimpleListFilter):
    title = "action"
    parameter_name = "did"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(value, words) for value, (words, _) in ACTIONS.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        chosen = ACTIONS.get(str(self.value()))
        return queryset.filter(action__startswith=chosen[1]) if chosen else queryset


class ActorFilter(admin.SimpleListFilter):
    """People are many: one of them is found by the search."""

    title = "actor"
    parameter_name = "who"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("people", "people"), *((name, f"the {name}") for name in MACHINES)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() == "people":
            return queryset.exclude(actor__in=MACHINES)
        return queryset.filter(actor=self.value()) if self.value() in MACHINES else queryset


class AgeFilter(admin.SimpleListFilter):
    title = "period"
    parameter_name = "period"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(value, words) for value, (words, _) in PERIODS.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        chosen = PERIODS.get(str(self.value()))
        return queryset.filter(at__gte=timezone.now() - dt.timedelta(days=chosen[1])) if chosen else queryset


@admin.register(AuditEvent)
class AuditAdmin(LogAdmin):
    change_list_template = "keys/admin/audit_list.html"
    list_display = ("when", "actor", "action", "object_name", "change", "address")
    list_display_links = ("when",)
    list_filter = (AgeFilter, ActorFilter, ObjectFilter, ActionFilter)
    search_fields = ("actor", "action", "object_name", "object_id")
    search_help_text = "Actor, action, or the name or id of what was changed."
    fields = ("when", "actor", "address", "action", "object_type", "object_name", "object_id", "before", "after")

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.csv_view)
        return [path("csv/", view, name="keys_auditevent_csv"), *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        query = request.GET.copy()
        query.pop("p", None)
        link = f"{reverse('admin:keys_auditevent_csv')}{f'?{query.urlencode()}' if query else ''}"
        return super().changelist_view(request, {"csv_link": link, **(extra_context or {})})

    def csv_view(self, request: HttpRequest) -> HttpResponseBase:
        """What the list shows under the same query string, all pages of it."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        return audit_csv(request, self.get_changelist_instance(request).get_queryset(request))

    @admin.display(description="time")
    def when(self, row: AuditEvent) -> SafeString | str:
        return stamp(row.at)

    @admin.display(description="IP address")
    def address(self, row: AuditEvent) -> str:
        return row.ip or NOTHING

    @admin.display(description="change")
    def change(self, row: AuditEvent) -> str:
        return change_of(row)


def change_of(row: AuditEvent) -> str:
    """What changed, on one line: `tier: 1 → 2`."""
    names = dict.fromkeys([*row.before, *row.after])
    return "; ".join(_one(name, row.before, row.after) for name in names) or NOTHING


def _one(name: str, before: dict[str, Any], after: dict[str, Any]) -> str:
    new = _text(after.get(name))
    return f"{name}: {_text(before[name])} → {new}" if name in before else f"{name}: {new}"


def _text(value: Any) -> str:
    if value in (None, ""):
        return NOTHING
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
