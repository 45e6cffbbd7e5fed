"""Builders of what the lane takes, for tests of the lane and of its batch steps."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from django.db import connection
from django.utils import timezone

from keys.causes import BenchPolicy, Cause, Failure
from keys.ledger_items import Admit, Admitted, Caller, FailedTry, Selection, Settlement, Switch, Tokens
from keys.models import Client, CostSource, OpenRouterKey
from keys.sealing import Sealed, get_vault
from keys.services.audit import Actor
from keys.services.clients import create_client
from keys.services.keys import add_key
from keys.steps.batch import Batch, BatchRules
from keys.uuid7 import new_request_uuid, request_id_of

ALICE = Actor("alice")
MODEL = "anthropic/claude-sonnet-4.5"
RULES = BatchRules(uuid.UUID(int=7), BenchPolicy(), trial_seconds=60.0)


def add_keys(*names: str, **fields: Any) -> list[OpenRouterKey]:
    return [
        add_key(actor=ALICE, secret=Sealed(f"sk-or-v1-test-{name}-{uuid.uuid4().hex[:8]}"), name=name, **fields)
        for name in names
    ]


def add_client(name: str = "bob", **fields: Any) -> tuple[str, Client]:
    """(digest, client)"""
    text, client = create_client(actor=ALICE, name=name, **fields)
    return get_vault().client_digest(text), client


def admit(digest: str, *, model: str = MODEL, **fields: Any) -> Admit:
    made = new_request_uuid()
    caller = Caller("192.0.2.7", "curl/8", "session-1")
    created_at = timezone.now()
    return Admit(made, request_id_of(made), digest, model, stream=False, created_at=created_at, caller=caller, **fields)


def settlement(item: Admit, admitted: Admitted, **fields: Any) -> Settlement:
    """A good answer of 1,000 nano-USD, unless `fields` say otherwise."""
    row = Settlement(
        id=item.id,
        request_id=item.request_id,
        client_id=admitted.client_id,
        key_id=admitted.selection.key_id,
        model_asked=item.model_asked,
        model_sent=admitted.model_sent,
        status=200,
        error_type="",
        cause="",
        attempts=1,
        stream=False,
        tokens=Tokens(10, 20, 0, 0),
        cost_nano=1_000,
        cost_source=CostSource.REPORTED,
        latency_ms=5,
        first_token_ms=3,
        generation_id="gen-1",
        created_at=item.created_at,
        caller=item.caller,
    )
    return msgspec.structs.replace(row, **fields)


def failed_try(selection: Selection, cause: Cause, n: int = 1, **fields: Any) -> FailedTry:
    failure = Failure(cause, 529, "overloaded_error", "It failed.", upstream_status=429, **fields)
    return FailedTry(n, selection, failure, duration_ms=1, at=timezone.now())


def switch(item: Admit, admitted: Admitted, cause: Cause, *, tried: int = 1, **fields: Any) -> Switch:
    failed = failed_try(admitted.selection, cause, tried, **fields)
    return Switch(item.id, admitted.model_sent, admitted.client_id, frozenset({admitted.selection.key_id}), (failed,))


def run(*items: Any, now: dt.datetime | None = None, rules: BatchRules = RULES) -> list[Any]:
    """One batch in this thread."""
    return Batch(items, rules, now or timezone.now()).run()


@contextmanager
def recorded_statements() -> Iterator[list[str]]:
    """What this thread's connection is asked, by the ORM and by the lane's own statements."""
    texts: list[str] = []

    def note(execute: Any, text: str, *arguments: Any) -> Any:
        texts.append(text)
        return execute(text, *arguments)

    with connection.execute_wrapper(note):
        yield texts
