"""Counts the service's database statements, for each request.

    application     an ASGI application for `opensvm.serve.web` in place of the service's: the service, counted
    count           starts it, asks it, and says what it counted

`executemany` is one statement: it is one call, whatever it carries.
"""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Callable
from typing import Any

PATH = "/bench/statements"
"""What `application` answers with `{"statements": N}`, since its start."""


class Counted:
    """The service, with a wrapper around every statement of every connection that it opens."""

    def __init__(self) -> None:
        from django.db.backends.signals import connection_created

        from opensvm.asgi import application

        self._service = application
        self.statements = 0
        connection_created.connect(self._watch)

    def _watch(self, connection: Any, **_: Any) -> None:
        connection.execute_wrappers.append(self._count)

    def _count(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        self.statements += not sql.startswith(("BEGIN", "SAVEPOINT", "RELEASE"))
        return execute(sql, params, many, context)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == PATH:
            body = json.dumps({"statements": self.statements}).encode()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body, "more_body": False})
        else:
            await self._service(scope, receive, send)


def read_count(port: int) -> int:
    """How many statements the counted service at `port` has run."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", PATH)
        return int(json.loads(connection.getresponse().read())["statements"])
    finally:
        connection.close()


def __getattr__(name: str) -> Any:
    """Made when the server asks for it: the benchmark itself has no Django application."""
    if name == "application" and "OPENSVM_WEB_SERVER" in os.environ:
        return Counted()
    raise AttributeError(name)
