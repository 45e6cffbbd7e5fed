"""The batch statements of this thread's connection. What SQLite and PostgreSQL raise comes out as Django's errors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from keys.steps.postgresql import PostgresStatements
from keys.steps.sqlite import SqliteStatements
from keys.steps.statements import Statements

_BUSY_MS = 300  # SQLite: our own processes queue on the lock file; so long another program's lock is waited for

_FIXED_PLANS = (  # PostgreSQL: by the indexes, whatever the statistics say that they are made by
    "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET jit = off"
)


def tune_connection(connection: BaseDatabaseWrapper) -> None:
    """An open connection of a lane."""
    with connection.wrap_database_errors:
        if connection.vendor == "sqlite":
            connection.connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
        else:
            connection.connection.execute(_FIXED_PLANS)


@contextlib.contextmanager
def open_statements(*, lazy_disk: bool = False) -> Iterator[Statements]:
    """Django's transaction, and the statements that may be asked in it.

    lazy_disk: its commit need not wait for the disk. On SQLite the connection is set to that before.
    """
    connection: Any = connections[DEFAULT_DB_ALIAS]
    with transaction.atomic(), connection.wrap_database_errors:
        if connection.vendor == "postgresql":
            yield PostgresStatements(connection, connection.connection, owns_transaction=False, lazy_disk=lazy_disk)
        else:
            yield SqliteStatements(connection, connection.connection.cursor())


def open_lean_statements(*, lazy_disk: bool) -> AbstractContextManager[Statements]:
    """As `open_statements`, without Django's transaction: the ORM may only read in it."""
    connection: Any = connections[DEFAULT_DB_ALIAS]
    if connection.in_atomic_block:  # of a test
        return open_statements(lazy_disk=lazy_disk)
    if connection.vendor == "postgresql":
        return _lean_postgresql(connection, lazy_disk=lazy_disk)
    return _lean_sqlite(connection)


@contextlib.contextmanager
def _lean_sqlite(connection: Any) -> Iterator[Statements]:
    with connection.wrap_database_errors, connection.write_transaction():
        yield SqliteStatements(connection, connection.connection.cursor())


@contextlib.contextmanager
def _lean_postgresql(connection: Any, *, lazy_disk: bool) -> Iterator[Statements]:
    connection.ensure_connection()
    raw = connection.connection
    with connection.wrap_database_errors:
        sql = PostgresStatements(connection, raw, owns_transaction=True, lazy_disk=lazy_disk)
        try:
            yield sql
            sql.commit()
        except BaseException:
            try:
                raw.rollback()
            except psycopg.Error:
                connection.close()
            raise
