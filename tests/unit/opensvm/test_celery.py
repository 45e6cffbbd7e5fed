"""The Celery application's settings, each read in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.hermetic import clean_environment

ROOT = Path(__file__).parents[3]
SHOW = """
import json
from opensvm.celery import app
with app.connection_for_write() as connection:
    names = "broker_url", "beat_schedule", "task_ignore_result", "worker_hijack_root_logger", "result_backend"
    shown = {name: app.conf[name] for name in names}
    print(json.dumps({**shown, "transport": type(connection.transport).__module__}))
"""


def shown(var: Path, **variables: str) -> dict[str, Any]:
    environment = clean_environment(os.environ) | {"OPENSVM_VAR_DIR": str(var), **variables}
    output = subprocess.run([sys.executable, "-c", SHOW], cwd=ROOT, env=environment, check=True, stdout=-1).stdout
    answer: dict[str, Any] = json.loads(output)
    return answer


@pytest.mark.parametrize(
    ("url", "transport"),
    [
        pytest.param("", "opensvm.broker", id="none: the folder"),
        pytest.param("redis://127.0.0.1:1/0", "kombu.transport.redis", id="redis"),
        pytest.param("amqp://127.0.0.1:1//", "kombu.transport.pyamqp", id="amqp"),
    ],
)
def test_the_broker_is_the_one_of_the_setting(tmp_path: Path, url: str, transport: str) -> None:
    assert shown(tmp_path, CELERY_BROKER_URL=url)["transport"] == transport


def test_each_task_runs_at_its_interval_and_expires_with_it(tmp_path: Path) -> None:
    schedule = shown(tmp_path, OPENSVM_TIME_SCALE="0.1")["beat_schedule"]

    assert {name: (entry["schedule"], entry["options"]["expires"]) for name, entry in schedule.items()} == {
        "keys.tasks.reset_cooldowns": (1.5, 1.5),
        "keys.tasks.aggregate_usage": (6.0, 6.0),
        "keys.tasks.check_keys": (30.0, 30.0),
        "keys.tasks.finish_rotations": (1.5, 1.5),
        "keys.tasks.drop_old_imports": (30.0, 30.0),
        "keys.tasks.recover": (1.0, 1.0),
        "keys.tasks.settle_costs": (6.0, 6.0),
        "keys.tasks.sync_catalogue": (60.0, 60.0),
    }


def test_results_are_not_kept_and_logging_is_ours(tmp_path: Path) -> None:
    found = shown(tmp_path)

    assert (found["task_ignore_result"], found["result_backend"]) == (True, None)
    assert found["worker_hijack_root_logger"] is False
