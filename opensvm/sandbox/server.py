"""Listens for the sandbox, in the event loop of whoever calls it: `__main__` in a process, `thread` in a test."""

from __future__ import annotations

import asyncio

from opensvm.sandbox.app import Sandbox
from opensvm.sandbox.exchange import Exchange
from opensvm.sandbox.wire import Wire

BACKLOG = 2048


class Server:
    """`port` 0 lets the system choose; afterwards it is the port in use, and stays it over `stop` and `start`.

    shares_port: with a socket that holds it while this one is stopped.
    """

    def __init__(self, sandbox: Sandbox, host: str = "127.0.0.1", port: int = 0, *, shares_port: bool = False) -> None:
        self.sandbox = sandbox
        self.host = host
        self.port = port
        self.connections_made = 0
        self._shares_port = shares_port
        self._wires: set[Wire] = set()
        self._listener: asyncio.Server | None = None

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    async def start(self) -> None:
        if self._listener is not None:
            return
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            self._connect, self.host, self.port, backlog=BACKLOG, reuse_port=self._shares_port or None
        )
        self.port = self._listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """No more listening, and an end to every connection. New ones are refused."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        await self.drop_connections()

    async def start_afresh(self) -> None:
        """An empty sandbox without connections, listening."""
        await self.drop_connections()
        self.sandbox.reset()
        await self.start()

    async def drop_connections(self) -> None:
        await asyncio.gather(*(wire.cancel() for wire in list(self._wires)))

    def _connect(self) -> Wire:
        self.connections_made += 1
        number = self.connections_made
        return Wire(lambda wire: Exchange(self.sandbox, wire, number).serve(), self._wires)
