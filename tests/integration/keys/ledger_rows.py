"""Rows of the ledger for the tests of costs and recovery."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import msgspec
from django.utils import timezone

from keys.ledger_items import Caller, Settlement, Tokens
from keys.models import CostSource, InFlight, RequestLog
from keys.sealing import Sealed
from keys.services.audit import COMMAND_LINE
from keys.services.keys import add_key
from keys.steps import settlement
from keys.steps.database import open_statements

CLIENT = uuid.uuid4()
KEY = uuid.uuid4()
MODEL = "anthropic/claude-sonnet-4.5"


def ledger_row(**columns: Any) -> RequestLog:
    """A row of unknown cost, recorded just now."""
    now, row = timezone.now(), uuid.uuid4()
    defaults = {
        "id": row,
        "client_id": CLIENT,
        "key_id": KEY,
        "model_asked": "claude",
        "model_sent": MODEL,
        "status": 499,
        "cost_source": CostSource.UNKNOWN,
        "request_id": f"req_{row.hex}",
        "created_at": now,
        "recorded_at": now,
    }
    return RequestLog.objects.create(**(defaults | columns))


def in_flight(worker: uuid.UUID | None, **columns: Any) -> InFlight:
    defaults = {
        "id": uuid.uuid4(),
        "client_id": CLIENT,
        "key_id": KEY,
        "model": MODEL,
        "worker": worker,
        "started_at": timezone.now() - dt.timedelta(seconds=3),
    }
    return InFlight.objects.create(**(defaults | columns))


def settlement_of(request: uuid.UUID, **changes: Any) -> Settlement:
    """A finished answer."""
    plain = Settlement(
        id=request,
        request_id=f"req_{request.hex}",
        client_id=CLIENT,
        key_id=KEY,
        model_asked="claude",
        model_sent=MODEL,
        status=200,
        error_type="",
        cause="",
        attempts=1,
        stream=True,
        tokens=Tokens(10, 20, 30, 40),
        cost_nano=12_345,
        cost_source=CostSource.REPORTED.value,
        latency_ms=600,
        first_token_ms=70,
        generation_id="gen-1",
        created_at=timezone.now(),
        caller=Caller("192.0.2.1", "curl", "session"),
    )
    return msgspec.structs.replace(plain, **changes)


def settle(*items: Settlement, now: dt.datetime | None = None) -> list[uuid.UUID]:
    """As the lane does it."""
    with open_statements() as sql:
        return settlement.settle(items, sql=sql, now=now or timezone.now())


def pool_key(text: str, **columns: Any) -> uuid.UUID:
    """A key of the pool; its name is its text's last word."""
    account = columns.pop("account", None)
    key = add_key(actor=COMMAND_LINE, secret=Sealed(text), name=text.rsplit("-", 1)[-1], account=account)
    type(key).objects.filter(pk=key.pk).update(**columns)
    return key.pk
