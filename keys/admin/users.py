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
from django.http import HttpRequest
from django.utils.decorators import method_decorator
from django.views.decorators.debug import sensitive_post_parameters

from keys.admin.base import DATES, actor_of
from keys.admin.passwords import PasswordForm, mark
from keys.services.audit import changes, record

if TYPE_CHECKING:
    Audited = admin.ModelAdmin[Any]
    AnyUserAdmin = UserAdmin[User]
else:
    Audited = object
    AnyUserAdmin = UserAdmin

OF_A_USER = ("username", "first_name", "last_name", "email", "is_active", "is_staff", "is_superuser")


class AuditedAdmin(Audited):
    """Django logs an addition or a change inside the transaction that makes it; the audit goes with it."""

    def log_addition(self, request: HttpRequest, obj: models.Model, message: Any) -> Any:
        record(actor_of(request), f"{obj._meta.model_name}.created", obj, after=_facts(obj))
        return super().log_addition(request, obj, message)

    def save_model(self, request: HttpRequest, obj: models.Model, form: Any, change: bool) -> None:
        if change:
            request.facts_before = _facts(type(obj)._default_manager.get(pk=obj.pk))  # type: ignore[attr-defined]
        super().save_model(request, obj, form, change)

    def log_change(self, request: HttpRequest, obj: models.Model, message: Any) -> Any:
        """Also called for a new password, which has been recorded by then and is no fact."""
        facts = _facts(obj)
        before, after = changes(getattr(request, "facts_before", facts), facts)
        if after:
            record(actor_of(request), f"{obj._meta.model_name}.edited", obj, before=before, after=after)
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


def _facts(obj: models.Model) -> dict[str, Any]:
    """What a user or group is and may do. Never a password."""
    if isinstance(obj, User):
        groups = sorted(obj.groups.values_list("name", flat=True))
        own = {name: getattr(obj, name) for name in OF_A_USER}
        return {**own, "groups": groups, "permissions": _codes(obj.user_permissions)}
    return {"name": obj.name, "permissions": _codes(obj.permissions)} if isinstance(obj, Group) else {}


def _codes(permissions: Any) -> list[str]:
    return sorted(permissions.values_list("codename", flat=True))


admin.site.unregister([User, Group])


@admin.register(User)
class AuditedUserAdmin(AuditedAdmin, AnyUserAdmin):
    """Where Django would hash a password inside a transaction, this does not: requests wait for it on SQLite."""

    change_password_form = PasswordForm
    formfield_overrides = DATES

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> User | None:
        user = super().get_object(request, object_id, from_field)
        if user is not None:
            mark(user, request)
        return user

    @method_decorator(sensitive_post_parameters())
    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None) -> Any:
        return self._add_view(request, form_url, extra_context)  # type: ignore[attr-defined]  # not in the stubs

    def changeform_view(self, request: HttpRequest, object_id: str | None = None, *args: Any, **options: Any) -> Any:
        if object_id is not None:
            return super().changeform_view(request, object_id, *args, **options)
        return self._changeform_view(request, object_id, *args, **options)  # type: ignore[attr-defined]  # as above

    def save_model(self, request: HttpRequest, obj: models.Model, form: Any, change: bool) -> None:
        with transaction.atomic():
            super().save_model(request, obj, form, change)
            if not change:
                record(actor_of(request), "user.created", obj, after=_facts(obj))

    def log_addition(self, request: HttpRequest, obj: models.Model, message: Any) -> Any:
        """The audit has it already, from the transaction that stored the user."""
        return super(AuditedAdmin, self).log_addition(request, obj, message)


@admin.register(Group)
class AuditedGroupAdmin(AuditedAdmin, GroupAdmin):
    pass
