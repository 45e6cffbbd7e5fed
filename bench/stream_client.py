"""Reads many open streams at once, and takes the time of each event; wrk can only count whole answers.

Raw HTTP/1.1 on uvloop, and no more parsing than the times need: an event costs it a few microseconds.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import uvloop

from bench.errors import BenchError
from bench.load import Load, Order

_STAMP = re.compile(rb"t=(\d{20})z")
_FIRST = b"event: message_start"
_LAST = b"event: message_stop"
_END = b"0\r\n\r\n"
_KEPT = 64  # bytes of the last piece in which a mark may have begun
_PATIENCE_SECONDS = 60.0
_GREETING_BYTES = 12  # HTTP/1.1 200


@dataclass(slots=True)
class Times:
    """In ns. `first`: from the request to its first event. `delays`: from an event's sending to its arrival."""

    first: list[int] = field(default_factory=list)
    delays: list[int] = field(default_factory=list)
    streams: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """`again_until`: until this monotonic time (ns) a connection asks again when its stream has ended."""

    order: Order
    again_until: int = 0

    @property
    def request(self) -> bytes:
        parts, body = urlsplit(self.order.url), self.order.body.encode()
        lines = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in self.order.all_headers.items()]
        return "\r\n".join([*lines, "", ""]).encode() + body


class StreamReader(asyncio.Protocol):
    """One connection, with one open stream at a time; `done` is set when its last one has ended."""

    def __init__(self, plan: Plan, times: Times) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._plan = plan
        self._times = times
        self._transport: asyncio.Transport
        self._sent = 0
        self._rest = b""
        self._is_greeted = self._is_open = self._is_complete = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not say so
        self._ask()

    def _ask(self) -> None:
        self._rest = b""
        self._is_greeted = self._is_open = self._is_complete = False
        self._sent = time.monotonic_ns()
        self._transport.write(self._plan.request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        text = self._rest + data
        if not self._is_greeted and len(text) >= _GREETING_BYTES:
            self._is_greeted = True
            if text[9:_GREETING_BYTES] != b"200":
                self._end(is_whole=False)
                return
        if not self._is_open and _FIRST in text:
            self._is_open = True
            self._times.first.append(now - self._sent)
        end = 0
        for stamp in _STAMP.finditer(text):
            self._times.delays.append(now - int(stamp[1]))
            end = stamp.end()
        self._is_complete = self._is_complete or _LAST in text
        if self._is_complete and text.endswith(_END):
            self._end(is_whole=True)
        else:
            self._rest = text[max(end, len(text) - _KEPT) :]

    def _end(self, *, is_whole: bool) -> None:
        self._times.streams += is_whole
        self._times.failed += not is_whole
        if is_whole and time.monotonic_ns() < self._plan.again_until:
            self._ask()
        elif not self.done.done():
            self.done.set_result(None)
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self._end(is_whole=False)


def time_to_first_event(order: Order, *, seconds: float) -> Load:
    """One connection, one stream after the other. The latencies are of first events."""
    until = time.monotonic_ns() + round(seconds * 1e9)
    started = time.monotonic()
    times = uvloop.run(_read(Plan(order, until), connections=1, ramp_seconds=0.0))
    return _load(times, times.first, time.monotonic() - started)


def event_delays(order: Order, *, connections: int, ramp_seconds: float) -> Load:
    """All streams open at once, each once. The latencies are of events from when the last stream was asked for."""
    started = time.monotonic()
    times = uvloop.run(_read(Plan(order), connections=connections, ramp_seconds=ramp_seconds))
    return _load(times, times.delays, time.monotonic() - started)


async def _read(plan: Plan, *, connections: int, ramp_seconds: float) -> Times:
    loop, times = asyncio.get_running_loop(), Times()
    where = urlsplit(plan.order.url)
    readers = []
    for _ in range(connections):
        _, reader = await loop.create_connection(
            lambda: StreamReader(plan, times), str(where.hostname), where.port or 0
        )
        readers.append(reader.done)
        await asyncio.sleep(ramp_seconds / connections)
    opened = len(times.delays)
    _, late = await asyncio.wait(readers, timeout=_PATIENCE_SECONDS)
    times.failed += len(late)
    del times.delays[:opened]
    return times


def _load(times: Times, latencies: list[int], seconds: float) -> Load:
    if not latencies:
        raise BenchError(f"No event came of {times.streams + times.failed} streams.")
    ordered = sorted(latencies)
    p50, p90, p99 = (ordered[int(len(ordered) * part)] / 1e6 for part in (0.5, 0.9, 0.99))
    errors = {"stream": times.failed} if times.failed else {}
    return Load(times.streams, seconds, p50, p90, p99, errors)
