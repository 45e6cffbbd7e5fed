"""The lane: one thread of a process that runs the database steps of all its requests, in group-committed batches.

It takes what waits, runs it as one transaction, and takes the next: at rest a batch is one request, under load it is
fifty. There are no timers. `proxy` awaits `submit`; the thread answers through the event loop it was asked from.

While the database is away or hangs, new work is refused at once and settlements wait until it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import threading
import time
from collections.abc import Callable, Sequence

from django.db import Error, connection, connections
from django.utils import timezone

from keys.database_trouble import HANGS, is_conflict, is_outage, one_line, words_for
from keys.heartbeat import Heartbeat
from keys.journal import Journal
from keys.lane_queue import LaneQueue, Waiting
from keys.lane_watch import LaneWatch, Patience, break_off
from keys.lane_writer import BatchWriter
from keys.ledger_items import Admit, Admitted, LaneItem, LaneResult, Settlement
from keys.steps import settlement
from keys.steps.batch import BatchRules

logger = logging.getLogger("opensvm.lane")

MAX_BATCH = 256
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0


class LaneFull(Exception):
    """Too many requests wait for the database; new work is refused, nothing is dropped."""


class DatabaseAway(Exception):
    """The database does not answer, or does not take what is written."""


class LaneStopped(Exception):
    """The process is shutting down."""


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
        patience: Patience | None = None,
    ) -> None:
        self._writer = BatchWriter(rules, clock, journal)
        self._heartbeat = heartbeat
        self._journal = journal
        self._clock = clock
        self._max_queue = max_queue
        self._patience = patience or Patience()
        self._queue = LaneQueue(MAX_BATCH)
        self._pause_seconds = 0.0
        self._trouble = ""
        self._watch = LaneWatch(self._look)
        self._database = connection
        self._thread = threading.Thread(target=self._work, name="lane", daemon=True)

    # -- asked from the event loop -----------------------------------------------------------------------------------
    def start(self) -> None:
        self._thread.start()
        self._watch.start()

    def stop(self, timeout_seconds: float = 30.0) -> bool:
        """Run what waits, then end. Answers whether everything was written in time."""
        self._queue.close()
        self._thread.join(timeout_seconds)
        self._watch.stop()
        return not self._thread.is_alive()

    @property
    def is_away(self) -> bool:
        """The database did not take the last batch, or has not taken the one that runs for too long."""
        return self._is_failing or self._is_stalled

    @property
    def trouble(self) -> str:
        """What is wrong with the database, in words for everybody; empty when it is well."""
        if self._is_failing:
            return self._trouble
        return HANGS if self._is_stalled else ""

    @property
    def _is_failing(self) -> bool:
        return self._pause_seconds > 0

    @property
    def _is_stalled(self) -> bool:
        return self._watch.busy_seconds > self._patience.admit_seconds

    async def submit(self, item: LaneItem) -> LaneResult:
        """Wait until `item` is committed. Raises `LaneFull`, `DatabaseAway` or `LaneStopped` if it was not.

        An admission is answered within about a second, whatever the database does; should it be committed later, it
        is taken back. A settlement waits for as long as it takes.
        """
        waiting = self.post(item)
        assert waiting.future is not None
        try:
            return await waiting.future
        except asyncio.CancelledError:
            if self._queue.leave(waiting):
                self._take_back(waiting)
            raise

    def post(self, item: LaneItem) -> Waiting:
        """As `submit`, without a coroutine to run; refuses at once what `submit` refuses.

        Its future is the caller's alone: who cancels it, or forgets it, has `item` committed all the same. It fails
        with what `submit` raises, and complains as futures do when nobody reads that. An admission goes by `submit`,
        which takes it back.
        """
        future: asyncio.Future[LaneResult] = asyncio.get_running_loop().create_future()
        waiting = Waiting(item, future)
        if waiting.is_new:
            self._refuse_or_admit()
        elif self._is_failing and not waiting.must_survive:
            raise DatabaseAway(self._trouble)
        if not self._queue.put(waiting):
            raise LaneStopped
        return waiting

    def _refuse_or_admit(self) -> None:
        if self._queue.is_closed:
            raise LaneStopped
        if self.is_away:
            raise DatabaseAway(self.trouble)
        if self._queue.new_count >= self._max_queue or (self._journal is not None and self._journal.is_full):
            raise LaneFull

    def _take_back(self, waiting: Waiting) -> None:
        """Settle an admission whose sender has gone: nothing was asked upstream."""
        admitted = waiting.outcome if isinstance(waiting.outcome, Admitted) else waiting.in_doubt
        if isinstance(waiting.item, Admit) and admitted is not None:
            waiting.in_doubt = None
            item = settlement.settlement_taken_back(waiting.item, admitted, now=self._clock())
            self._queue.put(Waiting(item, None))

    # -- the watch's thread ------------------------------------------------------------------------------------------
    def _look(self, busy_seconds: float) -> None:
        """The lane's thread has been at the database for so long."""
        late = self._queue.abandon(lambda waiting: self._is_late(waiting, busy_seconds), DatabaseAway(HANGS))
        if late:
            logger.error(
                f"database has not answered for {busy_seconds:.1f} s; refusing new work until it does",
                extra={"event": "database.stalled", "refused": late, "seconds": round(busy_seconds, 1)},
            )
        if busy_seconds > self._patience.hang_seconds and break_off(self._database):
            logger.error(
                f"gave up a database connection after {busy_seconds:.0f} s without an answer",
                extra={"event": "database.hung", "seconds": round(busy_seconds, 1)},
            )

    def _is_late(self, waiting: Waiting, busy_seconds: float) -> bool:
        seconds = self._patience.admit_seconds if waiting.is_new else self._patience.step_seconds
        return busy_seconds > seconds and not waiting.must_survive

    # -- the lane's thread -------------------------------------------------------------------------------------------
    def _work(self) -> None:
        self._database = connections[connection.alias]
        try:
            self._beat()
            while (batch := self._queue.take(self._idle_seconds)) is not None:
                self._step(batch)
                self._beat()
            self._end()
        finally:
            self._queue.end(LaneStopped())
            connection.close()

    def _step(self, batch: Sequence[Waiting]) -> None:
        """Never raises: a lane that has ended would be a process that only looks alive."""
        try:
            if batch:
                self._run(batch)
            elif self._is_failing:
                self._probe()
        except Exception as exc:
            logger.exception("lane failed", extra={"event": "lane.failed", "waiting": len(batch)})
            self._note_outage(exc, len(batch))
            for waiting in batch:
                waiting.outcome = waiting.outcome or exc
        self._answer(batch)

    def _idle_seconds(self) -> float | None:
        if self._is_failing:
            return self._pause_seconds
        return self._heartbeat.due_in_seconds() if self._heartbeat is not None else None

    def _beat(self) -> None:
        if self._heartbeat is None or self._is_failing or self._heartbeat.due_in_seconds() > 0:
            return
        try:
            with self._watch:
                self._writer.tune()
                self._heartbeat.beat()
        except Error as exc:
            connection.close()
            logger.warning(f"missed a beat: {one_line(exc)}", extra={"event": "worker.missed_beat"})
            if is_outage(exc) and not is_conflict(exc):
                self._note_outage(exc, 0)
        except Exception:
            logger.exception("missed a beat", extra={"event": "worker.missed_beat"})

    def _end(self) -> None:
        if self._heartbeat is not None:
            with contextlib.suppress(Error):
                self._heartbeat.end()

    def _run(self, batch: Sequence[Waiting]) -> None:
        """Run a batch until each item has its outcome."""
        waiting = list(batch)
        while waiting:
            try:
                with self._watch:
                    self._writer.commit(waiting)
            except Exception as exc:
                if not is_outage(exc):
                    self._bisect(waiting, exc)
                    return
                waiting = self._refuse_while_away(waiting, exc)
            else:
                self._note_return()
                return

    def _refuse_while_away(self, waiting: Sequence[Waiting], exc: Exception) -> list[Waiting]:
        """Refuse what can be refused, and pause; answers the settlements that are to be tried again."""
        self._note_outage(exc, len(waiting))
        refused = [w for w in waiting if not w.must_survive] + self._queue.take_refusable()
        kept = [w for w in waiting if w.must_survive]
        if self._queue.is_closed:
            refused, kept = [*refused, *kept], []  # their senders put them into the journal
        for w in refused:
            w.outcome = DatabaseAway(one_line(exc))
        self._answer(refused)
        for w in refused:
            if w.in_doubt is not None:  # its client is refused, and its row may be in flight all the same
                self._take_back(w)
        if kept:
            time.sleep(self._pause_seconds)
        return kept

    def _note_outage(self, exc: Exception, waiting: int) -> None:
        self._trouble = words_for(exc)
        if not self._is_failing:
            logger.error(
                f"database does not take the ledger: {one_line(exc)}; trying again until it does",
                extra={"event": "database.away", "waiting": waiting},
            )
        self._pause_seconds = min(max(self._pause_seconds * 2, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)

    def _probe(self) -> None:
        """With nothing to write, the outage ends when the lock of admission can be had and written."""
        try:
            with self._watch:
                self._writer.probe()
        except Error as exc:
            connection.close()
            self._note_outage(exc, 0)
        else:
            self._note_return()

    def _note_return(self) -> None:
        if self._is_failing:
            logger.warning("database takes the ledger again", extra={"event": "database.back"})
        self._pause_seconds = 0.0

    def _bisect(self, waiting: Sequence[Waiting], exc: Exception) -> None:
        """The database refuses what a batch holds: find the poison item, commit the others."""
        if len(waiting) == 1:
            self._store_poison(waiting[0], exc)
            return
        middle = len(waiting) // 2
        self._run(waiting[:middle])
        self._run(waiting[middle:])

    def _store_poison(self, waiting: Waiting, exc: Exception) -> None:
        """A ledger row is stored with its texts emptied and flagged; anything else fails alone."""
        item = waiting.item
        logger.error(
            f"database refuses a row: {one_line(exc)}",
            extra={"event": "ledger.poison", "item": type(item).__name__, "request": str(item.id)},
            exc_info=exc,
        )
        waiting.outcome = exc
        while isinstance(item, Settlement) and isinstance(waiting.outcome, Exception):
            try:
                with self._watch:
                    self._writer.store_emptied(item)
                waiting.outcome = None
                self._writer.forget([item])
            except Exception as again:
                connection.close()
                waiting.outcome = again
                if not is_outage(again) or not self._refuse_while_away([waiting], again):
                    return

    def _answer(self, batch: Sequence[Waiting]) -> None:
        for waiting in self._queue.answer(batch):
            self._take_back(waiting)
