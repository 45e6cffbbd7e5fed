"""The batch statements of this thread's connection. What SQLite and PostgreSQL raise comes out as Django's errors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psycopg
from django.db import connection, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from keys.steps.postgresql import PostgresStatements
from keys.steps.sqlite import SqliteStatements
from keys.steps.statements import Statements

_BUSY_MS = 300  # SQLite: our own processes queue on the lock file; so long another program's lock is waited for
_PREPARE_AFTER = 5  # PostgreSQL: so often a text is sent before the server keeps its plan


def tune_connection(connection: BaseDatabaseWrapper) -> None:
    """An open connection of a lane."""
    with connection.wrap_database_errors:
        if connection.vendor == "sqlite":
            connection.connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
        else:
            connection.connection.prepare_threshold = _PREPARE_AFTER


@contextlib.contextmanager
def open_statements() -> Iterator[Statements]:
    """A transaction, and what may be asked in it."""
    with transaction.atomic(), connection.wrap_database_errors:
        raw = connection.connection
        if connection.vendor == "postgresql":
            with psycopg.Cursor(raw) as cursor:  # Django's own sends the values inside of the text
                yield PostgresStatements(connection, cursor)
        else:
            with contextlib.closing(raw.cursor()) as cursor:
                yield SqliteStatements(connection, cursor)
