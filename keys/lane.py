"""The lane: one thread of a process that runs the database steps of all its requests, in group-committed batches.

It takes what waits, runs it as one transaction, and takes the next: at rest a batch is one request, under load it is
fifty. There are no timers. `proxy` awaits `submit`; the thread answers through the event loop it was asked from.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from django.db import DataError, Error, IntegrityError, InterfaceError, OperationalError, connection, transaction
from django.utils import timezone

from keys.heartbeat import Heartbeat
from keys.journal import Journal
from keys.ledger_items import Admit, LaneItem, LaneResult, PassTrial, Settlement, Switch
from keys.steps import settlement
from keys.steps.batch import Batch, BatchRules
from keys.steps.statements import Statements

logger = logging.getLogger("opensvm.lane")

MAX_BATCH = 256
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0
_MOST_CONFLICTS = 10
_CONFLICT_STATES = frozenset({"40001", "40P01"})  # PostgreSQL: serialization failure, deadlock


class LaneFull(Exception):
    """Too many requests wait for the database; new work is refused, nothing is dropped."""


class DatabaseAway(Exception):
    """The database does not answer."""


class LaneStopped(Exception):
    """The process is shutting down."""


@dataclass(slots=True)
class Waiting:
    """An item and the future that its sender awaits."""

    item: LaneItem
    future: asyncio.Future[LaneResult]
    loop: asyncio.AbstractEventLoop
    outcome: LaneResult | BaseException = None

    @property
    def must_survive(self) -> bool:
        """Settlements wait until the database is back; everything else is refused while it is away."""
        return isinstance(self.item, Settlement)


class Lane:
    """Start it once in a process; `submit` from any event loop."""

    def __init__(
        self,
        rules: BatchRules,
        *,
        max_queue: int = 4096,
        clock: Callable[[], dt.datetime] = timezone.now,
        heartbeat: Heartbeat | None = None,
        journal: Journal | None = None,
    ) -> None:
        self._rules = rules
        self._heartbeat = heartbeat
        self._journal = journal
        self._clock = clock
        self._max_queue = max_queue
        self._urgent: deque[Waiting] = deque()  # settlements, passed trials and switches: work that was begun
        self._new: deque[Waiting] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._pause_seconds = 0.0
        self._thread = threading.Thread(target=self._work, name="lane", daemon=True)

    # -- asked from the event loop -----------------------------------------------------------------------------------
    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_seconds: float = 30.0) -> bool:
        """Run what waits, then end. Answers whether everything was written in time."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    @property
    def is_away(self) -> bool:
        """The database did not take the last batch."""
        return self._pause_seconds > 0

    async def submit(self, item: LaneItem) -> LaneResult:
        """Wait until `item` is committed. Raises `LaneFull`, `DatabaseAway` or `LaneStopped` if it was not."""
        loop = asyncio.get_running_loop()
        waiting = Waiting(item, loop.create_future(), loop)
        with self._wake:
            self._refuse_or_queue(waiting)
            self._wake.notify()
        return await waiting.future

    def _refuse_or_queue(self, waiting: Waiting) -> None:
        if not isinstance(waiting.item, Admit):
            self._urgent.append(waiting)
            return
        if self._stopping:
            raise LaneStopped
        if self.is_away:
            raise DatabaseAway
        if len(self._new) >= self._max_queue or (self._journal is not None and self._journal.is_full):
            raise LaneFull
        self._new.append(waiting)

    # -- the thread --------------------------------------------------------------------------------------------------
    def _work(self) -> None:
        try:
            self._beat()
            while (batch := self._take()) is not None:
                if batch:
                    self._run(batch)
                    self._answer(batch)
                elif self.is_away:
                    self._probe()
                self._beat()
            self._end()
        finally:
            connection.close()

    def _take(self) -> list[Waiting] | None:
        """What waits, settlements first. Empty: nothing does, but it is time to look around. None: it has stopped."""
        with self._wake:
            if not self._urgent and not self._new:
                if self._stopping:
                    return None
                self._wake.wait(self._idle_seconds())
            batch = [self._urgent.popleft() for _ in range(min(len(self._urgent), MAX_BATCH))]
            batch += [self._new.popleft() for _ in range(min(len(self._new), MAX_BATCH - len(batch)))]
        return sorted(batch, key=lambda waiting: _PRIORITY[type(waiting.item)])

    def _idle_seconds(self) -> float | None:
        if self.is_away:
            return self._pause_seconds
        return self._heartbeat.due_in_seconds() if self._heartbeat is not None else None

    def _beat(self) -> None:
        if self._heartbeat is None or self.is_away or self._heartbeat.due_in_seconds() > 0:
            return
        try:
            self._heartbeat.beat()
        except Error as exc:
            connection.close()
            logger.warning(f"missed a beat: {_one_line(exc)}", extra={"event": "worker.missed_beat"})

    def _end(self) -> None:
        if self._heartbeat is not None:
            with contextlib.suppress(Error):
                self._heartbeat.end()

    def _run(self, batch: Sequence[Waiting]) -> None:
        """Run a batch until each item has its outcome."""
        waiting = list(batch)
        tries = 0
        while waiting:
            try:
                self._commit(waiting)
            except (OperationalError, InterfaceError) as exc:
                tries += 1
                connection.close()
                if tries > (_MOST_CONFLICTS if _is_conflict(exc) else 1):
                    waiting = self._refuse_while_away(waiting, exc)
            except Exception as exc:
                self._bisect(waiting, exc)
                return
            else:
                self._note_return()
                return

    def _commit(self, waiting: Sequence[Waiting]) -> None:
        self._set_durability(any(w.must_survive for w in waiting))
        results = Batch([w.item for w in waiting], self._rules, self._clock()).run()
        for w, result in zip(waiting, results, strict=True):
            w.outcome = result
        if self._journal is not None:
            self._journal.forget(w.item.id for w in waiting if w.must_survive)

    def _set_durability(self, waits_for_disk: bool) -> None:
        """A batch that settles nothing need not wait for the disk: after a power cut its settlements insert."""
        if connection.vendor == "sqlite":
            with connection.cursor() as cursor:
                cursor.execute(f"PRAGMA synchronous={'FULL' if waits_for_disk else 'NORMAL'}")

    def _refuse_while_away(self, waiting: Sequence[Waiting], exc: Error) -> list[Waiting]:
        """Refuse what can be refused, pause, and answer the settlements that are to be tried again."""
        if not self.is_away:
            logger.error(
                f"database does not take the ledger: {_one_line(exc)}; trying again until it does",
                extra={"event": "database.away", "waiting": len(waiting)},
            )
        self._pause_seconds = min(max(self._pause_seconds * 2, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
        with self._wake:
            refused = [w for w in waiting if not w.must_survive] + list(self._new)
            self._new.clear()
        for w in refused:
            w.outcome = DatabaseAway(_one_line(exc))
        self._answer(refused)
        kept = [w for w in waiting if w.must_survive]
        if kept:
            time.sleep(self._pause_seconds)
        return kept

    def _probe(self) -> None:
        """With nothing to write, the outage ends when the lock of admission can be had."""
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                Statements(connection, cursor).lock_pool()
        except (OperationalError, InterfaceError):
            connection.close()
        else:
            self._note_return()

    def _note_return(self) -> None:
        if self.is_away:
            logger.warning("database takes the ledger again", extra={"event": "database.back"})
        self._pause_seconds = 0.0

    def _bisect(self, waiting: Sequence[Waiting], exc: Exception) -> None:
        """The database refuses what a batch holds: find the poison item, commit the others."""
        if len(waiting) == 1:
            waiting[0].outcome = self._store_poison(waiting[0].item, exc)
            return
        middle = len(waiting) // 2
        self._run(waiting[:middle])
        self._run(waiting[middle:])

    def _store_poison(self, item: LaneItem, exc: Exception) -> BaseException | None:
        """A ledger row is stored with its texts emptied and flagged; anything else fails alone."""
        logger.error(
            f"database refuses a row: {_one_line(exc)}",
            extra={"event": "ledger.poison", "item": type(item).__name__, "request": str(item.id)},
            exc_info=exc,
        )
        if not isinstance(item, Settlement):
            return exc
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                sql = Statements(connection, cursor)
                sql.insert_ledger(
                    [settlement.ledger_row(settlement.emptied(item), sql, self._clock(), is_flagged=True)]
                )
                sql.delete_in_flight([item.id])
        except (DataError, IntegrityError, OperationalError, InterfaceError) as again:
            return again
        return None

    def _answer(self, batch: Sequence[Waiting]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[Waiting]] = {}
        for waiting in batch:
            by_loop.setdefault(waiting.loop, []).append(waiting)
        for loop, answered in by_loop.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(_resolve, answered)


_PRIORITY: dict[type, int] = {Settlement: 0, PassTrial: 1, Switch: 2, Admit: 3}


def _resolve(answered: Sequence[Waiting]) -> None:
    for waiting in answered:
        if waiting.future.done():
            continue  # its sender was cancelled; the row is committed all the same
        if isinstance(waiting.outcome, BaseException):
            waiting.future.set_exception(waiting.outcome)
        else:
            waiting.future.set_result(waiting.outcome)


def _is_conflict(exc: Error) -> bool:
    """Another transaction was in the way: the database is well, the batch runs again."""
    return getattr(exc.__cause__, "sqlstate", None) in _CONFLICT_STATES


def _one_line(exc: BaseException) -> str:
    return " ".join(str(exc).split()) or type(exc).__name__
