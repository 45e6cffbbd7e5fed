"""What a call has to say to its client, between the pump that reads upstream and the writer that sends.

The pump holds the upstream connection and may not depend on the client; the writer may stall or go. So the two meet in
a bounded queue, and the writer alone decides when silence calls for a ping.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from proxy.exchange import Exchange, Headers

_MAX_PENDING_BYTES = 1024 * 1024
PING = b'event: ping\ndata: {"type": "ping"}\n\n'  # of the Messages API


@dataclass(frozen=True, slots=True)
class Head:
    status: int
    headers: Headers


@dataclass(frozen=True, slots=True)
class WholeAnswer:
    status: int
    headers: Headers
    body: bytes


@dataclass(slots=True)
class Outbox:
    """One pump puts, one writer takes.

    `stream_head` is the head of a stream: with it, the writer may begin by itself after `first_event_seconds`
    without an event. `has_begun` then tells the pump that no other key may be tried.
    """

    stream_head: Head | None
    ping_seconds: float
    first_event_seconds: float
    ping: bytes = PING
    has_begun: bool = False
    _items: deque[Head | WholeAnswer | bytes] = field(default_factory=deque)
    _pending_bytes: int = 0
    _is_ended: bool = False
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _has_room: asyncio.Event = field(default_factory=asyncio.Event)

    # -- the pump ----------------------------------------------------------------------------------------------------
    def begin_stream(self) -> None:
        """Send the stream's head, if it has not gone out yet."""
        if not self.has_begun and self.stream_head is not None:
            self.has_begun = True
            self._add(self.stream_head)

    async def put(self, chunk: bytes) -> None:
        """Waits while the client is too far behind."""
        while self._pending_bytes >= _MAX_PENDING_BYTES:
            self._has_room.clear()
            await self._has_room.wait()
        self.put_last(chunk)

    def put_last(self, chunk: bytes) -> None:
        """What ends an answer; never waits."""
        if chunk:
            self._pending_bytes += len(chunk)
            self._add(chunk)

    def answer(self, answer: WholeAnswer) -> None:
        self.has_begun = True
        self._add(answer)

    def end(self) -> None:
        self._is_ended = True
        self._changed.set()

    def _add(self, item: Head | WholeAnswer | bytes) -> None:
        self._items.append(item)
        self._changed.set()

    # -- the writer --------------------------------------------------------------------------------------------------
    async def write_to(self, exchange: Exchange) -> None:
        """Send all until the pump ends it. Raises `ClientLeft`."""
        while await self._wait(exchange):
            while self._items:
                item = self._items.popleft()
                if isinstance(item, WholeAnswer):
                    await exchange.answer(item.status, item.headers, item.body)
                    return
                if isinstance(item, Head):
                    await exchange.begin(item.status, item.headers)
                else:
                    await exchange.write(self._joined(item))
        if exchange.has_begun:
            await exchange.end()

    def _joined(self, first: bytes) -> bytes:
        """All that waits, as one write."""
        chunks = [first]
        while self._items and isinstance(self._items[0], bytes):
            chunks.append(self._items.popleft())  # type: ignore[arg-type]
        self._pending_bytes = 0
        self._has_room.set()
        return b"".join(chunks)

    async def _wait(self, exchange: Exchange) -> bool:
        """Until there is something to send; in silence, pings. False: the answer is over."""
        while not self._items:
            if self._is_ended:
                return False
            self._changed.clear()
            seconds = self._silence_seconds()
            if seconds is None:
                await self._changed.wait()
                continue
            try:
                async with asyncio.timeout(seconds):
                    await self._changed.wait()
            except TimeoutError:
                self.begin_stream()
                self.put_last(self.ping)
        return True

    def _silence_seconds(self) -> float | None:
        """How long nothing may be sent; None: for ever, as a JSON answer has nothing to send before its body."""
        if self.stream_head is None:
            return None
        return self.ping_seconds if self.has_begun else self.first_event_seconds
