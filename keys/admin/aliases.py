"""Model aliases, effective on the next request. The one thing of the admin that may be deleted."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseRedirect

from keys.admin.base import REFUSALS, ServiceAdmin, actor_of, reason_of
from keys.admin.rows import list_of
from keys.errors import NotFound
from keys.models import ModelAlias
from keys.services.aliases import delete_alias, save_alias


@admin.register(ModelAlias)
class ModelAliasAdmin(ServiceAdmin):
    list_display = ("name", "target")
    search_fields = ("name", "target")
    fields = ("name", "target")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return admin.ModelAdmin.has_delete_permission(self, request, obj)

    def save_by_service(self, request: HttpRequest, form: Any, change: bool) -> ModelAlias:
        return save_alias(
            actor=actor_of(request),
            name=form.cleaned_data["name"],
            target=form.cleaned_data["target"],
            alias_id=form.instance.pk if change else None,
        )

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None) -> Any:
        try:
            return super().delete_view(request, object_id, extra_context)
        except REFUSALS as exc:
            self.message_user(request, reason_of(exc), messages.ERROR)
            return HttpResponseRedirect(list_of(ModelAlias))

    def delete_model(self, request: HttpRequest, obj: ModelAlias) -> None:
        delete_alias(obj.pk, actor=actor_of(request))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[ModelAlias]) -> None:
        for alias in queryset:
            try:
                delete_alias(alias.pk, actor=actor_of(request))
            except NotFound:  # someone else was faster, and it is gone as wanted
                continue
