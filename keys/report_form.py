"""The question that a query string asks of the reports: of the admin's page, its CSV and `GET /api/usage`."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping
from typing import Any

from django import forms
from django.utils import timezone

from keys.models import Account, Client, OpenRouterKey
from keys.reports import GROUPS, MOST_DAYS, MOST_DAYS_BY_HOUR, Question

DEFAULT_DAYS = 7
DATE = {"type": "date"}


class ReportForm(forms.Form):
    """UTC days, both included. What is left out is the last seven days by key."""

    since = forms.DateField(label="From (UTC)", widget=forms.DateInput(attrs=DATE))
    until = forms.DateField(label="To (UTC)", widget=forms.DateInput(attrs=DATE))
    group = forms.ChoiceField(label="By", choices=[(group, group) for group in GROUPS])
    key = forms.UUIDField(required=False, widget=forms.Select)
    account = forms.UUIDField(required=False, widget=forms.Select)
    client = forms.UUIDField(required=False, widget=forms.Select)
    model = forms.CharField(
        required=False, max_length=200, widget=forms.TextInput(attrs={"list": "models", "placeholder": "as sent"})
    )
    joined = forms.BooleanField(required=False, label="Rotated keys as one")

    def __init__(self, query: Mapping[str, Any]) -> None:
        super().__init__({**defaults(timezone.now().date()), **query})

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        since, until = cleaned.get("since"), cleaned.get("until")
        days = MOST_DAYS_BY_HOUR if cleaned.get("group") == "hour" else MOST_DAYS
        if since and until and since > until:
            self.add_error("until", "The period ends before it begins.")
        elif since and until and (until - since).days >= days:
            by_hour = " by hour" if days == MOST_DAYS_BY_HOUR else ""
            self.add_error("until", f"The period has more than {days} days{by_hour}.")
        if since and since.year < 2000:
            self.add_error("since", "The period begins before the year 2000.")
        if until and until > timezone.now().date() + dt.timedelta(days=1):
            self.add_error("until", "The period ends after today.")
        return cleaned

    def question(self) -> Question:
        """Of a valid form."""
        return Question(**self.cleaned_data)

    def offer_choices(self) -> None:
        """Fill the selects; three queries. A row that is gone can still be asked for."""
        keys = ((key.pk, str(key)) for key in OpenRouterKey.objects.order_by("name").only("name", "tail"))
        self._offer("key", keys)
        self._offer("account", Account.objects.order_by("name").values_list("pk", "name"))
        self._offer("client", Client.objects.order_by("name").values_list("pk", "name"))

    def _offer(self, name: str, choices: Any) -> None:
        found: list[tuple[uuid.UUID | str, str]] = [("", "all"), *choices]
        chosen = str(self.data.get(name, ""))
        if chosen and chosen not in {str(value) for value, _ in found}:
            found.append((chosen, f"missing ({chosen})"))
        widget = self.fields[name].widget
        assert isinstance(widget, forms.Select)
        widget.choices = found


def defaults(today: dt.date) -> dict[str, str]:
    since = today - dt.timedelta(days=DEFAULT_DAYS - 1)
    return {"since": since.isoformat(), "until": today.isoformat(), "group": "key"}
