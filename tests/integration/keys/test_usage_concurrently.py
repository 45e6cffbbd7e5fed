"""Several schedulers sum the ledger while it is being written."""

from __future__ import annotations

import datetime as dt
import random
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections
from django.db.models import Q
from django.utils import timezone

from keys.models import RequestLog, UsageHour
from keys.services.rollups import aggregate_usage
from keys.usage import sum_ledger

ROWS = 60
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


def in_a_thread(work: Callable[[], None]) -> None:
    try:
        work()
    finally:
        connections.close_all()


@pytest.mark.django_db(transaction=True)
def test_sums_stay_equal_to_their_rows_under_several_schedulers() -> None:
    writing = threading.Event()
    writing.set()
    runs = []

    def write(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(ROWS):
            add_row(chance)
            improve_a_row(chance)

    def aggregate() -> None:
        while writing.is_set():
            runs.append(aggregate_usage(timezone.now()))

    with ThreadPoolExecutor(5) as pool:
        schedulers = [pool.submit(in_a_thread, aggregate) for _ in range(3)]
        writers = [pool.submit(in_a_thread, lambda seed=seed: write(seed)) for seed in range(2)]
        for writer in writers:
            writer.result(60)
        writing.clear()
        for scheduler in schedulers:
            scheduler.result(60)
    aggregate_usage(timezone.now())

    stored = [
        (row.hour, row.key_id, row.client_id, row.model, row.requests, row.cost_nano) for row in UsageHour.objects.all()
    ]
    ledger = sum_ledger(Q(), "hour", "key_id", "client_id", "model_sent")
    assert sorted(stored) == sorted((*target, usage.requests, usage.cost_nano) for target, usage in ledger.items())
    assert sum(row[4] for row in stored) == 2 * ROWS
    assert sum(1 for written in runs if written) > 1  # they did run while rows came
