"""The sandbox in a thread of a test process, on a free port."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any

from opensvm.sandbox.app import Sandbox
from opensvm.sandbox.remote import Controls
from opensvm.sandbox.server import Server

START_SECONDS = 10.0


class SandboxServer:
    """`with SandboxServer() as sandbox:` serves at `sandbox.url`; `sandbox.controls` scripts it and looks into it."""

    def __init__(self, port: int = 0) -> None:
        self._held = _hold(port)
        self._server = Server(Sandbox(), port=self._held.getsockname()[1], shares_port=True)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="opensvm-sandbox", daemon=True)

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def base_url(self) -> str:
        """What `OPENROUTER_BASE_URL` is set to."""
        return f"{self.url}/api/v1"

    @property
    def controls(self) -> Controls:
        return Controls(self.url)

    def __enter__(self) -> SandboxServer:
        self._thread.start()
        self._call(self._server.start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START_SECONDS)
        self._held.close()

    def start_afresh(self) -> None:
        """Forgets everything, ends every connection, and listens."""
        self._call(self._server.start_afresh())

    def refuse_connections(self) -> None:
        """Stops listening, as if the machine were down; open connections end."""
        self._call(self._server.stop())

    def accept_connections(self) -> None:
        """Listens again, on the same port."""
        self._call(self._server.start())

    def drop_connections(self) -> None:
        """Ends every open connection, idle or not."""
        self._call(self._server.drop_connections())

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(START_SECONDS)


def _hold(port: int) -> socket.socket:
    """A socket that never listens: nobody else is given its port while the server refuses connections."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind(("127.0.0.1", port))
    return held
