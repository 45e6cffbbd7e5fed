"""One HTTP exchange with a client, over ASGI: its headers, its bounded body, whether it is still there, what is sent.

A client that leaves is only seen by a task that waits in `receive()`; nothing is cancelled and `send()` does not
raise. So whoever answers awaits `left()` beside it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from proxy.errors import Refusal, error_body, invalid_request, overloaded, too_large

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_LENGTH_DIGITS = 18  # more is no length, and thousands of them no int
_SEND_SECONDS = 60.0  # a client that reads nothing for so long has left


class ClientLeft(Exception):
    """The client closed the connection, or half of it."""


@dataclass(slots=True)
class BodyBudget:
    """What the bodies of one process may hold in memory together."""

    limit: int
    used: int = 0


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """A body that stays silent, or is slow after its first `grace_seconds`, is refused."""

    max_bytes: int
    silence_seconds: float
    grace_seconds: float
    min_bytes_per_second: int


@dataclass(slots=True)
class Exchange:
    """`request_id` is the one that every answer carries."""

    scope: Scope
    receive: Receive
    send: Send
    request_id: str
    limits: BodyLimits
    budget: BodyBudget
    has_begun: bool = False
    is_body_read: bool = False
    extra_headers: Headers = field(default_factory=list)  # what each answer carries beside its own
    write_error: Callable[[str, str, str], bytes] = error_body
    _reserved: int = field(default=0)

    @property
    def headers(self) -> Iterable[tuple[bytes, bytes]]:
        """As the client sent them; names in lower case."""
        headers: Iterable[tuple[bytes, bytes]] = self.scope["headers"]
        return headers

    @property
    def leaves_body_unread(self) -> bool:
        """A body was sent, or will be, that nobody reads: the connection can't be used again."""
        is_declared = self.header(b"content-length") not in ("", "0") or bool(self.header(b"transfer-encoding"))
        return is_declared and not self.is_body_read

    @property
    def client_ip(self) -> str:
        """Empty over a unix socket."""
        return str((self.scope.get("client") or ("",))[0])

    def header(self, name: bytes) -> str:
        """The first value of a header, or empty."""
        return next((value.decode("latin-1") for key, value in self.headers if key == name), "")

    # -- reading -----------------------------------------------------------------------------------------------------
    async def read_body(self) -> bytes:
        """The whole body. Raises `Refusal` (400, 408, 413, 529) or `ClientLeft`; nothing is written to disk."""
        self._check_declared_length()
        body = bytearray()
        size, started = 0, time.monotonic()
        while True:
            message = await self._receive_in_time()
            if message["type"] == "http.disconnect":
                raise ClientLeft
            chunk = message.get("body", b"")
            size += len(chunk)
            self._reserve(len(chunk), size)
            body += chunk
            if not message.get("more_body", False):
                self.is_body_read = True
                return bytes(body)
            self._check_speed(size, time.monotonic() - started)

    def release_body(self) -> None:
        """The body is no longer held."""
        self.budget.used -= self._reserved
        self._reserved = 0

    def _check_declared_length(self) -> None:
        declared = self.header(b"content-length")
        if declared and not declared.isdecimal():
            raise invalid_request("content-length: must be a number")
        if len(declared.lstrip("0")) > _LENGTH_DIGITS or int(declared or 0) > self.limits.max_bytes:
            raise too_large()

    async def _receive_in_time(self) -> Message:
        try:
            async with asyncio.timeout(self.limits.silence_seconds):
                return await self.receive()
        except TimeoutError as exc:
            raise _too_slow() from exc

    def _reserve(self, chunk_size: int, size: int) -> None:
        if size > self.limits.max_bytes:
            raise too_large()
        if self.budget.used + chunk_size > self.budget.limit:
            raise overloaded("The service is reading too many large requests. Try again shortly.", 2)
        self.budget.used += chunk_size
        self._reserved += chunk_size

    def _check_speed(self, size: int, seconds: float) -> None:
        if seconds > self.limits.grace_seconds and size < self.limits.min_bytes_per_second * seconds:
            raise _too_slow()

    async def left(self) -> None:
        """Returns when the client has gone. Only after the body was read, and from one task."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

    # -- answering ---------------------------------------------------------------------------------------------------
    async def begin(self, status: int, headers: Headers) -> None:
        """Send the head; raises `ClientLeft` when the client does not read."""
        self.has_begun = True
        stamped = [*headers, *self.extra_headers, (b"request-id", self.request_id.encode())]
        await self._send({"type": "http.response.start", "status": status, "headers": stamped})

    async def write(self, chunk: bytes) -> None:
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer at once; to a HEAD, all of it but the body."""
        if status != 204:
            headers = [*headers, (b"content-length", str(len(body)).encode())]
        await self.begin(status, headers)
        shown = b"" if self.scope["method"] == "HEAD" else body
        await self._send({"type": "http.response.body", "body": shown, "more_body": False})

    async def _send(self, message: Message) -> None:
        try:
            async with asyncio.timeout(_SEND_SECONDS):
                await self.send(message)
        except (TimeoutError, OSError) as exc:
            raise ClientLeft from exc


def _too_slow() -> Refusal:
    return Refusal(408, "timeout_error", "The request body came too slowly.")
