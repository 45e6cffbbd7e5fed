"""Writes the lane's batches: the transactions, and what each connection is tuned to. Part of `keys.lane`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connection, connections

from keys.database_trouble import is_conflict, is_outage, is_stale
from keys.journal import Journal
from keys.lane_queue import Waiting
from keys.ledger_items import Admitted, Settlement
from keys.steps import settlement
from keys.steps.batch import Batch, BatchRules
from keys.steps.database import open_statements, tune_connection

_MOST_CONFLICTS = 10


class BatchWriter:
    """Used by the lane's thread alone. Its methods raise what the database raises."""

    def __init__(self, rules: BatchRules, clock: Callable[[], dt.datetime], journal: Journal | None) -> None:
        self._rules = rules
        self._clock = clock
        self._journal = journal
        self._database: Any = None  # its thread's, which stays the same: looking it up takes as long as a statement
        self._tuned: object = None
        self._waits_for_disk: bool | None = None

    def commit(self, waiting: Sequence[Waiting]) -> None:
        """A lost or stale connection, or a conflict, alone is no outage: the whole batch again."""
        tries = 0
        while True:
            try:
                return self._commit_once(waiting)
            except Exception as exc:
                if not is_outage(exc) and not is_stale(exc):
                    raise
                connection.close()
                tries += 1
                if tries > (_MOST_CONFLICTS if is_conflict(exc) else 1):
                    raise

    def _commit_once(self, waiting: Sequence[Waiting]) -> None:
        batch = Batch([w.item for w in waiting], self._rules, self._clock())
        self.tune(waits_for_disk=bool(batch.settlements))
        try:
            results = batch.run(self._database)
        except Exception:
            _note_doubts(waiting, batch)
            raise
        for w, result in zip(waiting, results, strict=True):
            w.outcome = result
        self.forget(batch.settlements)

    def forget(self, committed: Sequence[Settlement]) -> None:
        """The ledger has these: the journal need not keep them."""
        if self._journal is not None and committed:
            self._journal.forget([item.id for item in committed])

    def tune(self, *, waits_for_disk: bool = True) -> None:
        """What each connection is set to, when it is not.

        SQLite: another program's lock is noticed in time to say so, and a batch that settles nothing need not wait for
        the disk (after a power cut its settlements insert).
        """
        database = self._database = self._database or connections[DEFAULT_DB_ALIAS]
        if database.connection is None or database.connection is not self._tuned:
            database.ensure_connection()
            tune_connection(database)
            self._tuned, self._waits_for_disk = database.connection, None
        if waits_for_disk is not self._waits_for_disk:
            if database.vendor == "sqlite":
                with database.wrap_database_errors:
                    database.connection.execute(f"PRAGMA synchronous={'FULL' if waits_for_disk else 'NORMAL'}")
            self._waits_for_disk = waits_for_disk

    def store_emptied(self, item: Settlement) -> None:
        self.tune()
        with open_statements() as sql:
            settlement.settle_emptied(item, sql=sql, now=self._clock())

    def probe(self) -> None:
        """The lock of admission can be had, and what it guards can be written."""
        self.tune()
        with open_statements() as sql:
            sql.save_turn(sql.lock_pool())


def _note_doubts(waiting: Sequence[Waiting], batch: Batch) -> None:
    """A batch that failed when it had all its results may have been committed: only the confirmation was lost."""
    for w, found in zip(waiting, batch.results, strict=True):
        w.in_doubt = found if isinstance(found, Admitted) else None
