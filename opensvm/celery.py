"""The Celery application: `celery -A opensvm.celery worker` and `celery -A opensvm.celery beat`.

Any number of workers and schedulers may run at once: each task is idempotent, and a message that was not taken
before the next one is due has expired. The service works without any of them; see `keys.tasks` for what then waits.
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery, signals

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "opensvm.settings")

from django.conf import settings

BROKER_POLL_SECONDS = 0.25


def _schedule() -> dict[str, dict[str, Any]]:
    intervals = {
        "keys.tasks.reset_cooldowns": settings.RESET_COOLDOWNS_SECONDS,
        "keys.tasks.aggregate_usage": settings.AGGREGATE_USAGE_SECONDS,
        "keys.tasks.check_keys": settings.CHECK_KEYS_SECONDS,
        "keys.tasks.finish_rotations": settings.FINISH_ROTATIONS_SECONDS,
        "keys.tasks.drop_old_imports": settings.DROP_IMPORTS_SECONDS,
        "keys.tasks.recover": settings.RECOVER_SECONDS,
        "keys.tasks.settle_costs": settings.SETTLE_COSTS_SECONDS,
        "keys.tasks.sync_catalogue": settings.RETRY_CATALOGUE_SECONDS,
    }
    return {
        task: {"task": task, "schedule": seconds, "options": {"expires": seconds}}
        for task, seconds in intervals.items()
    }


def _broker() -> dict[str, Any]:
    if settings.CELERY_BROKER_URL:
        return {"broker_url": settings.CELERY_BROKER_URL}
    return {
        "broker_url": "folder://localhost//",
        "broker_transport": "opensvm.broker:Transport",
        "broker_transport_options": {"folder": str(settings.BROKER_DIR), "polling_interval": BROKER_POLL_SECONDS},
    }


@signals.setup_logging.connect
def _keep_our_logging(**_: object) -> None:
    """Celery sets up no logging of its own while somebody listens to this signal."""


app = Celery("opensvm")
app.conf.update(
    **_broker(),
    beat_schedule=_schedule(),
    beat_scheduler="celery.beat:Scheduler",  # keeps no file, so that several can run in one folder
    broker_connection_retry_on_startup=True,
    task_ignore_result=True,
    task_soft_time_limit=120,
    task_time_limit=150,
    timezone="UTC",
    worker_concurrency=2,
    worker_hijack_root_logger=False,
    worker_prefetch_multiplier=1,
    worker_send_task_events=False,
)
app.autodiscover_tasks(["keys"])
