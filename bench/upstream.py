"""The benchmark's upstream: answers `POST …/messages` with prebuilt bytes, fast enough not to be what is measured.

    python -m bench.upstream        prints its port, and ends with its parent's stdin

`GET /bench` tells what it was asked; `POST /bench` sets how streams run, as `{"deltas": 200, "interval_ms": 0}`.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from dataclasses import asdict, dataclass
from typing import cast

import uvloop

from bench.answers import Message, Stream, response

EVENTS_AT_ONCE = 100
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_STREAMS = re.compile(rb'"stream": ?true')
_KEY = b'{"data":{"label":"bench","limit":null,"limit_remaining":null,"usage":0,"is_free_tier":false}}'
_NOT_FOUND = response("application/json", b'{"error":{"code":404,"message":"not here"}}', "404 Not Found")


@dataclass(slots=True)
class Counts:
    connections: int = 0
    open: int = 0
    requests: int = 0
    streams: int = 0


class Upstream:
    """What all connections share."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.message = Message()
        self.stream = Stream(200)
        self.interval_seconds = 0.0

    def set_pace(self, document: dict[str, float]) -> None:
        self.stream = Stream(int(document["deltas"]))
        self.interval_seconds = document["interval_ms"] / 1000

    def told(self) -> bytes:
        return response("application/json", json.dumps(asdict(self.counts)).encode())


class Connection(asyncio.Protocol):
    """One keep-alive connection; the next request is read when the last one is answered."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._transport: asyncio.Transport
        self._stream = upstream.stream
        self._left = 0  # deltas of the open stream
        self._due = 0.0
        self._is_full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not say so
        self._upstream.counts.connections += 1
        self._upstream.counts.open += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._upstream.counts.open -= 1

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        end = data.find(b"\r\n\r\n")
        if end < 0 or not _is_whole(data, end + 4):
            self._buffer = data
            return
        self._buffer = b""
        if data.startswith(b"POST ") and b"/messages" in data[: data.index(b"\r\n")]:
            self._answer(data)
        else:
            self._answer_aside(data, end + 4)

    def _answer(self, data: bytes) -> None:
        counts = self._upstream.counts
        counts.requests += 1
        if _STREAMS.search(data) is None:
            self._transport.write(self._upstream.message.made(counts.requests))
            return
        counts.streams += 1
        self._stream = self._upstream.stream
        self._left = self._stream.deltas
        self._transport.write(self._stream.opening(counts.requests))
        self._due = self._loop.time() + self._upstream.interval_seconds
        self._wait()

    def _wait(self) -> None:
        if self._upstream.interval_seconds:
            self._loop.call_at(self._due, self._go_on)
        else:
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """The next events, then the other connections have their turn."""
        if self._transport.is_closing() or self._is_full:
            return
        if not self._left:
            self._transport.write(self._stream.closing)
            return
        self._transport.write(self._next_events())
        self._wait()

    def _next_events(self) -> bytes:
        """One alone in a paced stream, as they come from a model; else so many that we are not what is measured."""
        interval = self._upstream.interval_seconds
        count = 1 if interval else min(self._left, EVENTS_AT_ONCE)
        self._left -= count
        self._due += interval
        return self._stream.delta_at(time.monotonic_ns()) if interval else self._stream.delta * count

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self._loop.call_soon(self._go_on)

    def _answer_aside(self, data: bytes, body: int) -> None:
        path = data.split(b" ", 2)[1]
        if path == b"/bench":
            if data.startswith(b"POST "):
                self._upstream.set_pace(json.loads(data[body:]))
            self._transport.write(self._upstream.told())
        elif path.endswith(b"/key"):
            self._transport.write(response("application/json", _KEY))
        else:
            self._transport.write(_NOT_FOUND)


def _is_whole(data: bytes, body: int) -> bool:
    length = _LENGTH.search(data, 0, body)
    if length is not None:
        return len(data) - body >= int(length[1])
    return b"chunked" not in data[:body].lower() or data.endswith(b"0\r\n\r\n")


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    upstream = Upstream()
    server = await loop.create_server(lambda: Connection(upstream), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(_serve())
