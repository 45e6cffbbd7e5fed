"""Gives every test that commits the database as migrations left it, in a few milliseconds.

Django's own way, DELETE or TRUNCATE of every table and then the migrations' rows one by one through the ORM, took
longer than most of the tests.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from pytest_django import DjangoDbBlocker

APPEND_ONLY = "keys_auditevent"  # triggers of ours refuse to empty it
EMPTY = {APPEND_ONLY: "ALTER TABLE {0} DISABLE TRIGGER USER; TRUNCATE {0}; ALTER TABLE {0} ENABLE TRIGGER USER"}


class Snapshot(Protocol):
    def restore(self) -> None: ...


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    from django.db import connection
    from django.test import TransactionTestCase

    with django_db_blocker.unblock():
        snapshot: Snapshot = SqliteSnapshot() if connection.vendor == "sqlite" else PostgresSnapshot()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", lambda case: snapshot.restore())
        yield


class SqliteSnapshot:
    """A copy of the whole file, in memory. No row is deleted, so no trigger is in the way."""

    def __init__(self) -> None:
        self._copy = sqlite3.connect(":memory:", check_same_thread=False)
        self._open().backup(self._copy)

    def restore(self) -> None:
        self._copy.backup(self._open())

    def _open(self) -> sqlite3.Connection:
        from django.db import connection

        connection.ensure_connection()
        database: sqlite3.Connection = connection.connection
        return database


class PostgresSnapshot:
    """The rows of the few tables that have some, in a schema of its own. Only what a test changed is written again."""

    def __init__(self) -> None:
        from django.db import connection

        with connection.cursor() as cursor:
            self._tables = connection.introspection.table_names(cursor)
            self._before = self._fingerprints(cursor)
            cursor.execute("CREATE SCHEMA snapshot")
            for table in filter(self._before.get, self._tables):
                cursor.execute(f"CREATE TABLE snapshot.{table} AS TABLE {table}")

    def restore(self) -> None:
        from django.db import connection, transaction

        with transaction.atomic(), connection.cursor() as cursor:
            now = self._fingerprints(cursor)
            changed = [table for table in self._tables if now[table] != self._before[table]]
            for table in changed:  # in any order: foreign keys are checked at the end
                cursor.execute(EMPTY.get(table, "DELETE FROM {0}").format(table))
            for table in filter(self._before.get, changed):
                cursor.execute(f"INSERT INTO {table} TABLE snapshot.{table}")

    def _fingerprints(self, cursor: Any) -> dict[str, str | None]:
        """Of each table's rows in whatever order; None: it is empty."""
        every_row = "md5(string_agg(row::text, ' ' ORDER BY row::text))"
        question = "SELECT '{0}', {1} FROM {0} row"
        cursor.execute(" UNION ALL ".join(question.format(table, every_row) for table in self._tables))
        return dict(cursor.fetchall())
