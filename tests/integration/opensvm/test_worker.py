"""A worker and two schedulers as `serve` starts them, on the folder broker and a database of their own."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from keys.keyring import create_keyring
from opensvm.celery import app
from opensvm.serve.children import beat_spec, worker_spec
from tests.hermetic import clean_environment

ROOT = Path(__file__).parents[3]
PREPARE = """
import datetime as dt, uuid, django
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from keys.models import Cooldown, OpenRouterKey, RequestLog
now = dt.datetime.now(dt.UTC)
key = OpenRouterKey.objects.create(name="prod-1", tail="...abc1", fingerprint="f", secret=b"x", checked_at=now)
Cooldown.objects.create(key=key, cause="key_rate_limited", started_at=now, until=now, trial=uuid.uuid4(), trial_at=now)
RequestLog.objects.create(id=uuid.uuid4(), client_id=uuid.uuid4(), key=key, model_asked="m", model_sent="m", status=200,
                          cost_nano=7, request_id="req_test", created_at=now, recorded_at=now)
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    create_keyring(tmp_path / "keyring.json")
    return clean_environment(os.environ) | {
        "DJANGO_SETTINGS_MODULE": "opensvm.settings",
        "OPENSVM_VAR_DIR": str(tmp_path),
        "OPENSVM_LOG_FILE": str(tmp_path / "opensvm.log"),
        "OPENSVM_TIME_SCALE": "0.05",
        "OPENROUTER_BASE_URL": "http://127.0.0.1:9/api/v1",
    }


@pytest.fixture
def processes(environment: dict[str, str], tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    subprocess.run([sys.executable, "-c", PREPARE], cwd=ROOT, env=environment, check=True)
    started = [
        subprocess.Popen(
            [sys.executable, "-m", spec.module, *spec.arguments],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for spec in (worker_spec(), beat_spec(), beat_spec())
    ]
    yield started
    for process in started:
        process.kill()
        process.wait(10)


def becomes_true(question: Callable[[], object], seconds: float = 40.0) -> bool:
    stop_at = time.monotonic() + seconds
    while not question():
        if time.monotonic() > stop_at:
            return False
        time.sleep(0.1)
    return True


def test_worker_and_schedulers_do_the_work_and_stop_clean(
    processes: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    database = sqlite3.connect(tmp_path / "opensvm.sqlite3", timeout=20)

    def value(query: str) -> object:
        return database.execute(query).fetchone()[0]

    assert becomes_true(lambda: value("SELECT count(*) FROM keys_usagehour WHERE cost_nano = 7") == 1)
    assert becomes_true(lambda: value("SELECT count(*) FROM keys_cooldown WHERE trial IS NULL") == 1)

    for process in reversed(processes):  # the schedulers first
        process.send_signal(signal.SIGTERM)
    assert [process.wait(30) for process in processes] == [0, 0, 0]
    database.close()
    lines = [json.loads(line) for line in (tmp_path / "opensvm.log").read_bytes().splitlines()]
    assert "trial.freed" in {line["event"] for line in lines}
    assert [line for line in lines if line["level"] == "error"] == []
    left = [path for path in (tmp_path / "broker").rglob("*") if path.is_file()]
    assert all(path.parent.parent.name == "ready" for path in left)  # sent after the worker had stopped taking
    assert len(left) <= 2 * len(app.conf.beat_schedule)  # of each task one from each scheduler, the others have expired
    assert not list(ROOT.glob("celerybeat-schedule*"))
