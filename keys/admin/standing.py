"""Why a key is used or not, in words. Pure: takes the key, what blocks it and the time."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from keys.admin.display import clock, relative
from keys.causes import Cause
from keys.models import KeyState, OpenRouterKey
from keys.services.cooldowns import Blocking, OpenCooldown

WORDS = {
    Cause.KEY_RATE_LIMITED: "rate-limited",
    Cause.ACCOUNT_LIMITED: "account limit",
    Cause.OUT_OF_CREDIT: "out of credit",
    Cause.KEY_LIMIT_REACHED: "key limit reached",
    Cause.KEY_REFUSED: "refused",
}
NEEDS_AN_OPERATOR = {Cause.OUT_OF_CREDIT, Cause.KEY_LIMIT_REACHED, Cause.KEY_REFUSED}


@dataclass(frozen=True, slots=True)
class Standing:
    """One badge: `tone` is good, wait, bad or off; `reason` says in words why.

    `beside_countdown` is what remains to be said of the reason where a countdown runs beside it.
    """

    word: str
    tone: str
    reason: str = ""
    beside_countdown: str = ""


def standing_of(key: OpenRouterKey, blocking: Blocking) -> Standing:
    if key.state != KeyState.ACTIVE:
        return _not_active(key, blocking.now)
    account = f"account {key.account.name}" if key.account else "its account"
    if blocking.is_ready_to_retry:
        return _ready(blocking, account)
    if blocking.is_blocked:
        return _benched(blocking, account)
    return Standing("active", "good", "; ".join(_partly(cooldown, blocking.now) for cooldown in blocking.cooldowns))


def word_of(cooldown: OpenCooldown) -> str:
    return WORDS.get(cooldown.cause, cooldown.label)


def _not_active(key: OpenRouterKey, now: dt.datetime) -> Standing:
    match key.state:
        case KeyState.INVALID:
            since = f"since {clock(key.invalid_since, now)}" if key.invalid_since else ""
            return Standing("invalid", "bad", ": ".join(part for part in (since, key.check_error) if part))
        case KeyState.DISABLED:
            return Standing("disabled", "off", "by an operator")
        case KeyState.PENDING:
            return Standing("pending", "wait", "waits for its first check")
        case KeyState.DRAINING:
            return Standing("draining", "wait", "finishes its open requests and takes no new ones")
    return Standing("retired", "off", "its secret is erased")


def _ready(blocking: Blocking, account: str) -> Standing:
    cooldown = _last(blocking)
    tried = "one request tries it now" if cooldown.is_tried else "the next request tries it"
    return Standing("ready to retry", "wait", f"was {_named(cooldown, account)}; {tried}")


def _benched(blocking: Blocking, account: str) -> Standing:
    """The cooldown that ends last decides: until then the key is not selected."""
    cooldown = _last(blocking)
    tone = "bad" if cooldown.cause in NEEDS_AN_OPERATOR else "wait"
    whose = f"{account}, " if cooldown.is_of_account else ""
    others = len(blocking.for_all_models) - 1
    more = f", and {others} more" if others else ""
    until, now = cooldown.until, blocking.now
    reason, brief = (f"{whose}until {moment}{more}" for moment in (_moment(until, now), clock(until, now)))
    return Standing(word_of(cooldown), tone, reason, brief)


def _last(blocking: Blocking) -> OpenCooldown:
    return max(blocking.for_all_models, key=lambda cooldown: cooldown.until)


def _named(cooldown: OpenCooldown, account: str) -> str:
    return f"{word_of(cooldown)} ({account})" if cooldown.is_of_account else word_of(cooldown)


def _partly(cooldown: OpenCooldown, now: dt.datetime) -> str:
    when = f"until {_moment(cooldown.until, now)}" if cooldown.until > now else "due for a trial"
    return f"{word_of(cooldown)} for models *{cooldown.pattern} {when}"


def _moment(moment: dt.datetime, now: dt.datetime) -> str:
    return f"{clock(moment, now)} ({relative(moment, now)})"
