"""The server's and the client's side of an exchange, played for what answers it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from typing import Any

from proxy.exchange import BodyBudget, BodyLimits, Exchange


class Taken:
    """What granian's `send` answers when it has taken a message at once: neither a coroutine nor a future."""

    def __await__(self) -> Iterator[None]:
        return iter(())


class Client:
    """`reads` is cleared to stall it. The server `takes_at_once` what it reads, as granian does; else nothing."""

    def __init__(self, *, takes_at_once: bool = True) -> None:
        self.messages: list[Any] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.is_gone = False
        self._takes_at_once = takes_at_once

    def send(self, message: Any) -> Awaitable[None]:
        if self.is_gone or not self._takes_at_once or not self.reads.is_set():
            return self._send_later(dict(message))
        self.messages.append(dict(message))
        return Taken()

    async def _send_later(self, message: Any) -> None:
        await self.reads.wait()
        if self.is_gone:
            raise ConnectionResetError
        self.messages.append(message)

    async def receive(self) -> Any:
        await asyncio.Event().wait()

    @property
    def exchange(self) -> Exchange:
        limits = BodyLimits(1, 1.0, 1.0, 1)
        return Exchange({"method": "POST", "headers": []}, self.receive, self.send, limits, BodyBudget(1))

    @property
    def status(self) -> int | None:
        return next((m["status"] for m in self.messages if m["type"] == "http.response.start"), None)

    @property
    def writes(self) -> list[bytes]:
        return [m["body"] for m in self.messages if m["type"] == "http.response.body"]

    @property
    def body(self) -> bytes:
        return b"".join(self.writes)

    @property
    def is_over(self) -> bool:
        return any(m["type"] == "http.response.body" and not m["more_body"] for m in self.messages)
