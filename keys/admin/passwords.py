"""Passwords of people, their own and those that a superuser sets. Each change is in the audit trail, no password is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.admin.forms import AdminPasswordChangeForm
from django.contrib.auth.forms import AdminPasswordChangeForm as SetPasswordForm
from django.contrib.auth.forms import SetPasswordMixin
from django.contrib.auth.views import PasswordChangeView
from django.http import HttpRequest, HttpResponseBase
from django.urls import reverse
from django.views.decorators.debug import sensitive_variables

from keys.admin.base import actor_of
from keys.services.audit import Actor
from keys.services.users import store_password

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    AnyPasswordForm = SetPasswordMixin[User]
    AnySetPasswordForm = SetPasswordForm[User]
else:
    AnyPasswordForm = SetPasswordMixin
    AnySetPasswordForm = SetPasswordForm


class Audited(AnyPasswordForm):
    """Makes the hash before the transaction begins. `user.changed_by` says who asks; see `mark`."""

    @sensitive_variables()
    def set_password_and_save(self, user: User, *args: Any, commit: bool = True, **options: Any) -> User:
        user = super().set_password_and_save(user, *args, **{**options, "commit": False})
        if commit:
            actor: Actor = user.changed_by  # type: ignore[attr-defined]  # see mark
            store_password(user, actor=actor)
        return user


class OwnPasswordForm(Audited, AdminPasswordChangeForm):
    """Asks for the old password too."""


class PasswordForm(Audited, AnySetPasswordForm):
    """For a superuser, who may also take a password away."""


def mark(user: Any, request: HttpRequest) -> None:
    """Django's forms of passwords know whose it is, not who asks."""
    user.changed_by = actor_of(request)


def change_own_password(request: HttpRequest, context: dict[str, Any]) -> HttpResponseBase:
    """`context` is that of every page of the site."""
    mark(request.user, request)
    done = reverse("admin:password_change_done")
    return PasswordChangeView.as_view(form_class=OwnPasswordForm, success_url=done, extra_context=context)(request)
