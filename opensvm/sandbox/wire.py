"""One HTTP/1.1 connection at the level of bytes: reads requests, writes pieces, breaks off, sees the client leave.

Written on asyncio and h11 rather than ASGI, because tests need cuts, resets, stalls and slices at exact places.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import Any

import h11

from opensvm.sandbox.script import Break

MAX_HEAD_BYTES = 256 * 1024
MAX_BODY_BYTES = 64 * 1024 * 1024
NO_LINGER = struct.pack("ii", 1, 0)  # closing sends RST at once


class ClientLeft(Exception):
    """The client closed, half-closed or reset the connection."""


class BrokenOff(Exception):
    """The script ended the connection."""


class Wire(asyncio.Protocol):
    """`serve` runs as a task from connection to close. Half-closing counts as leaving."""

    def __init__(self, serve: Callable[[Wire], Coroutine[Any, Any, None]], open_wires: set[Wire]) -> None:
        self._serve = serve
        self._open_wires = open_wires
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._left = asyncio.Event()
        self._writable.set()
        self._transport: asyncio.Transport
        self._task: asyncio.Task[None]

    # -- asyncio.Protocol ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=0)  # so that `flush` waits until the system has taken every byte
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open_wires.add(self)
        self._task = asyncio.get_running_loop().create_task(self._serve(self))

    def data_received(self, data: bytes) -> None:
        self._http.receive_data(data)
        self._arrived.set()

    def eof_received(self) -> bool:
        self._see_leaving()
        return True  # closing is up to the serving task

    def connection_lost(self, exc: Exception | None) -> None:
        self._open_wires.discard(self)
        self._see_leaving()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _see_leaving(self) -> None:
        if not self._left.is_set():
            self._left.set()
            self._http.receive_data(b"")
        self._arrived.set()
        self._writable.set()

    # -- Reading -------------------------------------------------------------------------------------------------------

    @property
    def is_local(self) -> bool:
        peer = self._transport.get_extra_info("peername")
        return bool(peer) and ipaddress.ip_address(peer[0]).is_loopback

    async def first_byte(self, timeout: float | None) -> bool:
        """Whether anything came within `timeout` seconds (None: waits for ever)."""
        try:
            async with asyncio.timeout(timeout):
                while not (self.buffered() or self._left.is_set()):
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            return False
        return bool(self.buffered())

    def buffered(self) -> bytes:
        """What has come and is not read yet."""
        return self._http.trailing_data[0]

    async def read_request(self) -> tuple[h11.Request, bytes] | None:
        """Head and whole body; None when the client has closed. What is no HTTP raises `h11.RemoteProtocolError`."""
        head = await self._next_event()
        if not isinstance(head, h11.Request):
            return None
        body = bytearray()
        while True:
            event = await self._next_event()
            if isinstance(event, h11.EndOfMessage):
                return head, bytes(body)
            if not isinstance(event, h11.Data):
                return None
            body += event.data
            if len(body) > MAX_BODY_BYTES:
                raise h11.RemoteProtocolError("The body is too large for the sandbox.", error_status_hint=413)

    async def _next_event(self) -> Any:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                self.send(h11.InformationalResponse(status_code=100, headers=[]))
            self._arrived.clear()
            await self._arrived.wait()
        return event

    # -- Writing -------------------------------------------------------------------------------------------------------

    def send(self, event: h11.Event) -> None:
        payload = self._http.send(event)
        if payload:
            self._transport.write(payload)

    async def flush(self) -> None:
        """Waits until the client has read enough for more, and notices when it has gone."""
        await asyncio.sleep(0)
        await self._writable.wait()
        if self._left.is_set():
            raise ClientLeft

    async def wait(self, seconds: float | None) -> None:
        """Stays silent so long (None: for ever) or until the client leaves."""
        if seconds is not None and seconds <= 0:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._left.wait()
        except TimeoutError:
            return
        raise ClientLeft

    # -- Ending --------------------------------------------------------------------------------------------------------

    def next_cycle(self) -> bool:
        """Whether the connection can take another request; readies it."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def break_off(self, how: Break) -> None:
        """Ends the connection as scripted; raises `BrokenOff`, or `ClientLeft` when it waits for the client to go."""
        match how:
            case "stall":
                await self.wait(None)
            case "half_close":
                self._transport.write_eof()
                await self.wait(None)
            case "reset":
                await self._writable.wait()
                self._reset()
        raise BrokenOff

    def _reset(self) -> None:
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self._transport.abort()

    def close(self) -> None:
        if not self._transport.is_closing():
            self._transport.close()

    async def cancel(self) -> None:
        """Ends it at once, whatever it does, and waits until its bills are settled."""
        self._transport.abort()
        self._task.cancel()
        await asyncio.wait([self._task])
