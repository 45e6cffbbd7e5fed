"""Moments as SQLite holds them: the ORM reads and compares what the batch statements wrote."""

from __future__ import annotations

import datetime as dt

import pytest
from django.db import connection
from django.db.backends.sqlite3.operations import DatabaseOperations

from keys.steps.sqlite import SqliteStatements

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    "moment",
    [
        NOON,
        NOON.replace(microsecond=5),
        NOON.astimezone(dt.timezone(dt.timedelta(hours=5, minutes=30))),
        NOON.replace(tzinfo=dt.timezone(dt.timedelta())),
    ],
    ids=str,
)
def test_a_moment_is_stored_as_django_stores_it(moment: dt.datetime) -> None:
    expected = DatabaseOperations(connection).adapt_datetimefield_value(moment)
    assert SqliteStatements(connection, None).stamp(moment) == expected
