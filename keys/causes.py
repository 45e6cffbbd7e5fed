"""Whose fault a failed upstream try is, and for how long that benches a key or an account.

`proxy` turns an upstream failure into a `Failure`; the lane turns it into a cooldown with `bench_seconds`.
The rules and their defaults are in the README, section "Whose fault is it".
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from django.db import models


class Cause(models.TextChoices):
    KEY_RATE_LIMITED = "key_rate_limited", "key rate-limited"
    ACCOUNT_LIMITED = "account_limited", "account limit"
    OUT_OF_CREDIT = "out_of_credit", "account out of credit"
    KEY_LIMIT_REACHED = "key_limit_reached", "key limit reached"
    CANNOT_AFFORD = "cannot_afford", "can't afford this request"
    KEY_REFUSED = "key_refused", "key refused"
    PROVIDER_BUSY = "provider_busy", "provider or model busy"
    BAD_REQUEST = "bad_request", "bad request"
    NOT_SENT = "not_sent", "connection failed before the request was sent"
    TIMED_OUT = "timed_out", "timed out or cut after the request was sent"
    CLIENT_LEFT = "client_left", "client left"
    NO_KEY = "no_key", "no key free"
    INTERRUPTED = "interrupted", "the service stopped"


class Scope(models.TextChoices):
    """What a cause benches."""

    KEY = "key"
    ACCOUNT = "account"
    NOTHING = "nothing"


SCOPES = {
    Cause.KEY_RATE_LIMITED: Scope.KEY,
    Cause.ACCOUNT_LIMITED: Scope.ACCOUNT,
    Cause.OUT_OF_CREDIT: Scope.ACCOUNT,
    Cause.KEY_LIMIT_REACHED: Scope.KEY,
    Cause.KEY_REFUSED: Scope.KEY,
}

MAX_HINT_SECONDS = 3600.0
MIN_HINT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Failure:
    """What one upstream try came to. `hint_seconds`: upstream's own word on how long, if it gave one.

    `status` and `error_type` are Anthropic's, as the client would see them; `upstream_status` is null without an
    HTTP answer. `detail` and `message` are redacted: no key, key hash or user id is in them.
    """

    cause: Cause
    status: int
    error_type: str
    message: str
    detail: str = ""
    upstream_status: int | None = None
    hint_seconds: float | None = None
    resets_at: dt.datetime | None = None
    pattern: str = ""
    retry_after_seconds: float | None = None
    billed: bool = False  # it may have been: the cost stays unknown until it is asked for

    @property
    def scope(self) -> Scope:
        return SCOPES.get(self.cause, Scope.NOTHING)


@dataclass(frozen=True, slots=True)
class BenchPolicy:
    """Seconds without an upstream hint, each a setting of the service."""

    rate_limited_seconds: float = 300.0
    account_seconds: float = 60.0
    credit_seconds: float = 300.0
    key_limit_seconds: float = 3600.0
    refused_seconds: float = 60.0

    def bench_seconds(self, failure: Failure, repeat: int, now: dt.datetime) -> float:
        """How long `failure` benches its target when `repeat` trials in a row have failed before.

        An upstream hint is taken as it is, between one second and one hour, and never doubled. A key limit
        is benched until it resets, which may be a month away: a check that sees room ends it earlier.
        """
        if failure.cause is Cause.KEY_LIMIT_REACHED and failure.resets_at is not None:
            return max((failure.resets_at - now).total_seconds(), MIN_HINT_SECONDS)
        if failure.hint_seconds is not None and failure.cause is not Cause.KEY_REFUSED:
            return min(max(failure.hint_seconds, MIN_HINT_SECONDS), MAX_HINT_SECONDS)
        match failure.cause:
            case Cause.KEY_RATE_LIMITED:
                return self.rate_limited_seconds * min(repeat + 1, 3)
            case Cause.ACCOUNT_LIMITED:
                return self.account_seconds
            case Cause.OUT_OF_CREDIT:
                return min(self.credit_seconds * float(2 ** min(repeat, 20)), MAX_HINT_SECONDS)
            case Cause.KEY_LIMIT_REACHED:
                return self.key_limit_seconds
            case Cause.KEY_REFUSED:
                return self.refused_seconds
        raise ValueError(f"{failure.cause} benches nothing")
