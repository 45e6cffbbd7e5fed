"""Writes the lane's batches: the transactions, and what each connection is tuned to. Part of `keys.lane`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence

from django.db import connection, transaction

from keys.database_trouble import is_conflict, is_outage
from keys.journal import Journal
from keys.lane_queue import Waiting
from keys.ledger_items import Admitted, Settlement
from keys.steps import settlement
from keys.steps.batch import Batch, BatchRules
from keys.steps.statements import Statements

_MOST_CONFLICTS = 10
_BUSY_MS = 300  # SQLite: our own processes queue on the lock file; so long another program's lock is waited for


class BatchWriter:
    """Used by the lane's thread alone. Its methods raise what the database raises."""

    def __init__(self, rules: BatchRules, clock: Callable[[], dt.datetime], journal: Journal | None) -> None:
        self._rules = rules
        self._clock = clock
        self._journal = journal
        self._tuned: object = None

    def commit(self, waiting: Sequence[Waiting]) -> None:
        """A lost connection or a conflict alone is no outage: the whole batch again."""
        tries = 0
        while True:
            try:
                return self._commit_once(waiting)
            except Exception as exc:
                if not is_outage(exc):
                    raise
                connection.close()
                tries += 1
                if tries > (_MOST_CONFLICTS if is_conflict(exc) else 1):
                    raise

    def _commit_once(self, waiting: Sequence[Waiting]) -> None:
        self.tune()
        self._set_durability(any(w.must_survive for w in waiting))
        batch = Batch([w.item for w in waiting], self._rules, self._clock())
        try:
            results = batch.run()
        except Exception:
            _note_doubts(waiting, batch)
            raise
        for w, result in zip(waiting, results, strict=True):
            w.outcome = result
        self.forget(waiting)

    def forget(self, committed: Sequence[Waiting]) -> None:
        """The ledger has these: the journal need not keep them."""
        if self._journal is not None:
            self._journal.forget(w.item.id for w in committed if w.must_survive)

    def tune(self) -> None:
        """Once for each connection: another program's lock on SQLite is noticed in time to say so."""
        if connection.vendor != "sqlite" or (self._tuned is not None and connection.connection is self._tuned):
            return
        with connection.cursor() as cursor:
            cursor.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
        self._tuned = connection.connection

    def _set_durability(self, waits_for_disk: bool) -> None:
        """A batch that settles nothing need not wait for the disk: after a power cut its settlements insert."""
        if connection.vendor == "sqlite":
            with connection.cursor() as cursor:
                cursor.execute(f"PRAGMA synchronous={'FULL' if waits_for_disk else 'NORMAL'}")

    def store_emptied(self, item: Settlement) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            sql = Statements(connection, cursor)
            sql.insert_ledger([settlement.ledger_row(settlement.emptied(item), sql, self._clock(), is_flagged=True)])
            sql.delete_in_flight([item.id])

    def probe(self) -> None:
        """The lock of admission can be had, and what it guards can be written."""
        self.tune()
        with transaction.atomic(), connection.cursor() as cursor:
            sql = Statements(connection, cursor)
            sql.save_turn(sql.lock_pool())


def _note_doubts(waiting: Sequence[Waiting], batch: Batch) -> None:
    """A batch that failed when it had all its results may have been committed: only the confirmation was lost."""
    for index, w in enumerate(waiting):
        found = batch.results.get(index)
        w.in_doubt = found if isinstance(found, Admitted) else None
