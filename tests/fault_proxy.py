"""A TCP program that passes bytes on and misbehaves on demand: between the service and upstream, or its database.

    with FaultProxy("127.0.0.1", port) as proxy:
        proxy.behave(latency_seconds=0.2)       # from now on, on open connections too
        proxy.behave(stalls=True)               # half-open: accepts, answers nothing
        proxy.behave(on=b"COMMIT", then="cut_after")  # the commit arrives, its confirmation does not
        proxy.go_down(); proxy.come_up()

It runs in a thread of the test's process; every control returns when it is in force.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, TypeVar

T = TypeVar("T")
Cut = Literal["close", "reset"]
Reaction = Literal["delay", "cut_before", "cut_after"]

CONTROL_SECONDS = 10.0
READ_BYTES = 64 * 1024
TURNS_TO_LINK = 4  # of the event loop, from accepting a connection to its link; a server that closes sooner loses it
_NO_LINGER = struct.pack("ii", 1, 0)  # closing sends RST at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What goes wrong. Times are seconds; the bytes of `cut_after_bytes` are those the server answers."""

    latency_seconds: float = 0.0  # before each piece, in both directions
    slice_bytes: int | None = None  # pieces of this size, each a packet of its own
    cut: Cut = "reset"
    cut_after_bytes: int | None = None  # of one connection; the byte after it is never passed on
    stalls: bool = False  # accepts and reads on, passes nothing on
    on: bytes = b""  # what a client says that sets `then` off
    then: Reaction = "delay"
    delay_seconds: float = 0.0
    times: int | None = None  # how often `then` happens; None: always


@dataclass(slots=True, eq=False)
class Link:
    """One connection: its two ends, and how far its server has answered."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    answered: int = 0
    is_muted: bool = False  # it is being cut: what the server still says goes nowhere
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def cut(self, how: Cut) -> None:
        for writer in (self.client, self.server):
            if writer is not None:
                _end(writer, how)


class FaultProxy:
    """One target, one listening port that stays the same over `go_down` and `come_up`."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._faults = Faults()
        self._triggered = 0
        self._links: set[Link] = set()
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.accepted = 0

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        self._call(self._listen(self._listener))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CONTROL_SECONDS)
        self._loop.close()

    # -- controls ----------------------------------------------------------------------------------------------------
    def behave(self, **faults: Any) -> None:
        """From now on with these faults and no others; without any, well."""
        self._call(self._behave(Faults(**faults)))

    def cut_all(self, how: Cut = "reset") -> None:
        """End every open connection; new ones are welcome."""
        self._call(self._cut_all(how))

    def go_down(self) -> None:
        """Connecting is refused, what is open is reset."""
        self._call(self._go_down())

    def come_up(self) -> None:
        self._call(self._listen(None))

    @property
    def open_connections(self) -> int:
        return len(self._links)

    @property
    def triggered(self) -> int:
        """How often `then` has happened since the last `behave`."""
        return self._triggered

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CONTROL_SECONDS)

    # -- in the loop -------------------------------------------------------------------------------------------------
    async def _listen(self, listener: socket.socket | None) -> None:
        if self._server is None:
            listener = listener or socket.create_server(("127.0.0.1", self.port))
            self._server = await asyncio.start_server(self._serve, sock=listener)

    async def _behave(self, faults: Faults) -> None:
        self._faults, self._triggered = faults, 0
        self._changed.set()
        self._changed = asyncio.Event()

    async def _cut_all(self, how: Cut) -> None:
        links = tuple(self._links)
        for link in links:
            link.cut(how)
        await asyncio.gather(*(link.ended.wait() for link in links))

    async def _go_down(self) -> None:
        if self._server is not None:
            for listener in self._server.sockets:
                self._loop.remove_reader(listener.fileno())
            for _ in range(TURNS_TO_LINK):
                await asyncio.sleep(0)
            self._server.close()
            self._server = None
        await self._cut_all("reset")

    async def _end(self) -> None:
        await self._behave(Faults())
        await self._go_down()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        link = Link(writer)
        self._links.add(link)
        try:
            with contextlib.suppress(OSError):
                answers, link.server = await asyncio.open_connection(*self._target)
                _without_delay(writer, link.server)
                await self._pass_both(link, reader, answers)
        finally:
            link.cut("close")
            self._links.discard(link)
            link.ended.set()

    async def _pass_both(self, link: Link, reader: asyncio.StreamReader, answers: asyncio.StreamReader) -> None:
        """Until one direction has ended: half-closed connections count as closed."""
        assert link.server is not None
        directions = [
            asyncio.ensure_future(self._pass(reader, link.server, link, self._say)),
            asyncio.ensure_future(self._pass(answers, link.client, link, self._answer)),
        ]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)

    async def _pass(
        self, source: asyncio.StreamReader, to: asyncio.StreamWriter, link: Link, step: Callable[..., Any]
    ) -> None:
        while chunk := await source.read(READ_BYTES):
            while self._faults.stalls:
                await self._changed.wait()
            if not await step(chunk, to, link):
                return

    async def _say(self, chunk: bytes, to: asyncio.StreamWriter, link: Link) -> bool:
        """A client's bytes on their way to the server; False when the connection was cut."""
        faults = self._faults
        is_due = faults.times is None or self._triggered < faults.times
        if not faults.on or faults.on not in chunk or not is_due:
            await self._write(chunk, to)
            return True
        self._triggered += 1
        link.is_muted = faults.then != "delay"
        if faults.then == "delay":
            await asyncio.sleep(faults.delay_seconds)
        if faults.then != "cut_before":
            await self._write(chunk, to)
        if faults.then == "cut_after":
            await asyncio.sleep(faults.delay_seconds)  # the server has time to do it; its answer goes nowhere
        if faults.then != "delay":
            link.cut(faults.cut)
        return faults.then == "delay"

    async def _answer(self, chunk: bytes, to: asyncio.StreamWriter, link: Link) -> bool:
        """The server's bytes on their way to the client; False when the connection was cut."""
        faults = self._faults
        limit = faults.cut_after_bytes
        if link.is_muted:
            return False
        kept = chunk if limit is None else chunk[: max(limit - link.answered, 0)]
        link.answered += len(chunk)
        await self._write(kept, to)
        if len(kept) < len(chunk):
            link.cut(faults.cut)
        return len(kept) == len(chunk)

    async def _write(self, chunk: bytes, to: asyncio.StreamWriter) -> None:
        size = self._faults.slice_bytes or max(len(chunk), 1)
        for start in range(0, len(chunk), size):
            if self._faults.latency_seconds:
                await asyncio.sleep(self._faults.latency_seconds)
            to.write(chunk[start : start + size])
            await to.drain()
            if self._faults.slice_bytes:
                await asyncio.sleep(0)


def _without_delay(*writers: asyncio.StreamWriter) -> None:
    for writer in writers:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _end(writer: asyncio.StreamWriter, how: Cut) -> None:
    if writer.transport.is_closing():
        return
    if how == "reset":
        with contextlib.suppress(OSError):
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        writer.transport.abort()
    else:
        writer.close()
