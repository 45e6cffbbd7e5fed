"""Rows for the admin's tests: keys, cooldowns, clients and requests with plainly fake secrets."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import Any

from django.utils import timezone

from keys.causes import Cause
from keys.models import Account, Attempt, Client, Cooldown, CostSource, OpenRouterKey, RequestLog
from keys.sealing import Sealed
from keys.services.audit import Actor
from keys.services.clients import create_client
from keys.services.keys import add_key
from keys.uuid7 import new_request_uuid, request_id_of

ALICE = Actor("alice", ip="192.0.2.1")
_numbers = itertools.count(1)


def secret_text(n: int) -> str:
    return f"sk-or-v1-test-planted-{n:06}"


def build_key(name: str = "", **values: Any) -> OpenRouterKey:
    """A stored key; `values` that `add_key` does not take are written to the row."""
    n = next(_numbers)
    taken = {field: values.pop(field) for field in ("account", "tier", "note") if field in values}
    key = add_key(actor=ALICE, secret=Sealed(secret_text(n)), name=name or f"key-{n}", **taken)
    if values:
        OpenRouterKey.objects.filter(pk=key.pk).update(**values)
        key.refresh_from_db()
    return key


def build_account(name: str = "") -> Account:
    return Account.objects.create(name=name or f"account-{next(_numbers)}")


def build_client(name: str = "", **values: Any) -> Client:
    _, client = create_client(actor=ALICE, name=name or f"client-{next(_numbers)}")
    if values:
        Client.objects.filter(pk=client.pk).update(**values)
        client.refresh_from_db()
    return client


def build_cooldown(*, minutes: float = 5, cause: Cause = Cause.KEY_RATE_LIMITED, **values: Any) -> Cooldown:
    """Of `key` or `account`, open, and due in `minutes`; negative ones: due already."""
    until = timezone.now() + dt.timedelta(minutes=minutes)
    started_at = min(until, timezone.now()) - dt.timedelta(minutes=1)
    return Cooldown.objects.create(**{"cause": cause, "started_at": started_at, "until": until} | values)


def build_request(client: Client, key: OpenRouterKey | None, **values: Any) -> RequestLog:
    request_uuid = values.pop("id", None) or new_request_uuid()
    now = timezone.now()
    facts = {
        "model_asked": "claude-3-opus-20240229",
        "model_sent": "anthropic/claude-3-opus",
        "status": 200,
        "attempts": 1,
        "input_tokens": 1_200,
        "output_tokens": 340,
        "cost_nano": 12_345_678,
        "cost_source": CostSource.REPORTED,
        "latency_ms": 2_150,
        "created_at": now,
        "recorded_at": now,
    }
    return RequestLog.objects.create(
        id=request_uuid, client=client, key=key, request_id=request_id_of(request_uuid), **facts | values
    )


def build_attempt(request: RequestLog, key: OpenRouterKey, n: int = 1, **values: Any) -> Attempt:
    facts = {"status": 429, "cause": Cause.KEY_RATE_LIMITED, "detail": "rate limit exceeded", "duration_ms": 180}
    return Attempt.objects.create(request=request, key=key, n=n, **facts | values)


def build_everything(count: int) -> None:
    """`count` rows of everything that has a page, related to each other."""
    for _ in range(count):
        account = build_account()
        key = build_key(account=account)
        build_cooldown(key=key)
        build_cooldown(account=account, cause=Cause.OUT_OF_CREDIT)
        request = build_request(build_client(), key)
        build_attempt(request, key)
