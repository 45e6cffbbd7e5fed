"""The page on which a key is rotated: paste the successor, see it checked, drain the old key, watch it finish."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables

from keys.admin.base import REFUSALS, ServiceAdmin, actor_of, reason_of
from keys.admin.key_actions import check_outcome
from keys.admin.key_forms import SecretField
from keys.admin.rows import list_of, page_of
from keys.errors import Duplicate
from keys.models import KeyState, OpenRouterKey, UsageHour
from keys.services.rotation import (
    Rotation,
    RotationPhase,
    find_finished_rotation,
    find_rotation,
    refusal_to_rotate,
    start_rotation,
    successor_name,
)

SOON = dt.timedelta(days=14)
REFRESH_SECONDS = 3  # while a key drains
_FIELDS = {"secret": "key_text", "name": "name"}  # where a service's argument has another name than the form's field


class DueRotationFilter(admin.SimpleListFilter):
    title = "rotation"
    parameter_name = "rotation"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("due", "due"), ("soon", "due within 14 days"), ("open", "under way")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        now, living = timezone.now(), queryset.exclude(state=KeyState.RETIRED)
        match self.value():
            case "due":
                return living.filter(rotates_at__lte=now)
            case "soon":
                return living.filter(rotates_at__lte=now + SOON)
            case "open":
                return living.filter(replaced_by__isnull=False)
        return queryset


class SuccessorForm(forms.Form):
    key_text = SecretField(
        label="Successor",
        max_length=1000,
        help_text="A new OpenRouter key of the same account. It is stored encrypted and never shown again.",
    )
    name = forms.CharField(max_length=100, widget=forms.TextInput(attrs={"class": "vTextField"}))


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the page: `tone` is that of a badge."""

    word: str
    tone: str
    text: str


def steps_of(rotation: Rotation) -> list[Step]:
    """The way through, as far as it has come. Pure."""
    old, new, phase = rotation.old, rotation.new, rotation.phase
    waits = Step("waits", "off", "")
    stored = Step("done", "good", f"{new.name} is stored; account and tier are those of {old.name}.")
    if phase is RotationPhase.FINISHED:
        ended = f"{old.name} is retired: its secret is erased, its history and its costs stay."
        texts = (f"OpenRouter accepted {new.name}.", "", f"{old.name} answers no request.", ended)
        return [stored, *(Step("done", "good", text) for text in texts)]
    checked = Step("done", "good", f"OpenRouter accepts {new.name}.")
    if phase is RotationPhase.CHECKING:
        said = new.check_error or "It has not been checked yet."
        checked = Step("not yet", "bad" if new.check_error else "wait", f"{new.name} does not serve. {said}")
    both = f"{new.name} answers requests" + (f" beside {old.name}." if old.state == "active" else ".")
    serving = Step("done", "good", both) if rotation.is_successor_serving else waits
    if phase is not RotationPhase.CHECKING and not rotation.is_successor_serving:
        serving = Step(new.get_state_display(), "bad", f"{new.name} does not serve now. {new.check_error}".strip())
    draining = waits
    if phase is RotationPhase.DRAINING:
        requests = "1 request" if rotation.in_flight == 1 else f"{rotation.in_flight:,} requests"
        left = f"{requests} of {old.name} left." if rotation.in_flight else f"No request of {old.name} is left."
        draining = Step("now" if rotation.in_flight else "done", "wait" if rotation.in_flight else "good", left)
    return [
        stored,
        checked,
        serving,
        draining,
        Step("waits", "off", ""),
    ]


STEP_TITLES = ("Paste the successor", "Check it", "Both serve", "Drain the old key", "Retire the old key")


class RotationPages(ServiceAdmin):
    """What KeyAdmin offers for rotations."""

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.rotation_view)
        return [path("<path:object_id>/rotation/", view, name="keys_openrouterkey_rotation"), *super().get_urls()]

    @method_decorator(sensitive_post_parameters("key_text"))
    def rotation_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        key = self.get_object(request, unquote(object_id))
        if not self.has_change_permission(request, key):
            raise PermissionDenied
        if key is None:
            raise Http404(f"There is no key {object_id}.")
        rotation = find_rotation(key.pk) or find_finished_rotation(key.pk)
        if rotation is not None:
            return self._show(request, key, rotation)
        return self._start(request, key)

    def _show(self, request: HttpRequest, key: OpenRouterKey, rotation: Rotation) -> HttpResponse:
        context = {
            **self._context(request, key, f"Rotation of {rotation.old.name}"),
            "rotation": rotation,
            "steps": list(zip(STEP_TITLES, steps_of(rotation), strict=True)),
            "account_warning": rotation.new.elsewhere,
            "usage_link": _usage_of_both(request, rotation),
            "is_draining": rotation.phase is RotationPhase.DRAINING,
            "is_checking": rotation.phase is RotationPhase.CHECKING,
            "is_finished": rotation.phase is RotationPhase.FINISHED,
            "refresh_seconds": REFRESH_SECONDS,
        }
        return TemplateResponse(request, "keys/admin/rotation.html", context)

    @sensitive_variables()
    def _start(self, request: HttpRequest, key: OpenRouterKey) -> HttpResponse:
        if refusal := refusal_to_rotate(key):
            self.message_user(request, f"{key} can't be rotated: it is {refusal}.", messages.WARNING)
            return HttpResponseRedirect(page_of(key))
        form = SuccessorForm(request.POST or None, initial={"name": successor_name(key)})
        if request.method == "POST" and form.is_valid():
            try:
                rotation = start_rotation(
                    key.pk,
                    actor=actor_of(request),
                    secret=form.cleaned_data["key_text"],
                    name=form.cleaned_data["name"],
                )
            except REFUSALS as exc:
                form.add_error(_field_of(exc), reason_of(exc))
            else:
                self._check_successor(request, rotation.new)
                return HttpResponseRedirect(rotation_page(key.pk))
        context = {**self._context(request, key, f"Rotate {key.name}"), "form": form}
        return TemplateResponse(request, "keys/admin/rotation_start.html", context)

    def _check_successor(self, request: HttpRequest, successor: OpenRouterKey) -> None:
        try:
            outcome = check_outcome(successor, actor_of(request))
        except REFUSALS as exc:
            text = f"The successor is stored, but not checked: {reason_of(exc)}"
            self.message_user(request, text, messages.WARNING)
        else:
            level = messages.WARNING if outcome.is_trouble else messages.SUCCESS
            self.message_user(request, f"Check of {outcome.text}", level)

    def _context(self, request: HttpRequest, key: OpenRouterKey, title: str) -> dict[str, Any]:
        return {**self.admin_site.each_context(request), "opts": self.opts, "title": title, "key": key}


def _usage_of_both(request: HttpRequest, rotation: Rotation) -> str:
    may_see = request.user.has_perm("keys.view_usagehour")
    return list_of(UsageHour, f"group=day&joined=on&key={rotation.new.pk}") if may_see else ""


def rotation_page(key_id: uuid.UUID) -> str:
    return reverse("admin:keys_openrouterkey_rotation", args=[key_id])


def _field_of(refusal: Exception) -> str | None:
    """The form's field that a refusal is about; a key that is known already is about the secret."""
    if isinstance(refusal, Duplicate):
        return getattr(refusal, "field", "key_text")
    return _FIELDS.get(getattr(refusal, "field", ""))
