"""What all admin pages share: writes go through services only, nothing is deleted, log tables are read-only."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.contrib.admin.widgets import AdminSplitDateTime
from django.db import DatabaseError, models
from django.http import HttpRequest

from keys.admin.paginator import CappedPaginator, NewestFirst, PlainList
from keys.errors import DuplicateKey, KeysError
from keys.keyring import KeyringError
from keys.sealing import Undecryptable
from keys.services.audit import Actor

if TYPE_CHECKING:
    from django.contrib.admin.views.main import ChangeList

    ModelAdmin = admin.ModelAdmin[Any]
    ModelForm = forms.ModelForm[Any]
else:
    ModelAdmin = admin.ModelAdmin
    ModelForm = forms.ModelForm

logger = logging.getLogger("opensvm.admin")

REFUSALS = (KeysError, KeyringError, Undecryptable, DatabaseError)  # all that a service raises
DATABASE_TROUBLE = "The database did not take this: nothing was changed. Try again in a moment."

_GUARDED = {"secret", "fingerprint", "digest"}


def actor_of(request: HttpRequest) -> Actor:
    user_id = request.user.pk
    return Actor(name=request.user.get_username(), ip=request.META.get("REMOTE_ADDR") or "", user_id=user_id)


def reason_of(refusal: Exception) -> str:
    """A service's refusal in words; database trouble is logged, and its text, which may quote values, is not shown."""
    if not isinstance(refusal, DatabaseError):
        return str(refusal)
    logger.error("refuse a change", exc_info=refusal, extra={"event": "admin.database_trouble"})
    return DATABASE_TROUBLE


class Refused(Exception):
    """A service did not take what a form held; `__cause__` says why."""


class RefusableForm(ModelForm):
    """A form that can show why a service refused what it held."""

    refusal: Exception | None = None
    names_of_services = {"secret": "key_text"}  # where a service's argument has another name than the form's field

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        if self.refusal is not None:
            self.add_error(self._refused_field(), reason_of(self.refusal))
        return cleaned

    def _refused_field(self) -> str | None:
        field = "secret" if isinstance(self.refusal, DuplicateKey) else getattr(self.refusal, "field", None)
        field = self.names_of_services.get(str(field), field)
        return field if field in self.fields else None


class DateAndTime(AdminSplitDateTime):
    """Django's two inputs, each with a name for who can't see what stands before it."""

    def __init__(self, attrs: Any = None) -> None:
        super().__init__(attrs)
        for widget, name in zip(self.widgets, ("Date", "Time"), strict=True):
            widget.attrs["aria-label"] = name


DATES: dict[Any, Any] = {models.DateTimeField: {"form_class": forms.SplitDateTimeField, "widget": DateAndTime}}


class PlainAdmin(ModelAdmin):
    """No deletion, and no counts beside filters: they cost a scan each."""

    show_facets = admin.ShowFacets.NEVER
    show_full_result_count = False
    list_per_page = 50
    formfield_overrides = DATES

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        """No query string may feel its way along a stored secret or digest."""
        return not _GUARDED.intersection(lookup.split("__")) and super().lookup_allowed(lookup, value, request)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return PlainList

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        name = str(self.opts.verbose_name_plural)
        return super().changelist_view(request, {"title": name[:1].upper() + name[1:], **(extra_context or {})})


class ReadOnlyAdmin(PlainAdmin):
    """Shown to who may view it, and written by the service alone."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class LogAdmin(ReadOnlyAdmin):
    """A table that grows without end: newest first by its primary key, whatever the query string says."""

    change_form_template = "keys/admin/log_page.html"
    ordering = ("-pk",)
    sortable_by = ()
    paginator = CappedPaginator

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return NewestFirst


class ServiceAdmin(PlainAdmin):
    """An admin whose forms are saved by a service. A refusal comes back as an error of the form, never as a 500.

    Subclasses write `save_by_service`. There is no transaction around the page: services own theirs, and what follows
    them (a check that asks OpenRouter) must not run inside one.
    """

    form: type[RefusableForm] = RefusableForm

    def save_by_service(self, request: HttpRequest, form: Any, change: bool) -> models.Model:
        """Store what the valid form holds; returns the stored row. Raises KeysError."""
        raise NotImplementedError

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        try:
            saved = self.save_by_service(request, form, change)
        except REFUSALS as exc:
            raise Refused from exc
        obj.pk = saved.pk
        obj._state.adding = False
        obj.refresh_from_db()

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        try:
            return self._render(request, object_id, form_url, extra_context)
        except Refused as exc:
            request.refusal = exc.__cause__  # type: ignore[attr-defined]  # read by get_form below
            return self._render(request, object_id, form_url, extra_context)

    def _render(self, *args: Any) -> Any:
        """Django's own view without the transaction that its public name puts around it."""
        return self._changeform_view(*args)  # type: ignore[attr-defined]  # the stubs leave private names out

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change=change, **kwargs)
        form.refusal = getattr(request, "refusal", None)  # type: ignore[attr-defined]  # of this request's own class
        return form
