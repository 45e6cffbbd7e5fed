"""What an error of the database means, and the words for it that everybody may read."""

from __future__ import annotations

import pytest
from django.db import (
    DataError,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
)

from keys.database_trouble import UNREACHABLE, is_conflict, is_outage, is_stale, one_line, words_for


class DriverError(Exception):
    def __init__(self, sqlstate: str) -> None:
        self.sqlstate = sqlstate


def error(kind: type[Exception], text: str = "", sqlstate: str = "") -> Exception:
    exc = kind(text)
    exc.__cause__ = DriverError(sqlstate) if sqlstate else None
    return exc


@pytest.mark.parametrize(
    ("exc", "outage", "conflict", "stale"),
    [
        (error(OperationalError, "server closed the connection"), True, False, False),
        (error(InterfaceError, "connection already closed"), True, False, False),
        (error(OperationalError, "deadlock detected", "40P01"), True, True, False),
        (error(OperationalError, "could not serialize", "40001"), True, True, False),
        (error(InternalError, "cannot execute UPDATE in a read-only transaction", "25006"), True, False, False),
        (error(OperationalError, 'prepared statement "x" does not exist', "26000"), True, False, True),
        (error(ProgrammingError, 'prepared statement "x" already exists', "42P05"), True, False, True),
        (error(NotSupportedError, "cached plan must not change result type", "0A000"), False, False, True),
        (error(InternalError, "something else", "XX000"), False, False, False),
        (error(DataError, "value too long", "22001"), False, False, False),
        (error(IntegrityError, "duplicate key", "23505"), False, False, False),
        (ValueError("A string literal cannot contain NUL"), False, False, False),
    ],
    ids=lambda value: str(value) if isinstance(value, Exception) else "",
)
def test_outages_conflicts_and_faults_of_the_rows(exc: Exception, outage: bool, conflict: bool, stale: bool) -> None:
    assert (is_outage(exc), is_conflict(exc), is_stale(exc)) == (outage, conflict, stale)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("database is locked", "the database is locked by another process"),
        ("database or disk is full", "the database's disk is full"),
        ('could not extend file "base/1/2": No space left on device', "the database's disk is full"),
        ("disk I/O error", "the database's disk does not take what is written"),
        ("attempt to write a readonly database", "the database is read-only"),
        ("cannot execute UPDATE in a read-only transaction", "the database is read-only"),
        ("no such table: keys_pool", "the database lacks its tables: run manage.py migrate"),
        ("FATAL: the database system is starting up", "the database is starting"),
        ("FATAL: sorry, too many clients already", "the database takes no more connections"),
        (
            'prepared statement "opensvm_settle" does not exist',
            "the database forgets prepared statements: PgBouncer needs pool_mode = session",
        ),
        ('connection to server at "10.0.0.7", port 5432 failed: Connection refused', UNREACHABLE),
        ('FATAL: password authentication failed for user "opensvm"', UNREACHABLE),
    ],
    ids=lambda value: value[:30],
)
def test_words_name_the_trouble_and_nothing_of_the_database(said: str, words: str) -> None:
    assert words_for(OperationalError(said)) == words


def test_one_line_for_the_log() -> None:
    assert one_line(OperationalError("connection failed:\n\tis the server running?")) == (
        "connection failed: is the server running?"
    )
    assert one_line(OperationalError()) == "OperationalError"
