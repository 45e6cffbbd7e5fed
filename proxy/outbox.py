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
    _writer: asyncio.Future[None] | None = None  # while it waits for something to send
    _pump: asyncio.Future[None] | None = None  # while it waits for room
    _idle_since: float = 0.0
    _silence: asyncio.TimerHandle | None = None

    # -- the pump ----------------------------------------------------------------------------------------------------
    def begin_stream(self) -> None:
        """Send the stream's head, if it has not gone out yet."""
        if not self.has_begun and self.stream_head is not None:
            self.has_begun = True
            self._forget_silence()  # from now on a shorter one counts
            self._add(self.stream_head)

    async def put(self, chunk: bytes) -> None:
        """Waits while the client is too far behind."""
        while self._pending_bytes >= _MAX_PENDING_BYTES:
            self._pump = asyncio.get_running_loop().create_future()
            await self._pump
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
        _wake(self._writer)

    def _add(self, item: Head | WholeAnswer | bytes) -> None:
        self._items.append(item)
        _wake(self._writer)

    # -- the writer --------------------------------------------------------------------------------------------------
    async def write_to(self, exchange: Exchange) -> None:
        """Send all until the pump ends it. Raises `ClientLeft`."""
        try:
            while await self._has_more():
                while self._items:
                    item = self._items.popleft()
                    if isinstance(item, bytes):
                        await exchange.write(self._joined(item))
                    elif isinstance(item, Head):
                        await exchange.begin(item.status, item.headers)
                    else:
                        await exchange.answer(item.status, item.headers, item.body)
                        return
        finally:
            self._forget_silence()
        if exchange.has_begun:
            await exchange.end()

    def _joined(self, first: bytes) -> bytes:
        """All that waits, as one write."""
        chunks = [first]
        while self._items and isinstance(self._items[0], bytes):
            chunks.append(self._items.popleft())  # type: ignore[arg-type]
        self._pending_bytes = 0
        _wake(self._pump)
        return b"".join(chunks) if len(chunks) > 1 else first

    async def _has_more(self) -> bool:
        """Waits until there is something to send. False: the answer is over."""
        while not self._items:
            if self._is_ended:
                return False
            loop = asyncio.get_running_loop()
            self._idle_since = loop.time()
            self._listen_for_silence(loop)
            self._writer = loop.create_future()
            try:
                await self._writer
            finally:
                self._writer = None
        return True

    # -- silence -----------------------------------------------------------------------------------------------------
    def _listen_for_silence(self, loop: asyncio.AbstractEventLoop) -> None:
        """One timer goes on from event to event: to set one for each would cost more than the event."""
        if self._silence is None and (seconds := self._silence_seconds()) is not None:
            self._silence = loop.call_at(self._idle_since + seconds, self._end_silence, loop)

    def _end_silence(self, loop: asyncio.AbstractEventLoop) -> None:
        self._silence = None
        seconds = self._silence_seconds()
        if self._writer is None or self._writer.done() or seconds is None:
            return  # it is busy, and sets the next timer when it waits
        if loop.time() < self._idle_since + seconds:
            self._listen_for_silence(loop)
            return
        self.begin_stream()
        self.put_last(self.ping)

    def _forget_silence(self) -> None:
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None

    def _silence_seconds(self) -> float | None:
        """How long nothing may be sent; None: for ever, as a JSON answer has nothing to send before its body."""
        if self.stream_head is None:
            return None
        return self.ping_seconds if self.has_begun else self.first_event_seconds


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
