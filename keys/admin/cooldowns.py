"""The history of cooldowns, read-only. An open one is ended by "Clear cooldown" on its key."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from keys.admin.base import LogAdmin
from keys.admin.display import NOTHING, span, stamp, stamp_with_distance
from keys.admin.filters import BenchCauseFilter, OpenFilter
from keys.admin.rows import link_to
from keys.models import Cooldown


@admin.register(Cooldown)
class CooldownAdmin(LogAdmin):
    list_display = ("since", "target", "cause_shown", "detail", "until_shown", "repeat", "ended")
    list_display_links = ("since",)
    list_filter = (OpenFilter, BenchCauseFilter)
    fieldsets = (
        (None, {"fields": ("target", "cause_shown", "pattern", "detail")}),
        ("Time", {"fields": ("since", "until_shown", "repeat", "trial_shown", "ended")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Cooldown]:
        queryset = super().get_queryset(request).select_related("key", "account")
        return queryset.defer("key__secret")

    @admin.display(description="key or account")
    def target(self, row: Cooldown) -> SafeString | str:
        if row.account is not None:
            return format_html("account {}", link_to(row.account))
        return link_to(row.key)

    @admin.display(description="cause")
    def cause_shown(self, row: Cooldown) -> str:
        return f"{row.get_cause_display()}, models *{row.pattern}" if row.pattern else row.get_cause_display()

    @admin.display(description="since")
    def since(self, row: Cooldown) -> SafeString | str:
        return stamp(row.started_at)

    @admin.display(description="until")
    def until_shown(self, row: Cooldown) -> SafeString | str:
        return stamp(row.until) if row.cleared_at else stamp_with_distance(row.until, timezone.now())

    @admin.display(description="trial")
    def trial_shown(self, row: Cooldown) -> str:
        return trial_of(row)

    @admin.display(description="ended")
    def ended(self, row: Cooldown) -> SafeString | str:
        return ended_of(row)


def ended_of(row: Cooldown) -> SafeString | str:
    if row.cleared_at is None:
        return format_html('<span class="badge is-wait">{}</span>', "ready to retry" if _is_due(row) else "open")
    lasted = span((row.cleared_at - row.started_at).total_seconds())
    return format_html('{} <span class="quiet">by {}, after {}</span>', stamp(row.cleared_at), row.cleared_by, lasted)


def trial_of(row: Cooldown) -> str:
    """Which request holds the right to try whether the cause is gone."""
    if row.trial is None:
        return "due: the next request" if row.cleared_at is None and _is_due(row) else NOTHING
    return f"request {row.trial}"


def _is_due(row: Cooldown) -> bool:
    return row.until <= timezone.now()
