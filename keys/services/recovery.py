"""Settles what dead processes left in flight: at once, from their journal or as unknown.

A web process calls it when it starts and at each beat of its lane, Celery calls it as a task. It works without either:
whoever comes first. Costs are asked for later, by `keys.services.costs`.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from django.db import DataError, IntegrityError, transaction
from django.utils import timezone

from keys.causes import Cause
from keys.journal import OrphanJournal, take_orphans
from keys.ledger_items import Caller, Settlement, Tokens
from keys.models import CostSource, InFlight, RequestLog, Worker
from keys.steps import settlement
from keys.steps.cooldowns import free_trials
from keys.steps.database import open_statements
from keys.uuid7 import request_id_of

logger = logging.getLogger("opensvm.recovery")

_ROWS_PER_TRANSACTION = 100
_POISON = (DataError, IntegrityError, OverflowError, UnicodeError)  # refused for ever, by the database or its driver
LOST_STATUS = 500

Clock = Callable[[], dt.datetime]


@dataclass(slots=True)
class DeathWatch:
    """Tells which workers are dead by their beat alone, for machines whose processes we can't see.

    Dead is whose beat stood still over looks that span `death_seconds`, made by one process while the database answered
    throughout: looks further apart than `longest_gap_seconds` begin anew, so an outage does not look like a massacre.
    """

    death_seconds: float
    longest_gap_seconds: float
    _last_look: float | None = None
    _still_since: dict[UUID, tuple[int | None, float]] = field(default_factory=dict)

    def look(self, beats: Mapping[UUID, int | None], at: float) -> set[UUID]:
        """`beats` of all workers, None for one without a row; `at` on a monotonic clock. Answers the dead."""
        if self._last_look is None or at - self._last_look > self.longest_gap_seconds:
            self._still_since.clear()
        self._last_look = at
        before = self._still_since
        self._still_since = {
            worker: before[worker] if worker in before and before[worker][0] == beat else (beat, at)
            for worker, beat in beats.items()
        }
        return {worker for worker, (_, since) in self._still_since.items() if at - since >= self.death_seconds}

    def forget(self) -> None:
        """The database did not answer."""
        self._last_look = None


def read_beats() -> dict[UUID, int | None]:
    """The beat of each worker that is registered or has something in flight. Two queries."""
    owners = InFlight.objects.filter(worker__isnull=False).values_list("worker", flat=True).distinct()
    beats: dict[UUID, int | None] = {owner: None for owner in owners if owner is not None}
    beats.update(Worker.objects.values_list("id", "beat"))
    return beats


def settle_the_dead(
    watch: DeathWatch, clock: Clock, *, journals: Path | None = None, myself: UUID | None = None
) -> int:
    """Settle what dead processes left, by their journals and by their beats; how many requests that were.

    `watch` belongs to the caller and lives as long as its process. Raises what the database raises.
    """
    try:
        settled = sum(recovery_steps(journals, clock)) if journals is not None else 0
        beats = read_beats()
        if myself is not None:
            beats.pop(myself, None)
        return settled + sum(settle_worker(dead, clock()) for dead in watch.look(beats, time.monotonic()))
    except Exception:
        watch.forget()
        raise


@dataclass(slots=True)
class Patrol:
    """`settle_the_dead` for processes without a lane: their threads share one watch, one at a time."""

    watch: DeathWatch
    journals: Path
    clock: Clock = timezone.now
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def walk(self) -> int:
        """How many requests were settled; none while another thread is at it."""
        if not self._guard.acquire(blocking=False):
            return 0
        try:
            return settle_the_dead(self.watch, self.clock, journals=self.journals)
        finally:
            self._guard.release()


def recover_journals(folder: Path, now: dt.datetime) -> int:
    """All of `recovery_steps` at once; how many requests were settled."""
    return sum(recovery_steps(folder, lambda: now))


def recovery_steps(folder: Path, clock: Clock) -> Iterator[int]:
    """Replay and remove the journals of this machine's dead processes; how many requests each transaction settled.

    A large journal takes a minute: who has other work does it between the steps. What was done stays done.
    """
    for orphan in take_orphans(folder):
        try:
            yield from _recover_journal(orphan, clock)
        except OSError as exc:
            extra = {"event": "recovery.journal_unreadable", "journal": orphan.path.name}
            logger.error(f"could not read the journal of a dead process: {exc}", extra=extra)


def _recover_journal(orphan: OrphanJournal, clock: Clock) -> Iterator[int]:
    generations: dict[UUID, str] = {}
    refused: list[Settlement] = []
    replayed = 0
    for part in orphan.read_parts(_ROWS_PER_TRANSACTION):
        generations |= part.generations
        settlements = list(part.settlements.values())
        refused_here = replay(settlements, clock())
        refused += refused_here
        replayed += len(settlements) - len(refused_here)
        yield len(settlements) - len(refused_here)
    if replayed:
        extra = {"event": "recovery.replayed", "settlements": replayed, "worker": str(orphan.worker)}
        logger.warning("replayed settlements of a dead process", extra=extra)
    yield settle_worker(orphan.worker, clock(), generations=generations)
    _note_generations(generations, clock())
    if refused:
        extra = {"event": "recovery.refused", "settlements": len(refused), "journal": str(orphan.set_aside())}
        logger.error("database refuses what a journal holds: it was set aside", extra=extra)
    else:
        orphan.discard()


def replay(items: Sequence[Settlement], now: dt.datetime) -> list[Settlement]:
    """Settle a part of a journal; what the ledger has already is only improved.

    One poison row must not hold up the others. Answers those that can't be stored even without their texts.
    """
    if not items:
        return []
    try:
        _settle(items, now)
    except _POISON:
        if len(items) == 1:
            return [] if _settle_emptied(items[0], now) else list(items)
        middle = len(items) // 2
        return replay(items[:middle], now) + replay(items[middle:], now)
    return []


def _settle_emptied(item: Settlement, now: dt.datetime) -> bool:
    logger.error("database refuses a row of a journal", extra={"event": "ledger.poison", "request": str(item.id)})
    try:
        with open_statements() as sql:
            sql.lock_pool()
            free_trials([item.id])
            settlement.settle_emptied(item, sql=sql, now=now)
    except _POISON:
        return False
    return True


def _note_generations(generations: Mapping[UUID, str], now: dt.datetime) -> None:
    """For requests that someone else settled who could not know: by the beat, or on another machine."""
    requests = list(generations)
    for start in range(0, len(requests), _ROWS_PER_TRANSACTION):
        some = requests[start : start + _ROWS_PER_TRANSACTION]
        rows = RequestLog.objects.filter(pk__in=some, generation_id="", cost_source__in=settlement.ASKABLE)
        with transaction.atomic():
            for request in rows.order_by("pk").values_list("pk", flat=True):
                settlement.note_generation(request, generations[request], now)


def settle_worker(worker: UUID, now: dt.datetime, *, generations: Mapping[UUID, str] | None = None) -> int:
    """Settle all that a dead worker left in flight, and forget it; how many requests that were."""
    settled = 0
    while rows := list(InFlight.objects.filter(worker=worker).order_by("id")[:_ROWS_PER_TRANSACTION]):
        _settle([_lost(row, (generations or {}).get(row.id, ""), now) for row in rows], now)
        settled += len(rows)
    Worker.objects.filter(pk=worker).delete()
    if settled:
        logger.warning(
            "settled the requests of a dead process",
            extra={"event": "recovery.settled", "worker": str(worker), "requests": settled},
        )
    return settled


def _settle(items: Sequence[Settlement], now: dt.datetime) -> None:
    with open_statements() as sql:
        sql.lock_pool()
        free_trials(item.id for item in items)
        settlement.settle(items, sql=sql, now=now)


def _lost(row: InFlight, generation_id: str, now: dt.datetime) -> Settlement:
    """What can be said of a request whose process died: it was admitted, and it may have been billed."""
    return Settlement(
        id=row.id,
        request_id=request_id_of(row.id),
        client_id=row.client_id,
        key_id=row.key_id,
        model_asked=row.model,
        model_sent=row.model,
        status=LOST_STATUS,
        error_type="api_error",
        cause=Cause.INTERRUPTED.value,
        attempts=1,
        stream=False,
        tokens=Tokens(),
        cost_nano=None,
        cost_source=CostSource.UNKNOWN,
        latency_ms=max(int((now - row.started_at).total_seconds() * 1000), 0),
        first_token_ms=None,
        generation_id=generation_id,
        created_at=row.started_at,
        caller=Caller(),
    )
