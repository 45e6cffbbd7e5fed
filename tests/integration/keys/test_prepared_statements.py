"""What the lane has prepared on a PostgreSQL connection, and what may happen to it there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import pytest
from django.db import DatabaseError, connection, connections
from django.utils import timezone

from keys.lane_queue import Waiting
from keys.lane_writer import BatchWriter
from keys.ledger_items import Admitted, LaneItem
from keys.models import InFlight, RequestLog
from keys.steps.database import open_statements
from tests.integration.keys.ledger import RULES, add_client, add_keys, admit, settlement

pytestmark = pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite keeps statements by itself")


@pytest.fixture
def writer(django_db_serialized_rollback: None, transactional_db: None) -> Iterator[BatchWriter]:
    connections.close_all()  # a connection that has prepared nothing
    yield BatchWriter(RULES, timezone.now, None)
    connections.close_all()


@pytest.fixture
def digest() -> str:
    add_keys("alpha", "beta")
    return add_client()[0]


@pytest.fixture
def a_wider_name(writer: BatchWriter) -> Iterator[Callable[[], None]]:
    yield lambda: execute("ALTER TABLE keys_client ALTER name TYPE varchar(333)")
    connections.close_all()
    execute("ALTER TABLE keys_client ALTER name TYPE varchar(100)")


def execute(text: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(text)


def committed(writer: BatchWriter, *items: LaneItem) -> list[Any]:
    batch = [Waiting(item, None) for item in items]
    writer.commit(batch)
    return [waiting.outcome for waiting in batch]


def prepared() -> Sequence[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM pg_prepared_statements ORDER BY name")
        return [name for (name,) in cursor.fetchall()]


def test_each_is_prepared_once_and_planned_for_all_parameters(writer: BatchWriter, digest: str) -> None:
    for _ in range(3):
        item = admit(digest)
        committed(writer, settlement(item, *committed(writer, item)))
    with connection.cursor() as cursor:
        cursor.execute("SELECT name, custom_plans FROM pg_prepared_statements WHERE name LIKE 'opensvm%' ORDER BY name")
        assert cursor.fetchall() == [
            ("opensvm_aliases", 0),
            ("opensvm_candidates", 0),
            ("opensvm_clients", 0),
            ("opensvm_lock", 0),
            ("opensvm_save_selections", 0),
            ("opensvm_settle", 0),
        ]


def test_a_migration_that_changes_a_type_under_the_lane_costs_a_connection(
    writer: BatchWriter, digest: str, a_wider_name: Callable[[], None]
) -> None:
    committed(writer, admit(digest))
    before = connection.connection
    a_wider_name()
    (found,) = committed(writer, admit(digest))
    assert isinstance(found, Admitted)
    assert connection.connection is not before
    assert InFlight.objects.count() == 2


def test_a_session_that_has_forgotten_costs_a_connection(writer: BatchWriter, digest: str) -> None:
    item = admit(digest)
    (found,) = committed(writer, item)
    execute("DEALLOCATE ALL")
    committed(writer, settlement(item, found))
    assert RequestLog.objects.count() == 1
    assert not InFlight.objects.exists()


def lock_and_roll_back() -> None:
    with open_statements() as sql:
        sql.lock_pool()
        raise ZeroDivisionError


def lock_in_an_aborted_transaction() -> None:
    with open_statements() as sql:
        with suppress(DatabaseError):
            execute("SELECT nothere")
        sql.lock_pool()


def test_what_was_prepared_outlives_a_rollback(writer: BatchWriter, digest: str) -> None:
    with pytest.raises(ZeroDivisionError):
        lock_and_roll_back()
    assert "opensvm_lock" in prepared()
    with open_statements() as sql:
        assert sql.lock_pool() == 0


def test_what_could_not_be_prepared_is_prepared_by_the_next(writer: BatchWriter, digest: str) -> None:
    with pytest.raises(DatabaseError, match="aborted"):
        lock_in_an_aborted_transaction()
    assert "opensvm_lock" not in prepared()
    with open_statements() as sql:
        assert sql.lock_pool() == 0
