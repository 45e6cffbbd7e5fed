"""The page on which a client's key is replaced: the new one at once, the old one until its grace period is over."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from keys.admin.base import REFUSALS, ServiceAdmin, actor_of, reason_of
from keys.admin.rows import page_of
from keys.models import Client
from keys.services.clients import next_name, refusal_to_replace, replace_client

GRACES = (("0", "none: the old key is refused at once"), ("1", "1 hour"), ("24", "24 hours"), ("168", "7 days"))


class ReplaceForm(forms.Form):
    grace = forms.ChoiceField(label="Grace period", choices=GRACES, initial="24")
    name = forms.CharField(
        label="Name of the new client", max_length=100, widget=forms.TextInput(attrs={"class": "vTextField"})
    )


class ReplacementPage(ServiceAdmin):
    """What ClientAdmin offers for it."""

    def show_once(self, request: HttpRequest, client_key: str, client: Client, **context: Any) -> HttpResponse:
        """The page that shows a new client key."""
        raise NotImplementedError

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.replace_view)
        return [path("<path:object_id>/replace/", view, name="keys_client_replace"), *super().get_urls()]

    @sensitive_variables()
    def replace_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        client = self.get_object(request, unquote(object_id))
        if not (self.has_change_permission(request, client) and self.has_add_permission(request)):
            raise PermissionDenied
        if client is None:
            raise Http404(f"There is no client {object_id}.")
        if refusal := refusal_to_replace(client, timezone.now()):
            self.message_user(request, f"{client} is {refusal}: it can't be replaced.", messages.WARNING)
            return HttpResponseRedirect(page_of(client))
        form = ReplaceForm(request.POST or None, initial={"name": next_name(client)})
        if request.method == "POST" and form.is_valid():
            grace = dt.timedelta(hours=int(form.cleaned_data["grace"]))
            try:
                client_key, new, old = replace_client(
                    client.pk, actor=actor_of(request), grace=grace, name=form.cleaned_data["name"]
                )
            except REFUSALS as exc:
                field = getattr(exc, "field", None)
                form.add_error(field if field in form.fields else None, reason_of(exc))
            else:
                return self.show_once(request, client_key, new, replaced=old)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": f"Replace {client.name}",
            "client": client,
            "form": form,
        }
        return TemplateResponse(request, "keys/admin/client_replace.html", context)


def replacement_page(client: Client) -> str:
    return reverse("admin:keys_client_replace", args=[client.pk])
