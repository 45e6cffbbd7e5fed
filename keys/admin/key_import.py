"""Many keys at once: paste them or choose a file, see what would become of each, confirm.

The text travels once, in the first form. The preview holds the id of a prepared import, which lies sealed in the
database for a quarter of an hour; see `keys.services.prepared_imports`.
"""

from __future__ import annotations

import uuid
from collections import Counter
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.decorators import method_decorator
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables

from keys.admin.base import REFUSALS, ServiceAdmin, actor_of, reason_of
from keys.admin.key_actions import check_outcome
from keys.admin.key_forms import SecretField
from keys.admin.row_actions import RowAction, apply
from keys.admin.rows import list_of
from keys.errors import ImportGone
from keys.models import Account, OpenRouterKey
from keys.sealing import Sealed
from keys.services.key_imports import ImportReport, Plan
from keys.services.prepared_imports import (
    LIFETIME,
    MOST_ENTRIES,
    carry_out_import,
    give_up_import,
    plan_import,
    prepare_import,
)

MAX_FILE_BYTES = 1024 * 1024
CHECK_SECONDS = 10.0  # of the first checks; the task does the others within minutes
MOST_SHOWN_TROUBLES = 5
_FIELDS = {"text": "pasted", "name_pattern": "name_pattern", "name pattern": "name_pattern", "file": "file"}
TONES = {Plan.ADD: "good", Plan.KNOWN: "off", Plan.REPEATED: "off", Plan.REFUSED: "bad"}


class SecretTextarea(forms.Textarea):
    """Takes text and never gives it back, also not after an error."""

    def format_value(self, value: Any) -> str:
        return ""


class ImportForm(forms.Form):
    pasted = SecretField(
        label="Keys",
        required=False,
        widget=SecretTextarea(attrs={"rows": 6, "class": "vLargeTextField", "spellcheck": "false"}),
        help_text=f"Separated by line breaks, spaces or commas; at most {MOST_ENTRIES:,}.",
    )
    file = forms.FileField(required=False, label="or a file", help_text="Plain text, at most 1 MB.")
    name_pattern = forms.CharField(
        max_length=100,
        initial="key-{n}",
        widget=forms.TextInput(attrs={"class": "vTextField"}),
        help_text="Names of the new keys: {n} becomes the next free number, as in prod-{n}.",
    )
    account = forms.ModelChoiceField(
        Account.objects.all(), required=False, help_text="Empty: a check finds it out from OpenRouter."
    )

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        file, pasted = cleaned.get("file"), cleaned.get("pasted")
        if file is not None and file.size > MAX_FILE_BYTES:
            self.add_error("file", "The file is larger than 1 MB: use manage.py import_keys.")
        elif file is not None and pasted is not None and pasted.reveal():
            self.add_error("file", "Paste keys or choose a file, not both.")
        return cleaned

    @sensitive_variables()
    def source_and_text(self) -> tuple[str, Sealed]:
        """How messages call where it came from, and the text."""
        file = self.cleaned_data.get("file")
        if file is None:
            return "the pasted text", self.cleaned_data["pasted"]
        name = "".join(mark for mark in file.name if mark.isprintable())[:100]
        return name or "the file", Sealed(file.read().decode("utf-8-sig", "replace"))


class ImportPages(ServiceAdmin):
    """What KeyAdmin offers for imports."""

    def get_urls(self) -> list[Any]:
        wrap = self.admin_site.admin_view
        return [
            path("import/", wrap(self.import_view), name="keys_openrouterkey_import"),
            path("import/<uuid:import_id>/", wrap(self.preview_view), name="keys_openrouterkey_import_preview"),
            *super().get_urls(),
        ]

    @method_decorator(sensitive_post_parameters("pasted"))
    @method_decorator(sensitive_variables())
    def import_view(self, request: HttpRequest) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = ImportForm(request.POST or None, request.FILES or None)
        if request.method == "POST" and form.is_valid():
            source, text = form.source_and_text()
            typed = form.cleaned_data
            try:
                prepared = prepare_import(
                    actor=actor_of(request),
                    text=text,
                    source=source,
                    name_pattern=typed["name_pattern"],
                    account=typed["account"],
                )
            except REFUSALS as exc:
                form.add_error(_FIELDS.get(getattr(exc, "field", "")), reason_of(exc))
            else:
                return HttpResponseRedirect(_preview_page(prepared.pk))
        context = {**self._import_context(request, "Import keys"), "form": form}
        return TemplateResponse(request, "keys/admin/import.html", context)

    def preview_view(self, request: HttpRequest, import_id: uuid.UUID) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        try:
            if request.method == "POST":
                return self._decide(request, import_id)
            prepared, plan = plan_import(import_id, actor=actor_of(request))
        except ImportGone as exc:
            self.message_user(request, reason_of(exc), messages.WARNING)
            return HttpResponseRedirect(reverse("admin:keys_openrouterkey_import"))
        counts = Counter(entry.plan for entry in plan)
        context = {
            **self._import_context(request, "Import these keys?"),
            "prepared": prepared,
            "plan": [(entry, TONES[entry.plan]) for entry in plan],
            "counts": [f"{counts[one]:,} {one.value}" for one in Plan if counts[one]],
            "added": counts[Plan.ADD],
            "minutes": int(LIFETIME.total_seconds() // 60),
        }
        return TemplateResponse(request, "keys/admin/import_preview.html", context)

    def _decide(self, request: HttpRequest, import_id: uuid.UUID) -> HttpResponse:
        if "confirmed" not in request.POST:
            give_up_import(import_id, actor=actor_of(request))
            self.message_user(request, "Nothing was imported.", messages.INFO)
            return HttpResponseRedirect(list_of(OpenRouterKey))
        try:
            report = carry_out_import(import_id, actor=actor_of(request))
        except ImportGone:
            raise
        except REFUSALS as exc:
            self.message_user(request, f"The import stopped: {reason_of(exc)}", messages.ERROR)
        else:
            self._tell(request, report)
        return HttpResponseRedirect(list_of(OpenRouterKey))

    def _tell(self, request: HttpRequest, report: ImportReport) -> None:
        counts = f"{len(report.added):,} added, {len(report.known):,} skipped, {len(report.refused):,} refused."
        self.message_user(request, counts, messages.SUCCESS if report.added else messages.WARNING)
        names = [key.name for key in report.added]
        keys = OpenRouterKey.objects.filter(name__in=names).order_by("created_at", "pk")
        checks = RowAction("check", "Check", "checked", lambda key: "", check_outcome)
        checked = apply(checks, keys, actor_of(request), time_for_all=CHECK_SECONDS)
        troubles = [outcome.text for outcome in checked.outcomes if outcome.is_trouble] + checked.failed
        later = f", {checked.skipped.total():,} follow within minutes" if checked.skipped else ""
        if names:
            text = f"First checks: {checked.done:,} done{later}. {_first_of(troubles)}".strip()
            self.message_user(request, text, messages.WARNING if troubles else messages.SUCCESS)

    def _import_context(self, request: HttpRequest, title: str) -> dict[str, Any]:
        return {**self.admin_site.each_context(request), "opts": self.opts, "title": title}


def _first_of(troubles: list[str]) -> str:
    more = f" And {len(troubles) - MOST_SHOWN_TROUBLES:,} more." if len(troubles) > MOST_SHOWN_TROUBLES else ""
    return " ".join(troubles[:MOST_SHOWN_TROUBLES]) + more


def _preview_page(import_id: uuid.UUID) -> str:
    return reverse("admin:keys_openrouterkey_import_preview", args=[import_id])
