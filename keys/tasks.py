"""The background tasks. Thin: each calls one service, is idempotent, and may run on several schedulers at once.

Without them the service goes on: keys come back by the trial of a request, reports read the ledger itself. What
waits is the check of keys: a refused key is not found invalid, and an invalid one does not come back by itself. And
costs that an answer did not tell stay unknown. What dead processes left is settled by the web processes as well.
"""

from __future__ import annotations

import functools

from celery import shared_task
from django.conf import settings
from django.utils import timezone

from keys.services import catalogue, costs, maintenance, prepared_imports, rollups, rotation
from keys.services.recovery import DeathWatch, Patrol

MISSED_RUNS = 3  # of `recover`: then the watch over the workers begins anew


@shared_task
def reset_cooldowns() -> None:
    maintenance.reset_cooldowns(timezone.now())


@shared_task
def aggregate_usage() -> None:
    rollups.aggregate_usage(timezone.now())


@shared_task
def check_keys() -> None:
    maintenance.check_keys(timezone.now())


@shared_task
def finish_rotations() -> None:
    rotation.finish_rotations()


@shared_task
def drop_old_imports() -> None:
    prepared_imports.drop_old_imports(timezone.now())


@shared_task
def recover() -> None:
    _patrol().walk()


@shared_task
def settle_costs() -> None:
    costs.settle_costs(timezone.now())


@shared_task
def sync_catalogue() -> None:
    catalogue.sync_catalogue(timezone.now())


@functools.cache
def _patrol() -> Patrol:
    """One for the process: who is dead shows only over several looks."""
    watch = DeathWatch(settings.DEATH_SECONDS, longest_gap_seconds=settings.RECOVER_SECONDS * MISSED_RUNS)
    return Patrol(watch, settings.JOURNAL_DIR)
