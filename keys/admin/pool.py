"""What the key pages show of each key: its standing and what it costs. Read for a whole list at once."""

from __future__ import annotations

import datetime as dt
import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import Count, Min
from django.utils import timezone

from keys.admin.standing import Standing, standing_of
from keys.models import KeyState, OpenRouterKey
from keys.services.cooldowns import Blocking, find_blocking
from keys.usage import Usage, UsageOfDay, usage_by_day

COST_DAYS = 30


@dataclass(frozen=True, slots=True)
class KeyView:
    """A key as an operator sees it at `blocking.now`. `days`: its usage on the last 30 UTC days, oldest first."""

    blocking: Blocking
    standing: Standing
    days: tuple[UsageOfDay, ...] = ()

    @property
    def today(self) -> Usage:
        today = self.blocking.now.date()
        return sum((line.usage for line in self.days if line.day == today), Usage())

    @property
    def thirty_days(self) -> Usage:
        return sum((line.usage for line in self.days), Usage())


def blocking_of(keys: Sequence[OpenRouterKey], now: dt.datetime) -> dict[uuid.UUID, Blocking]:
    """By key id. Two queries."""
    found = find_blocking([key.pk for key in keys], now)
    return {key.pk: found.get(key.pk, Blocking(now)) for key in keys}


def view_keys(keys: Sequence[OpenRouterKey]) -> dict[uuid.UUID, KeyView]:
    """By key id; seven queries. Today's costs come from the ledger itself, seconds after a request."""
    now = timezone.now()
    blocking = blocking_of(keys, now)
    days: dict[object, list[UsageOfDay]] = defaultdict(list)
    for line in usage_by_day(now.date() - dt.timedelta(days=COST_DAYS - 1), now.date()):
        days[line.target].append(line)
    return {key.pk: KeyView(blocking[key.pk], standing_of(key, blocking[key.pk]), tuple(days[key.pk])) for key in keys}


def find_only_account() -> tuple[str, int] | None:
    """Name of the account to which all active keys belong, and how many there are; None if it does not matter."""
    active = OpenRouterKey.objects.filter(state=KeyState.ACTIVE)
    found = active.aggregate(
        keys=Count("pk"), owned=Count("account"), accounts=Count("account", distinct=True), name=Min("account__name")
    )
    if found["keys"] < 2 or found["owned"] < found["keys"] or found["accounts"] != 1:
        return None
    return found["name"], found["keys"]


def one_account_warning() -> str:
    """What an operator must know about a pool that is really one OpenRouter account; "" for every other pool."""
    only = find_only_account()
    if only is None:
        return ""
    name, count = only
    return (
        f"All {count} active keys belong to one OpenRouter account, {name}. OpenRouter's rate limits and credits are "
        "per account: more keys of one account do not raise them, and when the account is out, every key is. "
        "To gain capacity or a fallback, add a key of another account."
    )
