"""The way of an answer from the pump, which reads upstream, to the client.

The pump holds the upstream connection and may not depend on the client. As long as the server takes at once what it is
given, nothing is waited for; when the client is behind, events wait here, up to a bound, for a writer: a task that is
there until the server takes them again. And this alone knows when silence calls for a ping.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from proxy.exchange import ClientLeft, Exchange, Headers, Sent

_MAX_PENDING_BYTES = 1024 * 1024
PING = b'event: ping\ndata: {"type": "ping"}\n\n'  # of the Messages API


class Head(msgspec.Struct, frozen=True):
    status: int
    headers: Headers


class WholeAnswer(msgspec.Struct, frozen=True):
    status: int
    headers: Headers
    body: bytes


class Outbox(msgspec.Struct):
    """`stream_head` is the head of a stream: with it, `first_event_seconds` without an event begin the stream.

    `has_begun` then tells the pump that no other key may be tried.
    """

    exchange: Exchange
    stream_head: Head | None
    ping_seconds: float
    first_event_seconds: float
    ping: bytes = PING
    has_begun: bool = False
    _on_left: Callable[[], None] | None = None
    _ending: WholeAnswer | bytes = b""
    _waiting: list[bytes] = msgspec.field(default_factory=list)
    _pending_bytes: int = 0
    _is_sending: bool = False  # or about to
    _writer: asyncio.Task[None] | None = None
    _room: asyncio.Future[None] | None = None  # while the pump waits for it
    _is_left: bool = False
    _silent_since: float = 0.0
    _silence: asyncio.TimerHandle | None = None

    def open(self, on_left: Callable[[], None]) -> None:
        """From now until `close` silence is noticed, and `on_left` hears of a client that does not read."""
        self._on_left = on_left
        if self.stream_head is not None:  # a JSON answer has nothing to send before its body
            loop = self.exchange.loop
            self._silent_since = loop.time()
            self._look_again(loop, min(self.ping_seconds, self.first_event_seconds))

    def close(self) -> None:
        """Nothing but `end` may follow. Lets go of who opened it, which no garbage collector need find out then."""
        self._on_left = None
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None

    def begin_stream(self) -> None:
        """Send the stream's head, if it has not gone out yet."""
        if not self.has_begun and self.stream_head is not None:
            self.has_begun = True
            self._follow(self.exchange.begin(self.stream_head.status, self.stream_head.headers))

    async def put(self, chunk: bytes) -> None:
        """Waits while the client is too far behind."""
        while not self.offer(chunk):
            self._room = self.exchange.loop.create_future()
            await self._room

    def offer(self, chunk: bytes) -> bool:
        """As `put`, but where that would wait nothing is taken. It hardly ever would, and a coroutine has its price."""
        if self._pending_bytes >= _MAX_PENDING_BYTES:
            return False
        if chunk:
            self._add(chunk)
        return True

    def put_last(self, chunk: bytes) -> None:
        """What ends a stream; it goes out with `end`."""
        self._ending = chunk

    def answer(self, answer: WholeAnswer) -> None:
        """The answer, if it is none of a stream; it goes out with `end`."""
        self.has_begun = True
        self._ending = answer

    async def end(self) -> None:
        """Send what is left to be sent. Raises `ClientLeft`, also when that was seen before."""
        if self._writer is not None:
            await self._writer
        if self._is_left:
            raise ClientLeft
        if isinstance(self._ending, WholeAnswer):
            await self.exchange.answer(self._ending.status, self._ending.headers, self._ending.body)
        elif self.has_begun:
            last = self._take_waiting() + self._ending
            await self.exchange.wait_for(self.exchange.write(last, is_last=True))

    # -- sending -----------------------------------------------------------------------------------------------------
    def _add(self, chunk: bytes) -> None:
        """It goes out together with what else is put before the pump waits: a write costs as much as many events."""
        if self._is_left:
            return
        self._waiting.append(chunk)
        self._pending_bytes += len(chunk)
        if not self._is_sending:
            self._is_sending = True
            self.exchange.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_sending = False
        if self._waiting:
            try:
                self._follow(self.exchange.write(self._take_waiting()))
            except Exception:  # a fault of the server's
                self._give_up()
                raise

    def _follow(self, sent: Sent) -> None:
        """What the server does not take at once is waited for by a task, which sends what else comes meanwhile."""
        loop = self.exchange.loop
        self._silent_since = loop.time()
        if sent is not None:
            self._is_sending = True
            self._writer = loop.create_task(self._write(sent), name="writer")

    async def _write(self, sent: Sent) -> None:
        try:
            await self.exchange.wait_for(sent)
            while self._waiting:
                await self.exchange.wait_for(self.exchange.write(self._take_waiting()))
            self._is_sending, self._writer = False, None
            self._silent_since = self.exchange.loop.time()
        except ClientLeft:
            pass  # `end` says so
        finally:
            if self._writer is not None:
                self._give_up()

    def _give_up(self) -> None:
        """What waits goes nowhere, nor does what will be put."""
        self._is_left = True
        self._take_waiting()
        if self._on_left is not None:
            self._on_left()

    def _take_waiting(self) -> bytes:
        """All that waits, as one write."""
        chunks = b"".join(self._waiting)
        self._waiting.clear()
        self._pending_bytes = 0
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        return chunks

    # -- silence -----------------------------------------------------------------------------------------------------
    def _look_again(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        """One timer goes on from event to event: one for each would cost more than the event.

        It never sleeps for longer than `ping_seconds`, so that it is there in time when the stream has begun.
        """
        self._silence = loop.call_later(seconds, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        longest = self.ping_seconds if self.has_begun else self.first_event_seconds
        left = self._silent_since + longest - loop.time()
        if left <= 0 and not self._is_sending:
            self.begin_stream()
            self._add(self.ping)
        self._look_again(loop, min(left, self.ping_seconds) if left > 0 else self.ping_seconds)
