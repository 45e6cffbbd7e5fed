"""Who did what, read-only."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from keys.admin.base import LogAdmin
from keys.admin.display import NOTHING, stamp
from keys.models import Account, AuditEvent, Client, ModelAlias, OpenRouterKey


class ObjectFilter(admin.SimpleListFilter):
    title = "subject"
    parameter_name = "about"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        about = (OpenRouterKey, Account, Client, ModelAlias)
        return [(str(model._meta.model_name), str(model._meta.verbose_name_plural)) for model in about]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(object_type=self.value()) if self.value() else queryset


@admin.register(AuditEvent)
class AuditAdmin(LogAdmin):
    list_display = ("when", "actor", "action", "object_name", "change", "ip")
    list_display_links = ("when",)
    list_filter = (ObjectFilter,)
    search_fields = ("actor", "action", "object_name", "object_id")
    search_help_text = "Actor, action, or the name or id of what was changed."
    fields = ("when", "actor", "ip", "action", "object_type", "object_name", "object_id", "before", "after")

    @admin.display(description="time")
    def when(self, row: AuditEvent) -> SafeString | str:
        return stamp(row.at)

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
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
