"""The bare relay: what the same server and the same upstream transport do with nothing else; our limit.

Run by `opensvm.serve.web` in place of the service, so that the server's options are the same. No Django, no
credential, no pool, no ledger: the body goes up as it came, the answer comes down as it is.
"""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator
from typing import Any

from proxy.exchange import Receive, Scope, Send
from proxy.upstream import Upstream, UpstreamConfig

_HEADERS = {"content-type": "application/json", "accept": "*/*", "accept-encoding": "identity"}
_SECRET = "sk-or-v1-bench-relay"  # noqa: S105  # the benchmark's upstream asks for none


class Relay:
    def __init__(self) -> None:
        base_url = os.environ["OPENROUTER_BASE_URL"]
        self._upstream = Upstream(UpstreamConfig(base_url, silence_seconds=600.0, connect_seconds=10.0))
        self._headers = self._upstream.headers_with(_HEADERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["path"] == "/readyz":
            await _answer(send, 200, [], b"")
        else:
            await self._relay(receive, send)

    async def _relay(self, receive: Receive, send: Send) -> None:
        response = await self._upstream.send("/messages", await _body(receive), secret=_SECRET, headers=self._headers)
        kind = response.headers["content-type"]
        headers = [(b"content-type", kind.encode())]
        stream: Any = response.stream
        try:
            if kind.startswith("text/event-stream"):
                await _stream(send, response.status_code, headers, stream)
            else:
                await _answer(send, response.status_code, headers, b"".join([chunk async for chunk in stream]))
        finally:
            await stream.aclose()

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                gc.collect()  # as the service does
                gc.freeze()
                gc.set_threshold(50_000, 20, 20)
                await send({"type": "lifespan.startup.complete"})
            else:
                await self._upstream.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return


async def _body(receive: Receive) -> bytes:
    body: bytes = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def _answer(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _stream(send: Send, status: int, headers: list[tuple[bytes, bytes]], chunks: AsyncIterator[bytes]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    async for chunk in chunks:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


application = Relay()
