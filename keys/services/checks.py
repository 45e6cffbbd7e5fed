"""Asks OpenRouter about one key by `GET /key`, and keeps what it says. Called by the admin and by tasks.

The network comes first, outside any transaction; then one transaction stores facts, state and cooldowns under the
locks of the Pool and the key. A check proves a refusal or a key limit, and that they are over; it knows nothing of
rate limits and leaves them alone. What can't be reached changes no state.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import logging
import uuid
from dataclasses import dataclass
from enum import StrEnum

import httpx
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from keys.causes import Cause
from keys.errors import IllegalStateChange, NotFound
from keys.key_states import KeyAction, allows
from keys.key_text import redact_keys
from keys.models import Cooldown, KeyState, OpenRouterKey
from keys.openrouter import KeyFacts, NoAnswer, Refused, next_reset, read_key_answer
from keys.sealing import KEY_COLUMN, KEY_TABLE, Sealed, Undecryptable, get_vault
from keys.services.accounts import fill_account
from keys.services.asking import TIMEOUT_SECONDS, get, open_client
from keys.services.audit import TASK, Actor, record
from keys.services.cooldowns import CLEARED_BY_CHECK, close, lock_pool
from keys.services.keys import apply_action, get_locked_key

logger = logging.getLogger("opensvm.keys")

ACCEPTED = "OpenRouter accepts this key."
ACCEPTED_WITHOUT_ROOM = "OpenRouter accepts this key, but its limit is used up."
MANAGEMENT_KEY = "This is a management key: OpenRouter answers no requests with it."
MAX_ERROR_CHARS = 300
_STORED_FACTS = (
    "label",
    "owner",
    "limit_nano",
    "limit_remaining_nano",
    "limit_reset",
    "usage_nano",
    "usage_daily_nano",
    "usage_weekly_nano",
    "usage_monthly_nano",
    "expires_at",
)


class CheckOutcome(StrEnum):
    ACCEPTED = "accepted"
    REFUSED = "refused"
    NO_ANSWER = "no answer"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check came to. `state` is the key's afterwards; `message` is for an operator, in sentences.

    `is_good`: nothing of it needs to be looked at.
    """

    key_id: uuid.UUID
    outcome: CheckOutcome
    state: str
    message: str
    facts: KeyFacts | None = None
    is_good: bool = False


def check_key(key_id: uuid.UUID, *, actor: Actor, transport: httpx.BaseTransport | None = None) -> CheckResult:
    """Ask and store. Trouble on the way is a result. Raises NotFound, or IllegalStateChange for a retired key."""
    key = OpenRouterKey.objects.filter(pk=key_id).first()
    if key is None:
        raise NotFound("key", key_id)
    if key.state == KeyState.RETIRED:
        raise IllegalStateChange(key, key.state, "checked")
    asked_at = timezone.now()
    answer = _ask(key, transport)
    with transaction.atomic():
        lock_pool()
        locked = get_locked_key(key_id)
        before = _said_before(locked)
        result = _store(locked, answer, actor=actor, asked_at=asked_at)
        said = result.message[:MAX_ERROR_CHARS]
        if actor != TASK or said != before:  # the tasks' own uses are recorded once for a run
            record(actor, "key.checked", locked, before={"check": before}, after={"check": said})
    extra = {"event": "key.checked", "key": key.tail, "key_name": key.name, "outcome": result.outcome.value}
    level = logging.INFO if result.outcome is CheckOutcome.ACCEPTED else logging.WARNING
    logger.log(level, f"checked key ending {key.tail}: {result.message}", extra=extra)
    return result


def _said_before(key: OpenRouterKey) -> str:
    if key.checked_at is None:
        return ""
    is_used_up = key.limit_remaining_nano is not None and key.limit_remaining_nano <= 0
    return key.check_error or _accepted(key, has_room=not is_used_up)


def _accepted(key: OpenRouterKey, *, has_room: bool) -> str:
    return f"{ACCEPTED if has_room else ACCEPTED_WITHOUT_ROOM} {key.elsewhere}".strip()


def _ask(key: OpenRouterKey, transport: httpx.BaseTransport | None) -> KeyFacts | Refused | NoAnswer:
    try:
        secret = get_vault().unseal(key.secret, table=KEY_TABLE, column=KEY_COLUMN, row=key.pk)
    except Undecryptable as exc:
        return NoAnswer(f"The stored secret can't be opened: {exc}")
    try:
        with open_client(transport) as client:
            answer = read_key_answer(*get(client, "/key", secret=secret))
    except httpx.TimeoutException:
        return NoAnswer(f"OpenRouter did not answer within {TIMEOUT_SECONDS:.0f} s.")
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        answer = NoAnswer(f"OpenRouter can't be reached: {str(exc) or type(exc).__name__}.")
    return _redacted(answer, secret)


def _redacted(answer: KeyFacts | Refused | NoAnswer, secret: Sealed) -> KeyFacts | Refused | NoAnswer:
    """An upstream may repeat the key in a label or an error."""
    if isinstance(answer, KeyFacts):
        return dataclasses.replace(
            answer,
            label=redact_keys(answer.label, secret.reveal()),
            owner=redact_keys(answer.owner, secret.reveal()),
        )
    return dataclasses.replace(answer, message=redact_keys(answer.message, secret.reveal()))


def _store(
    key: OpenRouterKey, answer: KeyFacts | Refused | NoAnswer, *, actor: Actor, asked_at: dt.datetime
) -> CheckResult:
    if key.state == KeyState.RETIRED:  # while OpenRouter was asked
        return CheckResult(key.pk, CheckOutcome.NO_ANSWER, key.state, "The key was retired in the meantime.")
    now = timezone.now()
    if isinstance(answer, KeyFacts):
        return _store_facts(key, answer, actor=actor, asked_at=asked_at, now=now)
    message = "".join(mark for mark in answer.message if mark.isprintable())
    OpenRouterKey.objects.filter(pk=key.pk).update(checked_at=now, check_error=message[:MAX_ERROR_CHARS])
    if isinstance(answer, NoAnswer):
        return CheckResult(key.pk, CheckOutcome.NO_ANSWER, key.state, message)
    if allows(KeyAction.REFUSE, key.state):
        apply_action(key, KeyAction.REFUSE, actor=actor, now=now)
    return CheckResult(key.pk, CheckOutcome.REFUSED, key.state, message)


def _store_facts(
    key: OpenRouterKey, facts: KeyFacts, *, actor: Actor, asked_at: dt.datetime, now: dt.datetime
) -> CheckResult:
    error = MANAGEMENT_KEY if facts.is_management_key else ""
    values = {field: getattr(facts, field) for field in _STORED_FACTS}
    OpenRouterKey.objects.filter(pk=key.pk).update(**values, checked_at=now, check_error=error)
    key.owner = facts.owner
    fill_account(key, facts.owner, actor=actor)
    if allows(KeyAction.ACCEPT, key.state):
        apply_action(key, KeyAction.ACCEPT, actor=actor, now=now)
    if allows(KeyAction.ACTIVATE, key.state) and not error and facts.has_room is not False:
        apply_action(key, KeyAction.ACTIVATE, actor=actor, now=now)
    _judge_cooldowns(key, facts, asked_at=asked_at, now=now)
    has_room = facts.has_room is not False
    message = error or _accepted(key, has_room=has_room)
    is_good = has_room and not error and not key.elsewhere
    return CheckResult(key.pk, CheckOutcome.ACCEPTED, key.state, message, facts, is_good=is_good)


def _judge_cooldowns(key: OpenRouterKey, facts: KeyFacts, *, asked_at: dt.datetime, now: dt.datetime) -> None:
    """Close what is proved to be over; what began while OpenRouter was asked is newer than its answer."""
    open_ones = Cooldown.objects.filter(key=key.pk, cleared_at__isnull=True, started_at__lte=asked_at)
    close(open_ones.filter(cause=Cause.KEY_REFUSED), by=CLEARED_BY_CHECK, now=now)
    limits = open_ones.filter(cause=Cause.KEY_LIMIT_REACHED)
    if facts.has_room:
        close(limits, by=CLEARED_BY_CHECK, now=now)
    elif facts.has_room is False:
        until = next_reset(facts.limit_reset, now)
        until = until or now + dt.timedelta(seconds=settings.BENCH_POLICY.key_limit_seconds)
        limits.filter(until__lt=until).update(until=until)
