"""Upstream's answer over aiohttp: when its connection is used again, and that it is left without a trace."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from proxy.upstream import Broken, Upstream, UpstreamConfig, has_ended, proxy_of_environment

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT, END = b"9\r\ndata: 1\n\n\r\n", b"0\r\n\r\n"


class Server(asyncio.Protocol):
    """Answers each request of a connection with `answer`; `go_on` says the rest."""

    connections: list[Server]
    answer: bytes
    received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.is_left = asyncio.Event()
        self.connections.append(self)

    def data_received(self, data: bytes) -> None:
        self.received += data
        if data.endswith(b"{}"):
            self.transport.write(self.answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_left.set()


@asynccontextmanager
async def listening(answer: bytes) -> AsyncIterator[tuple[int, list[Server]]]:
    """A port, and the connections that were made to it."""
    connections: list[Server] = []
    kind = type("Scripted", (Server,), {"connections": connections, "answer": answer})
    server = await asyncio.get_running_loop().create_server(kind, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], connections
    finally:
        server.close()


@asynccontextmanager
async def asking(base_url: str) -> AsyncIterator[Upstream]:
    client = Upstream(UpstreamConfig(base_url, silence_seconds=5.0, connect_seconds=5.0))
    try:
        yield client
    finally:
        await client.aclose()


@asynccontextmanager
async def upstream(answer: bytes) -> AsyncIterator[tuple[Upstream, list[Server]]]:
    async with listening(answer) as (port, connections), asking(f"http://127.0.0.1:{port}") as client:
        yield client, connections


async def ask(client: Upstream) -> httpx.Response:
    return await client.send("/messages", b"{}", secret="sk-or-v1-test", headers=httpx.Headers())


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


class NoThreads(ThreadPoolExecutor):
    def submit(self, *args: Any, **options: Any) -> Any:
        raise AssertionError(f"a thread was asked for: {args}")


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in os.environ:
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    netrc = tmp_path / "netrc"
    netrc.write_text("default login olivia password not-a-real-one\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    return monkeypatch


def test_upstream_is_asked_through_the_proxy_of_the_environment(environment: pytest.MonkeyPatch) -> None:
    """Without a thread, and with our own authorization, whatever a .netrc knows of upstream's host."""

    async def check() -> None:
        asyncio.get_running_loop().set_default_executor(NoThreads())
        async with listening(HEAD + EVENT + END) as (port, connections), asking("http://upstream.test/api") as client:
            environment.setenv("http_proxy", f"http://olivia:not-a-real-one@127.0.0.1:{port}")
            response = await ask(client)
            await response.aclose()
            request, *fields = connections[0].received.lower().split(b"\r\n")
            assert request == b"post http://upstream.test/api/messages http/1.1"
            assert {
                b"host: upstream.test",
                b"authorization: bearer sk-or-v1-test",
                b"proxy-authorization: basic " + base64.b64encode(b"olivia:not-a-real-one").lower(),
            } <= set(fields)

    run(check)


@pytest.mark.parametrize(
    ("variables", "base_url", "proxy"),
    [
        ({}, "https://openrouter.ai/api/v1", None),
        ({"https_proxy": "http://proxy.test:3128"}, "https://openrouter.ai/api/v1", "http://proxy.test:3128"),
        ({"HTTPS_PROXY": "proxy.test:3128"}, "https://openrouter.ai/api/v1", "http://proxy.test:3128"),
        ({"http_proxy": "http://proxy.test:3128"}, "https://openrouter.ai/api/v1", None),
        ({"https_proxy": "http://proxy.test:3128", "no_proxy": "openrouter.ai"}, "https://openrouter.ai/api/v1", None),
        ({"https_proxy": "http://proxy.test:3128", "no_proxy": ".ai"}, "https://openrouter.ai/api/v1", None),
        ({"http_proxy": "http://proxy.test:3128"}, "http://localhost:9000", None),
        ({"http_proxy": "http://proxy.test:3128"}, "http://127.0.0.1:9000", None),
    ],
    ids=[
        "none",
        "https",
        "without a scheme",
        "of http alone",
        "no_proxy",
        "no_proxy, a domain",
        "localhost",
        "127.0.0.1",
    ],
)
def test_which_proxy_that_is(
    environment: pytest.MonkeyPatch, variables: dict[str, str], base_url: str, proxy: str | None
) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)
    assert proxy_of_environment(base_url) == proxy
