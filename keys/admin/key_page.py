"""What the page of one key shows below its form: why it is benched, what it cost, and what happened to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keys.admin.cooldowns import trial_of
from keys.admin.display import cost, stamp_with_distance
from keys.admin.rows import list_of
from keys.admin.timeline import timeline_of
from keys.models import Cooldown, OpenRouterKey, RequestLog
from keys.services.rotation import find_predecessor, find_rotation
from keys.usage import Usage

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser, AnonymousUser

    from keys.admin.pool import KeyView


def page_sections(key: OpenRouterKey, view: KeyView, user: AbstractBaseUser | AnonymousUser) -> dict[str, Any]:
    """For the template; each section only for who may view its table. A fixed number of queries."""
    may_view = user.has_perm  # type: ignore[union-attr]  # the admin lets no other users in
    sections: dict[str, Any] = {"days": _days(view)}
    if may_view("keys.view_cooldown"):
        sections["open_cooldowns"] = _open_cooldowns(view)
    sections["timeline"] = timeline_of(
        key, with_events=may_view("keys.view_auditevent"), with_cooldowns=may_view("keys.view_cooldown")
    )
    sections["rotation"] = find_rotation(key.pk)
    sections["predecessor"] = find_predecessor(key.pk)
    if may_view("keys.view_requestlog"):
        sections["requests_link"] = list_of(RequestLog, f"key={key.pk}")
    return sections


def _open_cooldowns(view: KeyView) -> list[dict[str, Any]]:
    now = view.blocking.now
    rows = Cooldown.objects.filter(pk__in=[cooldown.id for cooldown in view.blocking.cooldowns])
    return [
        {
            "cause": row.get_cause_display(),
            "whose": f"account {row.account.name}" if row.account else "this key",
            "models": f"*{row.pattern}" if row.pattern else "all",
            "detail": row.detail,
            "since": stamp_with_distance(row.started_at, now),
            "until": stamp_with_distance(row.until, now),
            "repeat": row.repeat,
            "trial": trial_of(row),
        }
        for row in rows.select_related("account").order_by("-until")
    ]


def _days(view: KeyView) -> list[dict[str, Any]]:
    return [{"day": line.day.isoformat(), **numbers_of(line.usage)} for line in reversed(view.days)]


def numbers_of(usage: Usage) -> dict[str, str]:
    """A line of usage as it is shown."""
    return {
        "requests": f"{usage.requests:,}",
        "errors": f"{usage.errors:,}",
        "tokens_in": f"{usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens:,}",
        "tokens_out": f"{usage.output_tokens:,}",
        "cost": cost(usage.cost_nano, usage.unknown_costs),
    }
