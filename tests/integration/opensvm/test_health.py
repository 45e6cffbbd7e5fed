"""/healthz and /readyz."""

from __future__ import annotations

import json
import sys
import threading
import time
import traceback
from concurrent.futures import Future

import pytest
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client as Browser

from keys.models import KeyState, OpenRouterKey
from opensvm.health import NO_ACTIVE_KEY, NO_DATABASE, NOT_MIGRATED, Probe


def add_key(state: KeyState) -> None:
    OpenRouterKey.objects.create(name="prod-1", tail="...abc1", fingerprint="f", secret=b"sealed", state=state)


def ready(browser: Browser) -> tuple[int, dict[str, object]]:
    response = browser.get("/readyz")
    return response.status_code, json.loads(response.content)


def test_a_running_process_is_alive_without_a_database(client: Browser) -> None:
    response = client.get("/healthz")

    assert (response.status_code, json.loads(response.content)) == (200, {"alive": True})


@pytest.mark.django_db(transaction=True)
def test_an_active_key_makes_the_service_ready(client: Browser) -> None:
    add_key(KeyState.ACTIVE)

    assert ready(client) == (200, {"ready": True})


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("state", [None, KeyState.DISABLED, KeyState.INVALID], ids=["no key", "disabled", "invalid"])
def test_without_an_active_key_the_service_is_not_ready(client: Browser, state: KeyState | None) -> None:
    if state:
        add_key(state)

    assert ready(client) == (503, {"ready": False, "reasons": [NO_ACTIVE_KEY]})


@pytest.mark.django_db(transaction=True)
def test_without_its_migrations_the_service_is_not_ready(client: Browser) -> None:
    add_key(KeyState.ACTIVE)
    applied = MigrationRecorder.Migration.objects.filter(app="keys")
    rows = list(applied)
    applied.delete()
    try:
        assert ready(client) == (503, {"ready": False, "reasons": [NOT_MIGRATED]})
    finally:
        MigrationRecorder.Migration.objects.bulk_create(rows)


def test_a_database_that_hangs_costs_a_bounded_time() -> None:
    release = threading.Event()
    probe = Probe(lambda: [] if release.wait(10) else ["never"], seconds=0.05)
    started = time.monotonic()

    assert probe.find_reasons() == [NO_DATABASE]
    assert time.monotonic() - started < 5
    release.set()


def test_probes_that_come_together_ask_once() -> None:
    asked, release = [], threading.Event()

    def ask() -> list[str]:
        asked.append(1)
        release.wait(10)
        return []

    probe = Probe(ask, seconds=10)
    answers: list[list[str]] = []
    threads = [threading.Thread(target=lambda: answers.append(probe.find_reasons())) for _ in range(5)]
    for thread in threads:
        thread.start()
    while not all(_waits_for_an_answer(thread) for thread in threads):
        time.sleep(0.001)
    release.set()
    for thread in threads:
        thread.join()

    assert answers == [[]] * 5
    assert len(asked) == 1


def _waits_for_an_answer(thread: threading.Thread) -> bool:
    frames = traceback.walk_stack(sys._current_frames()[thread.ident or 0])
    return any(frame.f_code is Future.result.__code__ for frame, _ in frames)
