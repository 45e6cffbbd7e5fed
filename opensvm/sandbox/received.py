"""What reached the sandbox: one record for each request, for tests to look at. Keys leave it as tails only."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from opensvm.sandbox.keys import SandboxKey, tail_of

MAX_REQUESTS = 20_000  # older ones are forgotten
MAX_BODIES_BYTES = 64 * 1024 * 1024  # of the bodies that are kept for reading; older ones become None

_KEY = re.compile(r"sk-or-v1-[A-Za-z0-9_-]+")


@dataclass(slots=True)
class Received:
    """`headers` have lower-case names. `left_at`: when the client went away before the reply was whole."""

    connection: int
    at: dt.datetime
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    raw_body: bytes = b""
    body_bytes: int = 0
    number: int = 0  # in the order of arrival, from 1
    body: Any = None  # parsed; None when it is no JSON
    key: SandboxKey | None = None
    status: int | None = None  # None: not a byte was answered
    generation_id: str = ""
    left_at: dt.datetime | None = None
    ended_at: dt.datetime | None = None
    whole: bool = False  # the reply went out to its end

    @property
    def secret(self) -> str:
        """The upstream key as it was sent, from either header."""
        authorization = self.headers.get("authorization", "")
        scheme, _, token = authorization.partition(" ")
        return token.strip() if scheme.lower() == "bearer" else self.headers.get("x-api-key", "")

    def parse_body(self) -> None:
        try:
            self.body = json.loads(self.raw_body)
        except (ValueError, RecursionError):
            self.body = None

    def as_json(self) -> dict[str, Any]:
        """Without any key: they are cut down to their tails, wherever in the headers they stand."""
        return {
            "number": self.number,
            "connection": self.connection,
            "at": self.at.isoformat(),
            "method": self.method,
            "path": self.path,
            "query": dict(self.query),
            "headers": {name: _KEY.sub(lambda found: tail_of(found[0]), text) for name, text in self.headers.items()},
            "body": self.body,
            "body_bytes": self.body_bytes,
            "key_name": self.key.name if self.key else "",
            "key_tail": tail_of(self.secret) if self.secret else "",
            "status": self.status,
            "generation_id": self.generation_id,
            "left_at": self.left_at.isoformat() if self.left_at else None,
            "ended_at": self.ended_at.isoformat() if self.ended_at else None,
            "whole": self.whole,
        }


@dataclass(slots=True)
class Inbox:
    """The records in the order of arrival, within bounds."""

    requests: deque[Received] = field(default_factory=lambda: deque(maxlen=MAX_REQUESTS))
    _with_body: deque[Received] = field(default_factory=deque)
    _body_bytes: int = 0
    _count: int = 0

    def add(self, received: Received) -> None:
        self._count += 1
        received.number = self._count
        received.body_bytes = len(received.raw_body)
        self.requests.append(received)
        self._with_body.append(received)
        self._body_bytes += len(received.raw_body)
        while self._body_bytes > MAX_BODIES_BYTES:
            oldest = self._with_body.popleft()
            self._body_bytes -= len(oldest.raw_body)
            oldest.raw_body, oldest.body = b"", None
