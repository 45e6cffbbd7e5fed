"""The audit trail only grows: the model refuses changes, and so does the database."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import DatabaseError, connection, transaction

from keys.errors import AppendOnly
from keys.keyring import create_keyring
from keys.models import AuditEvent
from tests.hermetic import clean_environment

pytestmark = pytest.mark.django_db
ROOT = Path(__file__).parents[3]
INSERT = (
    "INSERT INTO keys_auditevent (at, actor, action, object_type, object_id, object_name, before, after, ip) "
    "VALUES ('', 'alice', '', '', '', '', '{}', '{}', '')"
)


@pytest.fixture
def event() -> AuditEvent:
    return AuditEvent.objects.create(actor="alice", action="key.added", object_type="openrouterkey", object_id="1")


def _change_and_save(event: AuditEvent) -> None:
    event.actor = "mallory"
    event.save()


@pytest.mark.parametrize(
    "change",
    [
        _change_and_save,
        lambda event: event.save(update_fields=["actor"]),
        lambda event: event.delete(),
        lambda event: AuditEvent.objects.all().delete(),
        lambda event: AuditEvent.objects.filter(pk=event.pk).update(actor="mallory"),
        lambda event: AuditEvent.objects.bulk_update([event], ["actor"]),
        lambda event: AuditEvent.objects.update_or_create(pk=event.pk, defaults={"actor": "mallory"}),
    ],
    ids=["save", "save a field", "delete", "delete all", "update", "bulk update", "update or create"],
)
def test_no_way_of_the_orm_changes_an_event(event: AuditEvent, change: Callable[[AuditEvent], object]) -> None:
    with pytest.raises(AppendOnly):
        change(event)
    assert list(AuditEvent.objects.values_list("actor", flat=True)) == ["alice"]


def test_the_database_refuses_to_change_an_event(event: AuditEvent) -> None:
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("UPDATE keys_auditevent SET actor = 'mallory'")
    assert AuditEvent.objects.get().actor == "alice"


def test_the_database_refuses_to_delete_an_event(event: AuditEvent) -> None:
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("DELETE FROM keys_auditevent")
    assert AuditEvent.objects.exists()


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has no TRUNCATE")
def test_postgresql_refuses_to_empty_the_table(event: AuditEvent) -> None:
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("TRUNCATE keys_auditevent")
    assert AuditEvent.objects.exists()


@pytest.mark.parametrize("statement", ["UPDATE keys_auditevent SET actor = 'mallory'", "DELETE FROM keys_auditevent"])
def test_a_migrated_sqlite_database_refuses_both(tmp_path: Path, statement: str) -> None:
    """A later migration that makes the table anew would lose the triggers: this test would see it."""
    create_keyring(tmp_path / "keyring.json")
    environment = clean_environment(os.environ) | {"OPENSVM_VAR_DIR": str(tmp_path), "DATABASE_URL": ""}
    migrate = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
    subprocess.run(migrate, cwd=ROOT, env=environment, check=True)
    database = sqlite3.connect(tmp_path / "opensvm.sqlite3")
    try:
        database.execute(INSERT)
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            database.execute(statement)
        assert database.execute("SELECT actor FROM keys_auditevent").fetchall() == [("alice",)]
    finally:
        database.close()
