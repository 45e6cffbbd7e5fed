"""The batch statements of this thread's connection. What SQLite and PostgreSQL raise comes out as Django's errors."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from keys.steps.postgresql import PostgresStatements
from keys.steps.sqlite import SqliteStatements
from keys.steps.statements import Statements

Result = TypeVar("Result")

_BUSY_MS = 300  # SQLite: our own processes queue on the lock file; so long another program's lock is waited for

_FIXED_PLANS = (  # PostgreSQL: by the indexes, whatever the statistics say that they are made by
    "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET jit = off"
)


def tune_connection(connection: BaseDatabaseWrapper) -> None:
    """An open connection of a lane."""
    with connection.wrap_database_errors:
        if connection.vendor == "sqlite":
            connection.connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
            connection.connection.execute("PRAGMA temp_store=MEMORY")  # of a batch, a few KB: no folder may be writable
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


def run_lean(work: Callable[[Statements], Result], connection: Any, *, lazy_disk: bool) -> Result:
    """`work` in a transaction as `open_statements` opens it, without Django's: the ORM may only read in it.

    connection: this thread's. It is called by every batch, which context managers made of generators would slow down.
    """
    if connection.in_atomic_block:  # of a test
        with open_statements(lazy_disk=lazy_disk) as sql:
            return work(sql)
    if connection.connection is None:
        connection.ensure_connection()
    with connection.wrap_database_errors:
        if connection.vendor == "postgresql":
            return _run_postgresql(work, connection, lazy_disk=lazy_disk)
        result: Result = connection.write(lambda: work(SqliteStatements(connection, connection.connection.cursor())))
        return result


def _run_postgresql(work: Callable[[Statements], Result], connection: Any, *, lazy_disk: bool) -> Result:
    raw = connection.connection
    sql = PostgresStatements(connection, raw, owns_transaction=True, lazy_disk=lazy_disk)
    try:
        result = work(sql)
        sql.commit()
    except BaseException:
        try:
            raw.rollback()
        except psycopg.Error:
            connection.close()
        raise
    return result
