"""What a failed try does to the cooldowns. Called inside a batch, under the Pool's lock.

The rules: a failure of a try that was selected before the last cooldown of its kind began changes nothing; ten
429s of one burst are one bench. Only the failure of a trial counts as a repeat, and success resets it.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from keys.causes import BenchPolicy, Failure, Scope
from keys.ledger_items import FailedTry, Selection
from keys.models import Cooldown
from keys.steps.clean import clean_text

logger = logging.getLogger("opensvm.pool")

CLEARED_BY_TRIAL = "trial"
CLEARED_BY_FAILED_TRIAL = "failed trial"


@dataclass(frozen=True, slots=True)
class Benched:
    """A cooldown that this batch opened, for the log line after the commit."""

    selection: Selection
    failure: Failure
    seconds: float
    repeat: int

    def log(self) -> None:
        target = "the account of key" if self.failure.scope is Scope.ACCOUNT else "key"
        words = "rate limit: " if "limit" in self.failure.cause else ""
        logger.warning(
            f"{words}benched {target} ending {self.selection.tail} for {self.seconds:.0f} s: "
            f"{self.failure.cause.label}",
            extra={
                "event": "key.benched",
                "key": self.selection.tail,
                "key_name": self.selection.name,
                "cause": self.failure.cause.value,
                "seconds": round(self.seconds, 3),
                "repeat": self.repeat,
                "detail": self.failure.detail,
            },
        )


def apply_failures(
    request_id: UUID, failures: Iterable[FailedTry], *, turn: int, policy: BenchPolicy, now: dt.datetime
) -> list[Benched]:
    """Open, lengthen or leave the cooldowns that `failures` call for, and free what is left of the trial."""
    benched = []
    for failed in failures:
        if failed.failure.scope is not Scope.NOTHING:
            benched += _bench(request_id, failed, turn=turn, policy=policy, now=now)
        if failed.selection.is_trial:
            free_trial(request_id)
    return benched


def free_trial(request_id: UUID) -> None:
    """The trial proved nothing: the next request may try."""
    Cooldown.objects.filter(trial=request_id, cleared_at__isnull=True).update(trial=None, trial_at=None)


def free_trials(request_ids: Iterable[UUID]) -> None:
    """The same for many."""
    trials = Cooldown.objects.filter(trial__in=list(request_ids), cleared_at__isnull=True)
    trials.update(trial=None, trial_at=None)


def pass_trial(request_id: UUID, now: dt.datetime) -> None:
    """The trial's first good event has come: its cooldowns are over."""
    Cooldown.objects.filter(trial=request_id, cleared_at__isnull=True).update(
        cleared_at=now, cleared_by=CLEARED_BY_TRIAL, trial=None, trial_at=None
    )


def _bench(request_id: UUID, failed: FailedTry, *, turn: int, policy: BenchPolicy, now: dt.datetime) -> list[Benched]:
    failure, selection = failed.failure, failed.selection
    target = _target_of(failure, selection)
    last = Cooldown.objects.filter(cause=failure.cause, pattern=failure.pattern, **target).order_by("-id").first()
    repeat = 0
    if last is not None:
        is_open, is_its_trial = last.cleared_at is None, last.trial == request_id
        if is_open and is_its_trial:
            repeat = last.repeat + 1
            Cooldown.objects.filter(pk=last.pk).update(cleared_at=now, cleared_by=CLEARED_BY_FAILED_TRIAL, trial=None)
        elif is_open or selection.turn <= last.turn:
            return []
    seconds = policy.bench_seconds(failure, repeat, now)
    Cooldown.objects.create(
        cause=failure.cause,
        pattern=failure.pattern,
        detail=clean_text(failure.detail or failure.message, 300),
        turn=turn,
        started_at=now,
        until=now + dt.timedelta(seconds=seconds),
        repeat=repeat,
        **target,
    )
    return [Benched(selection, failure, seconds, repeat)]


def _target_of(failure: Failure, selection: Selection) -> dict[str, Any]:
    """The key, or its account; a key without an account stands alone."""
    if failure.scope is Scope.ACCOUNT and selection.account_id is not None:
        return {"account_id": selection.account_id}
    return {"key_id": selection.key_id}
