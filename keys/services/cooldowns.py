"""Reads and clears cooldowns. The lane opens them (`keys.steps.cooldowns`); a check may close or lengthen them.

Locks: the Pool row first, then the key, as everywhere.
"""

from __future__ import annotations

import datetime as dt
import logging
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from keys.causes import Cause
from keys.models import Cooldown, OpenRouterKey, Pool
from keys.services.audit import Actor, record
from keys.services.keys import get_locked_key

logger = logging.getLogger("opensvm.keys")

CLEARED_BY_CHECK = "check"


@dataclass(frozen=True, slots=True)
class OpenCooldown:
    """One open cooldown that keeps a key, or only one kind of model on it, from being selected."""

    id: int
    cause: Cause
    detail: str
    pattern: str  # end of the model names that it is about; empty: all
    is_of_account: bool
    started_at: dt.datetime
    until: dt.datetime
    repeat: int
    is_tried: bool  # a trial is under way

    @property
    def label(self) -> str:
        return str(self.cause.label)


@dataclass(frozen=True, slots=True)
class Blocking:
    """What keeps one key from being selected, worst first, as seen at `now`. Empty if nothing does."""

    now: dt.datetime
    cooldowns: tuple[OpenCooldown, ...] = ()

    @property
    def for_all_models(self) -> tuple[OpenCooldown, ...]:
        return tuple(cooldown for cooldown in self.cooldowns if not cooldown.pattern)

    @property
    def is_blocked(self) -> bool:
        """A cooldown for all models is open, due or not."""
        return bool(self.for_all_models)

    @property
    def earliest_until(self) -> dt.datetime | None:
        return min((cooldown.until for cooldown in self.for_all_models), default=None)

    @property
    def free_at(self) -> dt.datetime | None:
        """When a trial may begin: all cooldowns for all models are due by then."""
        return max((cooldown.until for cooldown in self.for_all_models), default=None)

    @property
    def is_ready_to_retry(self) -> bool:
        """Blocked, but due: the next request may be its trial."""
        return self.free_at is not None and self.free_at <= self.now


def find_blocking(key_ids: Iterable[uuid.UUID], now: dt.datetime) -> dict[uuid.UUID, Blocking]:
    """For each of the keys that exist, its open cooldowns and those of its account. Two queries."""
    accounts = dict(OpenRouterKey.objects.filter(pk__in=list(key_ids)).values_list("pk", "account_id"))
    of_accounts = {account_id for account_id in accounts.values() if account_id}
    rows = Cooldown.objects.filter(Q(key__in=accounts) | Q(account__in=of_accounts), cleared_at__isnull=True)
    by_target: dict[uuid.UUID | None, list[OpenCooldown]] = {}
    for row in rows.order_by("-until", "-id"):
        by_target.setdefault(row.key_id or row.account_id, []).append(_open_cooldown(row))
    return {
        key_id: Blocking(now, tuple(_worst_first(by_target.get(key_id, []) + by_target.get(account_id, []))))
        for key_id, account_id in accounts.items()
    }


def clear_cooldowns(key_id: uuid.UUID, *, actor: Actor) -> int:
    """Close the open cooldowns of the key and of its account; how many there were. Raises NotFound."""
    with transaction.atomic():
        lock_pool()
        key = get_locked_key(key_id)
        cooldowns = list(_open_ones(key))
        if cooldowns:
            close(_open_ones(key), by=actor.name, now=timezone.now())
            causes = sorted({row.cause for row in cooldowns})
            record(actor, "key.cooldowns_cleared", key, before={"causes": causes})
    if cooldowns:
        extra = {"event": "key.cooldowns_cleared", "key": key.tail, "key_name": key.name, "causes": causes}
        logger.info("cleared cooldowns", extra={**extra, "actor": actor.name})
    return len(cooldowns)


def lock_pool() -> None:
    """Take the lock of admission until the caller's transaction ends."""
    list(Pool.objects.select_for_update(no_key=True).filter(pk=1))


def close(cooldowns: QuerySet[Cooldown], *, by: str, now: dt.datetime) -> int:
    """Close those of `cooldowns` that are still open; the caller holds the Pool's lock.

    The rows are locked by id first: a trial that passes closes some of them without the Pool's lock.
    """
    still_open = cooldowns.filter(cleared_at__isnull=True)
    ids = list(still_open.select_for_update(no_key=True).order_by("pk").values_list("pk", flat=True))
    ended = {"cleared_at": now, "cleared_by": by[:150], "trial": None, "trial_at": None}
    return Cooldown.objects.filter(pk__in=ids).update(**ended)


def _open_ones(key: OpenRouterKey) -> QuerySet[Cooldown]:
    target = Q(key=key.pk) | Q(account=key.account_id) if key.account_id else Q(key=key.pk)
    return Cooldown.objects.filter(target, cleared_at__isnull=True)


def _open_cooldown(row: Cooldown) -> OpenCooldown:
    return OpenCooldown(
        id=row.pk,
        cause=Cause(row.cause),
        detail=row.detail,
        pattern=row.pattern,
        is_of_account=row.account_id is not None,
        started_at=row.started_at,
        until=row.until,
        repeat=row.repeat,
        is_tried=row.trial is not None,
    )


def _worst_first(cooldowns: list[OpenCooldown]) -> list[OpenCooldown]:
    return sorted(cooldowns, key=lambda cooldown: (not cooldown.pattern, cooldown.until), reverse=True)
