"""How the pool is doing, key by key: what `GET /api/keys/stats` shows."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from keys.models import KeyState, OpenRouterKey
from keys.services.cooldowns import find_blocking


@dataclass(frozen=True, slots=True)
class KeyStats:
    """`requests`: how often the key was selected since it was added. `is_failed`: no request would get it now."""

    requests: int
    last_used: dt.datetime | None
    is_failed: bool
    preview: str


@dataclass(frozen=True, slots=True)
class PoolStats:
    """All keys but the retired ones, in the order they were added."""

    keys: tuple[KeyStats, ...]

    @property
    def total(self) -> int:
        return len(self.keys)

    @property
    def failed(self) -> int:
        return sum(key.is_failed for key in self.keys)

    @property
    def active(self) -> int:
        return self.total - self.failed


def read_pool_stats(now: dt.datetime) -> PoolStats:
    """Three queries. A key whose cooldown is due counts as active: the next request may try it."""
    rows = OpenRouterKey.objects.exclude(state=KeyState.RETIRED).order_by("created_at", "id")
    keys = list(rows.only("state", "selections", "last_selected_at", "tail"))
    blocking = find_blocking([key.pk for key in keys], now)
    return PoolStats(
        tuple(
            KeyStats(
                requests=key.selections,
                last_used=key.last_selected_at,
                is_failed=key.state != KeyState.ACTIVE
                or (blocking[key.pk].is_blocked and not blocking[key.pk].is_ready_to_retry),
                preview=key.tail,
            )
            for key in keys
        )
    )
