"""What a search for requests asks for. Its choices are read with three queries; none of them is about the ledger."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

from django import forms
from django.http import QueryDict
from django.utils import timezone

from keys.admin.trail import TrailField
from keys.causes import Cause
from keys.ledger_search import LAST_ID, Search
from keys.models import Account, Client, OpenRouterKey
from keys.usage import Where

PERIODS = {
    "1h": ("last hour", 1),
    "24h": ("last 24 hours", 24),
    "7d": ("last 7 days", 168),
    "30d": ("last 30 days", 720),
}
STATUSES = (
    ("", "any"),
    ("ok", "answered (below 400)"),
    ("error", "any error"),
    ("4xx", "400 to 499"),
    ("5xx", "500 to 599"),
    ("400", "400 bad request"),
    ("404", "404 not found"),
    ("413", "413 too large"),
    ("429", "429 rate limit"),
    ("499", "499 client left"),
    ("500", "500 error"),
    ("504", "504 timeout"),
    ("529", "529 overloaded"),
)
NO_KEY = "none"
LOCAL = "%Y-%m-%dT%H:%M"


class MomentField(forms.Field):
    """A moment in the operator's zone, or in another if it says so (`2026-05-04T00:00Z`)."""

    widget = forms.DateTimeInput(attrs={"type": "datetime-local"})

    def to_python(self, value: Any) -> dt.datetime | None:
        if not value:
            return None
        try:
            moment = dt.datetime.fromisoformat(str(value))
            aware = moment if timezone.is_aware(moment) else timezone.make_aware(moment)
            if 1970 < aware.year < 9000:
                return aware.astimezone(dt.UTC)
        except (ValueError, OverflowError) as exc:
            raise forms.ValidationError("Write a date and a time, as 2026-05-04T13:30.") from exc
        raise forms.ValidationError("No request is of that year.")

    def prepare_value(self, value: Any) -> Any:
        """An input of this type shows nothing but a local time."""
        try:
            moment = self.to_python(value)
        except forms.ValidationError:
            return None
        return moment and timezone.localtime(moment).strftime(LOCAL)


class SearchForm(forms.Form):
    q = forms.CharField(
        label="Id",
        required=False,
        max_length=200,
        widget=forms.TextInput(attrs={"type": "search", "placeholder": "req_… or gen-…, whole"}),
    )
    client = forms.ChoiceField(required=False)
    key = forms.ChoiceField(required=False)
    account = forms.ChoiceField(required=False)
    model = forms.CharField(
        required=False,
        max_length=200,
        widget=forms.TextInput(attrs={"list": "models", "placeholder": "as sent, or as asked"}),
    )
    status = forms.ChoiceField(required=False, choices=STATUSES)
    cause = forms.ChoiceField(required=False, choices=[("", "any"), *Cause.choices])
    period = forms.ChoiceField(
        required=False, choices=[("", "any time"), *((name, words) for name, (words, _) in PERIODS.items())]
    )
    since = MomentField(label="From", required=False)
    until = MomentField(label="To", required=False)
    before = TrailField(required=False)

    def __init__(self, data: QueryDict) -> None:
        super().__init__({name: str(value).replace("\0", "") for name, value in data.items()})
        keys = list(OpenRouterKey.objects.order_by("name").values_list("pk", "name", "tail", "account_id"))
        self._keys_of: dict[str, tuple[uuid.UUID, ...]] = {}
        for pk, _, _, account in keys:
            self._keys_of[str(account)] = (*self._keys_of.get(str(account), ()), pk)
        self._choose("client", Client.objects.order_by("name").values_list("pk", "name"))
        self._choose("key", [(NO_KEY, "none was free"), *((pk, f"{name} ({tail})") for pk, name, tail, _ in keys)])
        self._choose("account", Account.objects.order_by("name").values_list("pk", "name"))

    def _choose(self, name: str, choices: Any) -> None:
        """A row that is gone can still be asked for: the ledger knows it."""
        field = self.fields[name]
        assert isinstance(field, forms.ChoiceField)
        found = [("", "any"), *((str(value), words) for value, words in choices)]
        chosen = str(self.data.get(name, ""))
        if chosen not in dict(found) and _uuid(chosen) is not None:
            found.append((chosen, f"missing ({chosen})"))
        field.choices = found

    def search(self, now: dt.datetime) -> Search:
        """Of a valid form."""
        typed = self.cleaned_data
        since = typed["since"]
        if since is None and typed["period"]:
            since = now - dt.timedelta(hours=PERIODS[typed["period"]][1])
        return Search(
            text=typed["q"].strip(),
            where=Where(keys=self._keys(), client=_uuid(typed["client"])),
            model=typed["model"].strip(),
            status=typed["status"],
            cause=typed["cause"],
            since=since,
            until=typed["until"],
            before=typed["before"][-1] if typed["before"] else LAST_ID,
        )

    def _keys(self) -> tuple[uuid.UUID | None, ...] | None:
        key, account = self.cleaned_data["key"], self.cleaned_data["account"]
        if key == NO_KEY:
            return (None,)
        of_account = self._keys_of.get(account, ()) if account else None
        if not key:
            return of_account
        chosen = _uuid(key)
        return (chosen,) if of_account is None or chosen in of_account else ()


def _uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None
