"""Upstream's answer over aiohttp: when its connection is used again, and that it is left without a trace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import pytest

from proxy.upstream import Broken, Upstream, UpstreamConfig, has_ended

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT, END = b"9\r\ndata: 1\n\n\r\n", b"0\r\n\r\n"


class Server(asyncio.Protocol):
    """Answers each request of a connection with `answer`; `go_on` says the rest."""

    connections: list[Server]
    answer: bytes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.is_left = asyncio.Event()
        self.connections.append(self)

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"{}"):
            self.transport.write(self.answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_left.set()


@asynccontextmanager
async def upstream(answer: bytes) -> AsyncIterator[tuple[Upstream, list[Server]]]:
    connections: list[Server] = []
    kind = type("Scripted", (Server,), {"connections": connections, "answer": answer})
    server = await asyncio.get_running_loop().create_server(kind, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = Upstream(UpstreamConfig(f"http://127.0.0.1:{port}", silence_seconds=5.0, connect_seconds=5.0))
    try:
        yield client, connections
    finally:
        await client.aclose()
        server.close()


async def ask(client: Upstream) -> httpx.Response:
    return await client.send("/messages", b"{}", secret="sk-or-v1-test", headers={})


async def first_piece(response: httpx.Response) -> bytes:
    return await anext(aiter(cast(httpx.AsyncByteStream, response.stream)))


def run(check: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(check(), 10.0))


def test_an_answer_that_has_come_to_its_end_leaves_its_connection_to_the_next() -> None:
    async def check() -> None:
        async with upstream(HEAD + EVENT + END) as (client, connections):
            for _ in range(2):
                response = await ask(client)
                assert await first_piece(response) == b"data: 1\n\n"
                assert has_ended(response)  # and nobody has asked for more
                await response.aclose()
            assert len(connections) == 1

    run(check)


def test_an_answer_that_goes_on_takes_its_connection_with_it() -> None:
    async def check() -> None:
        async with upstream(HEAD + EVENT) as (client, connections):
            response = await ask(client)
            assert await first_piece(response) == b"data: 1\n\n"
            assert not has_ended(response)
            await response.aclose()
            await connections[0].is_left.wait()

    run(check)


def test_an_answer_that_is_left_unread_makes_no_task() -> None:
    async def check() -> None:
        async with upstream(HEAD + EVENT + END) as (client, _):
            made: list[Any] = []
            response = await ask(client)
            loop = asyncio.get_running_loop()
            loop.set_task_factory(lambda loop, work, **options: made.append(work) or asyncio.Task(work, loop=loop))
            await first_piece(response)
            await response.aclose()
            del response
            await asyncio.sleep(0)
            loop.set_task_factory(None)
            assert made == []

    run(check)


def test_an_answer_that_is_cut_is_broken() -> None:
    async def check() -> None:
        async with upstream(HEAD + EVENT) as (client, connections):
            response = await ask(client)
            chunks = aiter(cast(httpx.AsyncByteStream, response.stream))
            await anext(chunks)
            connections[0].transport.close()
            with pytest.raises(Broken):
                await anext(chunks)
            await response.aclose()

    run(check)


def test_of_other_transports_it_is_unknown() -> None:
    assert not has_ended(httpx.Response(200, content=b"{}"))
