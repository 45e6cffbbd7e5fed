"""What follows a failed try: another key, the same again, or the end. Pure."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from keys.causes import Cause, Failure

_LONGEST_HINT_SECONDS = 10.0  # a provider that wants more time is the client's to wait for
_LONGEST_DELAY_SECONDS = 30.0

_OTHER_KEY_HELPS = frozenset(
    {
        Cause.KEY_RATE_LIMITED,
        Cause.ACCOUNT_LIMITED,
        Cause.OUT_OF_CREDIT,
        Cause.KEY_LIMIT_REACHED,
        Cause.CANNOT_AFFORD,
        Cause.KEY_REFUSED,
    }
)
_TIME_HELPS = frozenset({Cause.PROVIDER_BUSY, Cause.NOT_SENT})


class Step(enum.Enum):
    SWITCH = enum.auto()  # at once, to a key that was not asked yet; not a retry
    RETRY = enum.auto()  # the same key, after a pause
    ENOUGH_KEYS = enum.auto()  # another key might help, but one request asks no more of them
    GIVE_UP = enum.auto()


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`OPENROUTER_MAX_RETRIES` and `OPENROUTER_RETRY_DELAY`; the keys that one request may ask."""

    max_retries: int
    delay_seconds: float
    max_keys: int = 10

    def next_step(self, failure: Failure, *, has_begun: bool, retries: int, keys_tried: int) -> Step:
        """`has_begun`: something has gone out to the client, so nothing may be tried any more."""
        if has_begun:
            return Step.GIVE_UP
        if failure.cause in _OTHER_KEY_HELPS:
            return Step.SWITCH if keys_tried < self.max_keys else Step.ENOUGH_KEYS
        if failure.cause in _TIME_HELPS and retries < self.max_retries:
            return Step.RETRY
        return Step.GIVE_UP

    def pause_seconds(self, failure: Failure, *, retries: int, jitter: Callable[[], float]) -> float:
        """Exponential, plus up to a quarter by `jitter()` in 0..1; a provider's own short hint counts if longer."""
        backoff = min(self.delay_seconds * float(2**retries), _LONGEST_DELAY_SECONDS)
        hint = min(failure.retry_after_seconds or 0.0, _LONGEST_HINT_SECONDS)
        return max(backoff, hint) * (1.0 + 0.25 * jitter())
