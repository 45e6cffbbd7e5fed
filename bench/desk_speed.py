"""Fills the database of the settings, if its ledger is empty, and measures the desk over it. See `bench/rows.py`."""

from __future__ import annotations

import datetime as dt
import statistics
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Any

import django
from django.conf import settings

from keys.keyring import create_keyring

if not settings.OPENSVM_KEYRING.exists():
    create_keyring(settings.OPENSVM_KEYRING)
django.setup(set_prefix=False)

from django.contrib.auth import get_user_model  # noqa: E402  # Django must be set up first
from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402
from django.test import Client as Browser  # noqa: E402
from django.test.utils import CaptureQueriesContext  # noqa: E402
from django.urls import reverse  # noqa: E402
from django.utils import timezone  # noqa: E402

from bench import ledger_rows  # noqa: E402
from keys.models import Account, Client, OpenRouterKey, RequestLog, Watermark  # noqa: E402
from keys.services.rollups import aggregate_usage  # noqa: E402

TIMES = 7
BATCH = 50  # rows that the lane settles in one transaction under load
BATCHES = 200
CAUGHT_UP = dt.timedelta(minutes=5)
MORE_INDEXES = {  # what a search by index alone would need; the first one is what this design gave up
    "by key and time": "(key_id, created_at)",
    "by client": "(client_id, id)",
    "by model": "(model_sent, id)",
    "by status": "(status, id)",
}


def main() -> None:
    count = int(sys.argv[1])
    call_command("migrate", verbosity=0)
    if not RequestLog.objects.exists():
        _timed(f"insert {count:,} rows", lambda: ledger_rows.insert(count, timezone.now()))
    _timed("bring the roll-ups up to date", _roll_up)
    settings.ALLOWED_HOSTS = ["testserver"]
    browser = Browser()
    browser.force_login(_operator())
    print(f"\n| {connection.vendor}, {count:,} rows | median | slowest | queries |\n|---|---|---|---|", flush=True)
    for name, url in _pages():
        _measure(browser, name, url)
    if "--pages" not in sys.argv:
        _measure_settlement()


def _timed(name: str, work: Any) -> None:
    started = time.perf_counter()
    work()
    print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)


def _roll_up() -> None:
    while True:
        aggregate_usage(timezone.now())
        mark = Watermark.objects.get(name="usage").at
        if timezone.now() - mark < CAUGHT_UP:
            break
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def _operator() -> Any:
    return get_user_model().objects.filter(is_superuser=True).first() or get_user_model().objects.create_superuser(
        "bench", password=uuid.uuid4().hex
    )


def _pages() -> Iterator[tuple[str, str]]:
    requests, usage = reverse("admin:keys_requestlog_changelist"), reverse("admin:keys_usagehour_changelist")
    middle = RequestLog.objects.order_by("pk").filter(created_at__gte=timezone.now() - dt.timedelta(days=180)).first()
    assert middle is not None
    busy, rare = Client.objects.get(name="client-1"), Client.objects.get(name=ledger_rows.RARE_CLIENT)
    key, account = OpenRouterKey.objects.get(name="prod-1"), Account.objects.get(name="account-1")
    deep = f"before={middle.pk.hex}"
    today = timezone.now().date()
    year = f"since={today - dt.timedelta(days=364)}&until={today}"
    month_ago, week_ago = (f"{today - dt.timedelta(days=days)}T00:00Z" for days in (30, 23))
    searches = {
        "newest page": "",
        "a page in the middle": deep,
        "by request id": f"q={middle.request_id}",
        "by generation id": f"q={middle.generation_id}",
        "by an unknown generation id": "q=gen-0-unknown",
        "by a busy client": f"client={busy.pk}",
        "by a rare client": f"client={rare.pk}",
        "by a rare client, in the middle": f"client={rare.pk}&{deep}",
        "by key": f"key={key.pk}",
        "by account": f"account={account.pk}",
        "by model": f"model={ledger_rows.MODELS[1]}",
        "by a rare model": f"model={ledger_rows.RARE_MODEL}",
        "by an unknown model": "model=unknown",
        "by status 429": "status=429",
        "by any error": "status=error",
        "by cause": "cause=provider_busy",
        "by a rare cause": f"cause={ledger_rows.RARE_CAUSE}",
        "by a week a month ago": f"since={month_ago}&until={week_ago}",
        "by client, key, model and status": f"client={busy.pk}&key={key.pk}&model={ledger_rows.MODELS[0]}&status=429",
        "by a rare client and any error": f"client={rare.pk}&status=error",
    }
    for name, query in searches.items():
        yield f"requests: {name}", f"{requests}?{query}"
    yield "one request", reverse("admin:keys_requestlog_change", args=[middle.pk])
    for group in ("key", "account", "client", "model", "day"):
        yield f"usage: 12 months by {group}", f"{usage}?{year}&group={group}"
    yield "usage: 12 months of one client by day", f"{usage}?{year}&group=day&client={busy.pk}"
    yield "usage: 31 days by hour", f"{usage}?since={today - dt.timedelta(days=30)}&until={today}&group=hour"
    yield "usage: 12 months by client, CSV", f"{reverse('admin:keys_usagehour_csv')}?{year}&group=client"
    yield "usage: 12 months by client, API", f"/api/usage?{year}&group=client"
    for period in ("24h", "30d"):
        yield f"home: {period}", f"{reverse('admin:index')}?period={period}"


def _measure(browser: Browser, name: str, url: str) -> None:
    took = []
    for _ in range(TIMES):
        started = time.perf_counter()
        answer = browser.get(url)
        _ = b"".join(answer.streaming_content) if answer.streaming else answer.content
        took.append((time.perf_counter() - started) * 1000)
        assert answer.status_code == 200, (name, answer.status_code)
    with CaptureQueriesContext(connection) as queries:
        browser.get(url)
    print(f"| {name} | {statistics.median(took):.0f} ms | {max(took):.0f} ms | {len(queries)} |", flush=True)


def _measure_settlement() -> None:
    """The lane's own insert statement, with more indexes one by one. What PostgreSQL logs for a row has no noise."""
    print("\n| indexes of the ledger | rows/s | bytes of PostgreSQL's log a row |\n|---|---|---|", flush=True)
    _print_settlement("as they are")
    for number, (name, columns) in enumerate(MORE_INDEXES.items()):
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE INDEX bench_{number} ON keys_requestlog {columns}")
        _print_settlement(f"… and {name}")
    with connection.cursor() as cursor:
        for number in range(len(MORE_INDEXES)):
            cursor.execute(f"DROP INDEX bench_{number}")


def _print_settlement(name: str) -> None:
    keys, clients = ledger_rows.make_pool()
    values = list(ledger_rows.rows(BATCH * BATCHES, timezone.now() + dt.timedelta(days=400), keys, clients))
    speeds, logged = [], []
    for _ in range(3):
        started, log = time.perf_counter(), _log_position()
        ledger_rows.settle(values, BATCH)
        speeds.append(len(values) / (time.perf_counter() - started))
        logged.append((_log_position() - log) / len(values))
        ledger_rows.forget(values)
    print(f"| {name} | {max(speeds):,.0f} | {min(logged):,.0f} |", flush=True)


def _log_position() -> int:
    if connection.vendor != "postgresql":
        return 0
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
        return int(cursor.fetchone()[0])


if __name__ == "__main__":
    main()
