"""Counts the service's database statements, for each request; BEGIN, COMMIT and settings are none.

PostgreSQL counts them itself (pg_stat_statements). On SQLite the web process is started with `application` in place of
the service's own: the service, with a trace on every connection that it opens.
"""

from __future__ import annotations

import http.client
import json
import os
from typing import Any

import psycopg

from tests.postgres import Postgres

TARGET = "bench.statements:application"
_PATH = "/bench/statements"
_ASIDE = ("BEGIN", "COMMIT", "ROLLBACK", "SET", "PRAGMA", "SAVEPOINT", "RELEASE")
_CALLS = (
    "SELECT coalesce(sum(s.calls), 0)::bigint FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid "  # noqa: S608
    f"WHERE d.datname = %s AND s.query !~* '^({'|'.join(_ASIDE)})'"
)


class Counted:
    """What is traced in a trigger comes as a comment, and is none of the service's statements."""

    def __init__(self) -> None:
        from django.db.backends.signals import connection_created

        from opensvm.asgi import application

        self._service = application
        self._statements = 0
        connection_created.connect(self._watch)

    def _watch(self, connection: Any, **_: Any) -> None:
        if connection.vendor == "sqlite":
            connection.connection.set_trace_callback(self._count)

    def _count(self, text: str) -> None:
        self._statements += not text.startswith((*_ASIDE, "--"))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == _PATH:
            body = json.dumps(self._statements).encode()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body, "more_body": False})
        else:
            await self._service(scope, receive, send)


def count_on_sqlite(port: int) -> int:
    """How many statements the counted service at `port` has run."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", _PATH)
        return int(json.loads(connection.getresponse().read()))
    finally:
        connection.close()


def count_on_postgres(server: Postgres, database: str) -> int:
    """How many statements all sessions of `database` have run."""
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        row = connection.execute(_CALLS.encode(), [database]).fetchone()
        assert row is not None
        return int(row[0])


def __getattr__(name: str) -> Any:
    """Made when the server asks for it: the benchmark itself has no Django application."""
    if name == "application" and "OPENSVM_WEB_SERVER" in os.environ:
        return Counted()
    raise AttributeError(name)
