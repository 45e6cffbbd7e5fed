"""The background tasks. Thin: each calls one service, is idempotent, and may run on several schedulers at once.

Without them the service goes on: keys come back by the trial of a request, reports read the ledger itself. What
waits is the check of keys: a refused key is not found invalid, and an invalid one does not come back by itself.
"""

from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from keys.services import maintenance, rollups


@shared_task
def reset_cooldowns() -> None:
    maintenance.reset_cooldowns(timezone.now())


@shared_task
def aggregate_usage() -> None:
    rollups.aggregate_usage(timezone.now())


@shared_task
def check_keys() -> None:
    maintenance.check_keys(timezone.now())
