"""Django's own pages for users and groups, whose changes are in the audit trail as all others are.

Who may do what is decided here, so it is no less a change than one of a key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.db import models, transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from keys.admin.base import actor_of
from keys.services.audit import record

if TYPE_CHECKING:
    Audited = admin.ModelAdmin[Any]
    AnyUserAdmin = UserAdmin[User]
else:
    Audited = object
    AnyUserAdmin = UserAdmin


class AuditedAdmin(Audited):
    """Django logs an addition or a change inside the transaction that makes it; the audit goes with it."""

    def log_addition(self, request: HttpRequest, obj: models.Model, message: Any) -> Any:
        record(actor_of(request), f"{obj._meta.model_name}.created", obj, after=_facts(obj))
        return super().log_addition(request, obj, message)

    def log_change(self, request: HttpRequest, obj: models.Model, message: Any) -> Any:
        changed = self.construct_change_text(message)
        record(actor_of(request), f"{obj._meta.model_name}.edited", obj, after={**_facts(obj), "changed": changed})
        return super().log_change(request, obj, message)

    def delete_model(self, request: HttpRequest, obj: models.Model) -> None:
        with transaction.atomic():
            record(actor_of(request), f"{obj._meta.model_name}.deleted", obj, before=_facts(obj))
            super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        with transaction.atomic():
            for obj in queryset:
                record(actor_of(request), f"{obj._meta.model_name}.deleted", obj, before=_facts(obj))
            super().delete_queryset(request, queryset)

    def construct_change_text(self, message: Any) -> list[str]:
        """The names of the fields; a message that is a text, as of a new password, is kept as it is."""
        if isinstance(message, str):
            return [message]
        return sorted({field for entry in message for field in entry.get("changed", {}).get("fields", ())})


def _facts(obj: models.Model) -> dict[str, Any]:
    """What a user or group may do. Never a password."""
    if isinstance(obj, User):
        groups = sorted(obj.groups.values_list("name", flat=True))
        flags = {name: getattr(obj, name) for name in ("is_active", "is_staff", "is_superuser")}
        return {**flags, "groups": groups, "permissions": _codes(obj.user_permissions)}
    return {"permissions": _codes(obj.permissions)} if isinstance(obj, Group) else {}


def _codes(permissions: Any) -> list[str]:
    return sorted(permissions.values_list("codename", flat=True))


admin.site.unregister([User, Group])


@admin.register(User)
class AuditedUserAdmin(AuditedAdmin, AnyUserAdmin):
    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:
        with transaction.atomic():
            return super().user_change_password(request, id, form_url)


@admin.register(Group)
class AuditedGroupAdmin(AuditedAdmin, GroupAdmin):
    pass
