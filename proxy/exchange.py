"""One HTTP exchange with a client, over ASGI: its headers, its bounded body, whether it is still there, what is sent.

A client that leaves is only seen by whoever waits in `receive()`; nothing is cancelled and `send()` does not raise.
So whoever answers watches for it beside the answer: `watch`.

What the server does at once is not waited for, nor put into a task or under a timer: granian's `receive` is a future,
and its `send` has taken the message when it returns, but for a client that is far behind, where it is a future too.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from types import CoroutineType
from typing import Any

import msgspec

from keys.uuid7 import new_request_uuid, request_id_of
from proxy.errors import Refusal, error_body, invalid_request, overloaded, too_large
from proxy.waits import NO_WAIT, Waits

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
Sent = Awaitable[None] | None  # what to wait for before more is sent; None: the server has taken it

_LENGTH_DIGITS = 18  # more is no length, and thousands of them no int
WATCH_AFTER_SECONDS = 0.25
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


class Exchange(msgspec.Struct):
    """One request and its answer. `name` sets the id that every answer carries; else it gets one when it needs it."""

    scope: Scope
    receive: Receive
    send: Send
    limits: BodyLimits
    budget: BodyBudget
    waits: Waits = msgspec.field(default_factory=Waits)
    has_begun: bool = False
    is_body_read: bool = False
    extra_headers: Headers = msgspec.field(default_factory=list)  # what each answer carries beside its own
    write_error: Callable[[str, str, str], bytes] = error_body
    _loop: asyncio.AbstractEventLoop | None = None
    _request_id: str = ""
    _values: dict[bytes, bytes] = msgspec.field(default_factory=dict)  # the first value of each header
    _reserved: int = 0
    _watch_after: int = NO_WAIT
    _watch: asyncio.Future[Message] | None = None

    def __post_init__(self) -> None:
        self._values = dict(reversed(self.scope["headers"]))

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The one that runs. Asked for anew it costs a system call each time."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    @property
    def request_id(self) -> str:
        if not self._request_id:
            self._request_id = request_id_of(new_request_uuid())
        return self._request_id

    def name(self, request_id: str) -> None:
        self._request_id = request_id

    @property
    def headers(self) -> Iterable[tuple[bytes, bytes]]:
        """As the client sent them; names in lower case."""
        headers: Iterable[tuple[bytes, bytes]] = self.scope["headers"]
        return headers

    @property
    def leaves_body_unread(self) -> bool:
        """A body was sent, or will be, that nobody reads: the connection can't be used again."""
        is_declared = self.header(b"content-length") not in ("", "0") or b"transfer-encoding" in self._values
        return is_declared and not self.is_body_read

    @property
    def client_ip(self) -> str:
        """Empty over a unix socket."""
        return str((self.scope.get("client") or ("",))[0])

    def fields(self, *names: bytes) -> Headers:
        """All headers of these names."""
        values = self._values
        if len(values) == len(self.scope["headers"]):  # none is there twice
            return [(name, values[name]) for name in names if name in values]
        return [(name, value) for name, value in self.headers if name in names]

    def header(self, name: bytes) -> str:
        """The first value of a header, or empty."""
        return self._values.get(name, b"").decode("latin-1")

    # -- reading -----------------------------------------------------------------------------------------------------
    async def read_body(self) -> bytes:
        """The whole body. Raises `Refusal` (400, 408, 413, 529) or `ClientLeft`; nothing is written to disk."""
        self._check_declared_length()
        pieces: list[bytes] = []
        size, started = 0, time.monotonic()
        while True:
            message = await self._receive_in_time()
            if message["type"] == "http.disconnect":
                raise ClientLeft
            chunk = message.get("body", b"")
            size += len(chunk)
            self._reserve(len(chunk), size)
            pieces.append(chunk)
            if not message.get("more_body", False):
                self.is_body_read = True
                return b"".join(pieces) if len(pieces) > 1 else bytes(chunk)
            self._check_speed(size, time.monotonic() - started)

    def release_body(self) -> None:
        """The body is no longer held."""
        self.budget.used -= self._reserved
        self._reserved = 0

    def _check_declared_length(self) -> None:
        declared = self._values.get(b"content-length", b"")
        if declared and not declared.isdigit():
            raise invalid_request("content-length: must be a number")
        if len(declared.lstrip(b"0")) > _LENGTH_DIGITS or int(declared or b"0") > self.limits.max_bytes:
            raise too_large()

    async def _receive_in_time(self) -> Message:
        receiving = self.receive()
        received: asyncio.Future[Message] = (
            receiving if _is_future(receiving) else asyncio.ensure_future(receiving)  # type: ignore[assignment]
        )
        silence = self.waits[self.limits.silence_seconds]
        wait = silence.begin(self.loop, received.cancel)
        try:
            return await received
        except asyncio.CancelledError as exc:
            if is_cancelled_itself():
                raise
            raise _too_slow() from exc
        finally:
            silence.end(wait)

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

    def watch(self, on_left: Callable[[], None]) -> None:
        """Have `on_left` called when the client has gone. Only after the body was read; until `unwatch`.

        An answer that is there at once needs no watch, which is one more thing for the server to wait for.
        """
        self._watch_after = self.waits[WATCH_AFTER_SECONDS].begin(self.loop, functools.partial(self._look, on_left))

    def unwatch(self) -> None:
        self.waits[WATCH_AFTER_SECONDS].end(self._watch_after)
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()

    def _look(self, on_left: Callable[[], None]) -> None:
        def seen(received: asyncio.Future[Message]) -> None:
            if self._watch is not received or received.cancelled():
                return
            if received.exception() is None and received.result()["type"] != "http.disconnect":
                self._look(on_left)
            else:
                on_left()

        self._watch = received = asyncio.ensure_future(self.receive())
        received.add_done_callback(seen)

    # -- answering ---------------------------------------------------------------------------------------------------
    def begin(self, status: int, headers: Headers) -> Sent:
        """Hand the head to the server."""
        self.has_begun = True
        stamped = [*headers, *self.extra_headers, (b"request-id", self.request_id.encode())]
        return self._hand_over({"type": "http.response.start", "status": status, "headers": stamped})

    def write(self, chunk: bytes, *, is_last: bool = False) -> Sent:
        """Hand a part of the body to the server."""
        return self._hand_over({"type": "http.response.body", "body": chunk, "more_body": not is_last})

    async def wait_for(self, sent: Sent) -> None:
        """Until the server has taken it. Raises `ClientLeft` when the client does not read."""
        if sent is not None:
            try:
                async with asyncio.timeout(_SEND_SECONDS):
                    await sent
            except (TimeoutError, OSError) as exc:
                raise ClientLeft from exc

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer at once; to a HEAD, all of it but the body. Raises `ClientLeft`."""
        if status != 204:
            headers = [*headers, (b"content-length", str(len(body)).encode())]
        if (sent := self.begin(status, headers)) is not None:
            await self.wait_for(sent)
        if (sent := self.write(b"" if self.scope["method"] == "HEAD" else body, is_last=True)) is not None:
            await self.wait_for(sent)

    def _hand_over(self, message: Message) -> Sent:
        sent = self.send(message)
        return sent if isinstance(sent, CoroutineType) or _is_future(sent) else None


def _is_future(sent: object) -> bool:
    """As `asyncio.isfuture`, which asks the class, where a missing attribute is an error to be made and thrown away."""
    return getattr(sent, "_asyncio_future_blocking", None) is not None


def is_cancelled_itself() -> bool:
    """Whether it is the running task that was cancelled, and not what it waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _too_slow() -> Refusal:
    return Refusal(408, "timeout_error", "The request body came too slowly.")
