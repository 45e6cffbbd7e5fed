"""A year of plausible ledger rows, made fast: COPY on PostgreSQL, executemany on SQLite. Used by `bench/rows.py`.

One client and one model are rare, and so are some causes: what a search has to look for longest.
"""

from __future__ import annotations

import datetime as dt
import random
import uuid
from collections.abc import Iterator
from typing import Any

from django.db import connection, transaction

from keys.client_keys import new_client_key
from keys.models import Account, Client, OpenRouterKey, RequestLog

DAYS = 365
CHUNK = 20_000
MODELS = ("anthropic/claude-3.5-sonnet", "anthropic/claude-3-opus", "anthropic/claude-3-haiku", "openai/gpt-4o")
RARE_MODEL, RARE_CLIENT, RARE_CAUSE = "maker/hardly-used", "rare", "key_refused"
ERRORS = (
    (429, "rate_limit_error", "no_key"),
    (529, "overloaded_error", "provider_busy"),
    (400, "invalid_request_error", "bad_request"),
    (499, "client_left", "client_left"),
    (504, "timeout_error", "timed_out"),
)
NAMES = [
    "id", "model_asked", "model_sent", "status", "error_type", "cause", "attempts", "stream", "input_tokens",
    "output_tokens", "cache_read_tokens", "cache_write_tokens", "cost_nano", "cost_source", "latency_ms",
    "first_token_ms", "generation_id", "request_id", "client_ip", "user_agent", "session_id", "flagged",
    "created_at", "recorded_at", "client_id", "key_id",
]  # fmt: skip
assert sorted(NAMES) == sorted(f.column for f in RequestLog._meta.concrete_fields), "the ledger has other columns"


def make_pool() -> tuple[list[uuid.UUID], list[uuid.UUID]]:
    """Three accounts, six keys and twenty clients; the last client is the rare one. Key and client ids."""
    keys = []
    for n in range(6):
        account, _ = Account.objects.get_or_create(name=f"account-{n // 2 + 1}")
        values = {"tail": f"...{n:04}", "fingerprint": f"bench-{n}", "secret": b"not a secret", "account": account}
        keys.append(OpenRouterKey.objects.get_or_create(name=f"prod-{n + 1}", defaults=values)[0].pk)
    clients = []
    for name in (*(f"client-{n + 1}" for n in range(19)), RARE_CLIENT):
        values = {"digest": uuid.uuid4().hex * 2, "prefix": new_client_key()[:17]}
        clients.append(Client.objects.get_or_create(name=name, defaults=values)[0].pk)
    return keys, clients


def rows(count: int, end: dt.datetime, keys: list[uuid.UUID], clients: list[uuid.UUID]) -> Iterator[list[Any]]:
    """Values in the order of `NAMES`, oldest first, evenly over the year before `end`."""
    chance = random.Random(1)  # noqa: S311  # ids of rows that mean nothing
    start, step = end - dt.timedelta(days=DAYS), dt.timedelta(days=DAYS) / count
    for n in range(count):
        at = start + n * step
        is_error, is_rare = n % 25 == 7, n % 100_000 == 50_000
        status, error, cause = ERRORS[n // 25 % len(ERRORS)] if is_error else (200, "", "")
        if n % 1_000_000 == 400_000:
            status, error, cause = 529, "overloaded_error", RARE_CAUSE
        model = RARE_MODEL if is_rare else MODELS[n % 7 % 4]
        client = clients[-1] if n % 20_000 == 100 else clients[n % 7 * 31 % 19 if n % 2 else n % 19]
        request = uuid.UUID(int=int(at.timestamp() * 1000) << 80 | 7 << 76 | 2 << 62 | chance.getrandbits(62))
        cost = None if status in (499, 504) else 0 if is_error else 1_000_000 + n % 9_999 * 1_371
        source = "unknown" if cost is None else "reconciled" if n % 41 == 0 else "reported"
        yield [
            request, model, model, status, error, cause, 0 if cause == "no_key" else 1, n % 3 > 0,
            900 + n % 700, 200 + n % 311, n % 5 * 1_000, 0, cost, source, 300 + n % 4_001, 200 + n % 900,
            f"gen-{int(at.timestamp())}-{request.hex[-20:]}", f"req_{request.hex}", "192.0.2.7", "anthropic-sdk/1.0",
            "", False, at, at + dt.timedelta(seconds=2), client, None if cause == "no_key" else keys[n % len(keys)],
        ]  # fmt: skip


def insert(count: int, end: dt.datetime) -> None:
    keys, clients = make_pool()
    source = rows(count, end, keys, clients)
    (_copy if connection.vendor == "postgresql" else _insert_many)(source, count)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def _copy(source: Iterator[list[Any]], count: int) -> None:
    with connection.cursor() as cursor, cursor.copy(f"COPY keys_requestlog ({', '.join(NAMES)}) FROM STDIN") as copy:
        for n, row in enumerate(source):
            copy.write_row(row)
            _tell(n, count)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE keys_requestlog")


def _insert_many(source: Iterator[list[Any]], count: int) -> None:
    connection.ensure_connection()
    raw = connection.connection
    raw.execute("PRAGMA synchronous=OFF")
    marks = ", ".join("?" * len(NAMES))
    statement = f"INSERT INTO keys_requestlog ({', '.join(NAMES)}) VALUES ({marks})"  # noqa: S608  # constants
    done = 0
    while chunk := [[_plain(value) for value in row] for row, _ in zip(source, range(CHUNK))]:  # noqa: B905  # the end is the source's
        raw.execute("BEGIN")
        raw.executemany(statement, chunk)
        raw.execute("COMMIT")
        done += len(chunk)
        _tell(done, count)
    raw.execute("PRAGMA synchronous=FULL")


def _plain(value: Any) -> Any:
    """As Django stores it in SQLite."""
    if isinstance(value, uuid.UUID):
        return value.hex
    return str(value.replace(tzinfo=None)) if isinstance(value, dt.datetime) else value


def _tell(done: int, count: int) -> None:
    if done % 500_000 == 0:
        print(f"  {done:,} of {count:,} rows", flush=True)


def settle(values: list[list[Any]], batch: int) -> None:
    """Insert as the lane does: one statement's `executemany` in a transaction for each batch."""
    is_postgresql = connection.vendor == "postgresql"
    for start in range(0, len(values), batch):
        some = [row if is_postgresql else [_plain(value) for value in row] for row in values[start : start + batch]]
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.executemany(
                f"INSERT INTO keys_requestlog ({', '.join(NAMES)}) VALUES ({', '.join(['%s'] * len(NAMES))}) "  # noqa: S608
                "ON CONFLICT (id) DO NOTHING",
                some,
            )


def forget(values: list[list[Any]]) -> None:
    """Remove what `settle` inserted."""
    for start in range(0, len(values), 500):
        RequestLog.objects.filter(pk__in=[row[0] for row in values[start : start + 500]]).delete()
