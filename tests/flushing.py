"""Lets the tests that commit flush the database: on SQLite that is a DELETE, which the audit's trigger refuses.

PostgreSQL flushes by TRUNCATE and keeps its trigger. `tests/integration/keys/test_audit_guard.py` holds a database
that was migrated outside of the tests against deletion, on SQLite too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_django import DjangoDbBlocker


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> None:
    from django.db import connection

    if connection.vendor == "sqlite":
        with django_db_blocker.unblock(), connection.cursor() as cursor:
            cursor.execute("DROP TRIGGER IF EXISTS keys_auditevent_no_delete")
