"""What keeps the pool true in the background: stale trials, and checks of keys by `GET /key`. Called by `keys.tasks`.

Each is idempotent and may run on several schedulers at once. Checks run one after another outside of transactions,
those that waited longest first, and stop at a time limit: the next run goes on where this one stopped.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from uuid import UUID

import httpx
from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from keys.causes import Cause
from keys.errors import KeysError
from keys.models import Cooldown, InFlight, KeyState, OpenRouterKey
from keys.services.audit import TASK, record_secret_use
from keys.services.checks import check_key
from keys.services.cooldowns import lock_pool

logger = logging.getLogger("opensvm.tasks")

PROVABLE = (Cause.KEY_LIMIT_REACHED, Cause.KEY_REFUSED)  # by GET /key; it knows nothing of rate limits
CHECKED = (KeyState.ACTIVE, KeyState.INVALID, KeyState.PENDING)  # a rotation's successor serves once it is accepted
LONGEST_RUN_SECONDS = 60.0
DUE_SHARE = 0.75  # of the interval: a check ends a little after its run began, and must still be due at the next


@dataclass(frozen=True, slots=True)
class CheckSchedule:
    """How often a key is asked about. An invalid one more rarely once it has been so for `invalid_later`."""

    active: dt.timedelta
    invalid: dt.timedelta
    invalid_later: dt.timedelta

    @classmethod
    def from_settings(cls) -> CheckSchedule:
        return cls(
            active=dt.timedelta(seconds=settings.CHECK_KEYS_SECONDS),
            invalid=dt.timedelta(seconds=settings.RECHECK_INVALID_SECONDS),
            invalid_later=dt.timedelta(seconds=settings.RECHECK_INVALID_LATER_SECONDS),
        )

    def interval(self, state: str, invalid_since: dt.datetime | None, now: dt.datetime) -> dt.timedelta:
        if state != KeyState.INVALID:
            return self.active
        is_new = invalid_since is None or now - invalid_since < self.invalid_later
        return self.invalid if is_new else self.invalid_later

    def is_due(
        self, state: str, checked_at: dt.datetime | None, invalid_since: dt.datetime | None, now: dt.datetime
    ) -> bool:
        if state not in CHECKED:
            return False
        return checked_at is None or now - checked_at >= self.interval(state, invalid_since, now) * DUE_SHARE


def reset_cooldowns(now: dt.datetime, *, transport: httpx.BaseTransport | None = None) -> int:
    """Free the trials that will not end, and check the keys whose cooldown `GET /key` can prove; how many were freed.

    A rate limit's cooldown is left to its trial.
    """
    freed = _free_stale_trials(now)
    _check_while_wanted(_keys_to_prove(now), lambda key_id: key_id in _keys_to_prove(now), transport)
    return freed


def check_keys(now: dt.datetime, *, transport: httpx.BaseTransport | None = None) -> int:
    """Check the active, invalid and pending keys that are due; how many were checked."""
    schedule = CheckSchedule.from_settings()
    return _check_while_wanted(
        _keys_due(schedule, now), lambda key_id: bool(_keys_due(schedule, now, key_id)), transport
    )


def _free_stale_trials(now: dt.datetime) -> int:
    """One read; locks only when there is something to free. The rows too: a passing trial does not lock the Pool."""
    stale = _stale_trials(now)
    if not stale.exists():
        return 0
    with transaction.atomic():
        lock_pool()
        ids = list(stale.select_for_update(no_key=True).order_by("pk").values_list("pk", flat=True))
        freed = Cooldown.objects.filter(pk__in=ids).update(trial=None, trial_at=None)
    logger.info("freed stale trials", extra={"event": "trial.freed", "count": freed})
    return freed


def _stale_trials(now: dt.datetime) -> QuerySet[Cooldown]:
    """Those whose request is gone, or has had no event for too long."""
    too_old = Q(trial_at__lte=now - dt.timedelta(seconds=settings.TRIAL_SECONDS))
    is_running = Exists(InFlight.objects.filter(pk=OuterRef("trial")))
    return Cooldown.objects.filter(too_old | ~is_running, cleared_at__isnull=True, trial__isnull=False)


def _keys_to_prove(now: dt.datetime) -> list[UUID]:
    """Active keys that were not checked since their cooldown began, or whose cooldown is due; oldest check first."""
    again = dt.timedelta(seconds=settings.TRIAL_SECONDS)
    rows = Cooldown.objects.filter(cleared_at__isnull=True, cause__in=PROVABLE, key__state=KeyState.ACTIVE)
    wanted = {
        key_id: checked_at
        for key_id, checked_at, started_at, until in rows.values_list(
            "key_id", "key__checked_at", "started_at", "until"
        )
        if checked_at is None or checked_at < started_at or (until <= now and checked_at <= now - again)
    }
    return _longest_waiting(wanted.items())


def _keys_due(schedule: CheckSchedule, now: dt.datetime, only: UUID | None = None) -> list[UUID]:
    rows = OpenRouterKey.objects.filter(state__in=CHECKED)
    if only is not None:
        rows = rows.filter(pk=only)
    return _longest_waiting(
        (key_id, checked_at)
        for key_id, state, checked_at, invalid_since in rows.values_list("id", "state", "checked_at", "invalid_since")
        if schedule.is_due(state, checked_at, invalid_since, now)
    )


def _longest_waiting(checks: Iterable[tuple[UUID | None, dt.datetime | None]]) -> list[UUID]:
    never = dt.datetime.min.replace(tzinfo=dt.UTC)
    return [key_id for key_id, _ in sorted(checks, key=lambda check: check[1] or never) if key_id is not None]


def _check_while_wanted(
    key_ids: Iterable[UUID], is_wanted: Callable[[UUID], bool], transport: httpx.BaseTransport | None
) -> int:
    """`is_wanted` is asked again before each check: another scheduler may have done it."""
    checked, stop_at = 0, time.monotonic() + LONGEST_RUN_SECONDS
    due = list(key_ids)
    if due:
        names = OpenRouterKey.objects.filter(pk__in=due).values_list("name", flat=True)
        record_secret_use(TASK, "GET /key", list(names))
    for key_id in due:
        if time.monotonic() >= stop_at:
            logger.warning("left keys for the next check", extra={"event": "keys.checks_left"})
            break
        if not is_wanted(key_id):
            continue
        try:
            check_key(key_id, actor=TASK, transport=transport)
            checked += 1
        except KeysError as exc:  # retired in this moment
            logger.info("skipped a check", extra={"event": "key.check_skipped", "reason": str(exc)})
    return checked
