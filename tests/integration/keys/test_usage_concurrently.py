"""Several schedulers sum the ledger while it is being written."""

from __future__ import annotations

import datetime as dt
import random
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest
from django.db import connections
from django.db.models import Q
from django.utils import timezone

from keys.models import RequestLog, UsageHour
from keys.services.rollups import aggregate_usage
from keys.usage import sum_ledger

T = TypeVar("T")
ROWS = 60  # of each writer, at least
MEETINGS = 3
KEYS = [uuid.uuid4() for _ in range(3)]
CLIENT = uuid.uuid4()
MINUTE = dt.timedelta(minutes=1)


def add_row(chance: random.Random) -> None:
    now = timezone.now()
    RequestLog.objects.create(
        id=uuid.uuid4(),
        client_id=CLIENT,
        key_id=chance.choice(KEYS),
        model_asked="m",
        model_sent="m",
        status=200,
        cost_nano=chance.randrange(10**6),
        request_id="req_test",
        created_at=now - chance.randrange(180) * MINUTE,
        recorded_at=now,
    )


def improve_a_row(chance: random.Random) -> None:
    row = RequestLog.objects.order_by("?").values_list("pk", flat=True).first()
    RequestLog.objects.filter(pk=row).update(cost_nano=chance.randrange(10**6), recorded_at=timezone.now())


def in_a_thread(work: Callable[[], T]) -> T:
    try:
        return work()
    finally:
        connections.close_all()


@pytest.mark.django_db(transaction=True)
def test_sums_stay_equal_to_their_rows_under_several_schedulers() -> None:
    writing = threading.Event()
    writing.set()
    runs: list[int] = []

    def have_met() -> bool:
        """The schedulers did run while rows came; on a busy machine that takes more rows."""
        return sum(1 for rows in runs if rows) >= MEETINGS

    def write(seed: int) -> int:
        chance = random.Random(seed)
        count = 0
        while count < ROWS or (not have_met() and count < 50 * ROWS):
            add_row(chance)
            improve_a_row(chance)
            count += 1
        return count

    def aggregate() -> None:
        while writing.is_set():
            runs.append(aggregate_usage(timezone.now()))

    with ThreadPoolExecutor(5) as pool:
        schedulers = [pool.submit(in_a_thread, aggregate) for _ in range(3)]
        writers = [pool.submit(in_a_thread, lambda seed=seed: write(seed)) for seed in range(2)]
        try:
            written = sum(writer.result(60) for writer in writers)
        finally:
            writing.clear()
        for scheduler in schedulers:
            scheduler.result(60)
    aggregate_usage(timezone.now())

    stored = [
        (row.hour, row.key_id, row.client_id, row.model, row.requests, row.cost_nano) for row in UsageHour.objects.all()
    ]
    ledger = sum_ledger(Q(), "hour", "key_id", "client_id", "model_sent")
    assert sorted(stored) == sorted((*target, usage.requests, usage.cost_nano) for target, usage in ledger.items())
    assert sum(row[4] for row in stored) == written
    assert have_met()
