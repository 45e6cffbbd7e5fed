"""Everything that happened to a key, newest first: what was done to it and by whom, its checks, its cooldowns."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

from django.db.models import Q

from keys.admin.audit import change_of
from keys.admin.display import span, stamp
from keys.models import AuditEvent, Cooldown, OpenRouterKey

MOST_ENTRIES = 100
WORDS = {
    "key.added": "added",
    "key.edited": "edited",
    "key.checked": "checked",
    "key.enabled": "enabled",
    "key.disabled": "disabled",
    "key.refused": "refused by OpenRouter",
    "key.accepted": "accepted by OpenRouter again",
    "key.activated": "begins to serve",
    "key.drained": "drains",
    "key.resumed": "serves again",
    "key.retired": "retired",
    "key.rotation_started": "rotation started",
    "key.rotation_cancelled": "rotation cancelled",
    "key.cooldowns_cleared": "cooldowns cleared",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. `kind` is change, check or cooldown."""

    at: dt.datetime
    kind: str
    what: str
    detail: str
    who: str
    ip: str = ""

    @property
    def when(self) -> str:
        return stamp(self.at)


def timeline_of(key: OpenRouterKey, *, with_events: bool, with_cooldowns: bool) -> list[Entry]:
    """At most one query for each kind that is asked for."""
    entries: list[Entry] = []
    if with_events:
        rows = AuditEvent.objects.filter(object_type="openrouterkey", object_id=str(key.pk))[:MOST_ENTRIES]
        entries += map(_of_event, rows)
    if with_cooldowns:
        target = Q(key=key.pk) | Q(account=key.account_id) if key.account_id else Q(key=key.pk)
        entries += _of_cooldowns(Cooldown.objects.filter(target).order_by("-started_at", "-id")[:MOST_ENTRIES])
    return sorted(entries, key=lambda entry: entry.at, reverse=True)[:MOST_ENTRIES]


def _of_event(row: AuditEvent) -> Entry:
    if row.action == "key.checked":
        return Entry(row.at, "check", "checked", str(row.after.get("check", "")), row.actor, row.ip)
    return Entry(row.at, "change", WORDS.get(row.action, row.action), change_of(row), row.actor, row.ip)


def _of_cooldowns(rows: Iterable[Cooldown]) -> Iterable[Entry]:
    """A line for its begin, and one for its end. Who begins one is the answer of OpenRouter to a request."""
    for row in rows:
        whose = " of its account" if row.account_id else ""
        models = f" for models *{row.pattern}" if row.pattern else ""
        label = f"{row.get_cause_display()}{models}"
        repeat = f"repeat {row.repeat}" if row.repeat else ""
        planned = f"for {span((row.until - row.started_at).total_seconds())}"
        detail = "; ".join(part for part in (label, planned, repeat, row.detail) if part)
        yield Entry(row.started_at, "cooldown", f"cooldown{whose} begins", detail, "OpenRouter")
        if row.cleared_at is not None:
            lasted = span((row.cleared_at - row.started_at).total_seconds())
            yield Entry(row.cleared_at, "cooldown", f"cooldown{whose} ends", f"{label}; after {lasted}", row.cleared_by)
