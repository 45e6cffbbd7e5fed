"""OpenRouter accounts: which keys bill to each, and what keeps all of them from being used."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from keys.admin.base import ServiceAdmin, actor_of
from keys.admin.display import NOTHING, stamp, stamp_with_distance
from keys.admin.pool import one_account_warning
from keys.admin.rows import link_to
from keys.models import Account, Cooldown, OpenRouterKey
from keys.services.accounts import save_account

MOST_KEYS = 10


@admin.register(Account)
class AccountAdmin(ServiceAdmin):
    change_list_template = "keys/admin/key_list.html"
    list_display = ("name", "organization", "keys_shown", "cooldowns_shown")
    search_fields = ("name", "organization")
    sortable_by = ("name",)
    facts = ("keys_shown", "cooldowns_shown", "added")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Account]:
        keys = OpenRouterKey.objects.defer("secret").order_by("created_at", "pk")
        cooldowns = Cooldown.objects.filter(cleared_at__isnull=True)
        return (
            super()
            .get_queryset(request)
            .prefetch_related(
                Prefetch("keys", queryset=keys), Prefetch("cooldowns", queryset=cooldowns, to_attr="open_cooldowns")
            )
        )

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        context = {"one_account_warning": one_account_warning}  # called by the template, so not for an action
        return super().changelist_view(request, {**context, **(extra_context or {})})

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return ("name", "organization", *(self.facts if obj else ()))

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.facts if obj else ()

    def save_by_service(self, request: HttpRequest, form: Any, change: bool) -> Account:
        return save_account(
            actor=actor_of(request),
            name=form.cleaned_data["name"],
            organization=form.cleaned_data["organization"],
            account_id=form.instance.pk if change else None,
        )

    @admin.display(description="keys")
    def keys_shown(self, account: Account) -> SafeString | str:
        keys = list(account.keys.all())
        lines = format_html_join(
            "", "<li>{} {}</li>", ((link_to(key), key.get_state_display()) for key in keys[:MOST_KEYS])
        )
        more = format_html("<li>and {} more</li>", f"{len(keys) - MOST_KEYS:,}") if len(keys) > MOST_KEYS else ""
        return format_html('<ul class="plain">{}{}</ul>', lines, more) if keys else NOTHING

    @admin.display(description="open cooldowns")
    def cooldowns_shown(self, account: Account) -> SafeString | str:
        now = timezone.now()
        rows = account.open_cooldowns  # type: ignore[attr-defined]  # prefetched
        lines = format_html_join(
            "",
            "<li>{} until {} {}</li>",
            ((row.get_cause_display(), stamp_with_distance(row.until, now), row.detail) for row in rows),
        )
        return format_html('<ul class="plain">{}</ul>', lines) if rows else NOTHING

    @admin.display(description="added")
    def added(self, account: Account) -> SafeString | str:
        return stamp(account.created_at)
