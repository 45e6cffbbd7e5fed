"""The queue between the pump and the writer: order, bounds, pings, and who may begin."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from proxy.exchange import BodyBudget, BodyLimits, ClientLeft, Exchange
from proxy.outbox import PING, Head, Outbox, WholeAnswer

T = TypeVar("T")
HEAD = Head(200, [(b"content-type", b"text/event-stream")])
MB = 1024 * 1024


class Client:
    """The client's side of an exchange. `reads` is cleared to stall it."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.is_gone = False

    async def send(self, message: Any) -> None:
        await self.reads.wait()
        if self.is_gone:
            raise ConnectionResetError
        self.messages.append(dict(message))

    async def receive(self) -> Any:
        await asyncio.Event().wait()

    @property
    def exchange(self) -> Exchange:
        limits = BodyLimits(1, 1.0, 1.0, 1)
        return Exchange({"method": "POST", "headers": []}, self.receive, self.send, limits, BodyBudget(1))

    @property
    def status(self) -> int | None:
        return next((m["status"] for m in self.messages if m["type"] == "http.response.start"), None)

    @property
    def writes(self) -> list[bytes]:
        return [m["body"] for m in self.messages if m["type"] == "http.response.body"]

    @property
    def is_over(self) -> bool:
        return any(m["type"] == "http.response.body" and not m["more_body"] for m in self.messages)


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(work, 5.0))


def outbox(*, ping: float = 60.0, first: float = 60.0, stream: bool = True) -> Outbox:
    return Outbox(HEAD if stream else None, ping_seconds=ping, first_event_seconds=first)


async def settle_down() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_nothing_goes_out_before_the_pump_begins() -> None:
    async def check() -> None:
        box, client = outbox(), Client()
        writer = asyncio.create_task(box.write_to(client.exchange))
        await settle_down()
        assert client.messages == []
        assert not box.has_begun
        box.begin_stream()
        box.begin_stream()  # once is enough
        await settle_down()
        assert [m["type"] for m in client.messages] == ["http.response.start"]
        assert box.has_begun
        box.end()
        await writer
        assert client.is_over

    run(check())


def test_chunks_go_out_in_order_and_what_waits_as_one_write() -> None:
    async def check() -> None:
        box, client = outbox(), Client()
        writer = asyncio.create_task(box.write_to(client.exchange))
        box.begin_stream()
        for chunk in (b"a", b"b", b"", b"c"):
            await box.put(chunk)
        await settle_down()
        await box.put(b"d")
        box.put_last(b"e")
        box.end()
        await writer
        assert client.writes == [b"abc", b"de", b""]

    run(check())


def test_a_whole_answer_is_one_answer() -> None:
    async def check() -> None:
        box, client = outbox(stream=False), Client()
        box.answer(WholeAnswer(413, [], b"{}"))
        box.end()
        await box.write_to(client.exchange)
        assert (client.status, client.writes) == (413, [b"{}"])

    run(check())


def test_an_error_before_a_stream_began_is_a_whole_answer() -> None:
    async def check() -> None:
        box, client = outbox(first=0.01), Client()
        box.answer(WholeAnswer(529, [], b"{}"))
        await asyncio.sleep(0.03)
        box.end()
        await box.write_to(client.exchange)
        assert (client.status, client.writes) == (529, [b"{}"])

    run(check())


def test_a_pump_that_ends_without_a_word_sends_nothing() -> None:
    async def check() -> None:
        box, client = outbox(), Client()
        box.end()
        await box.write_to(client.exchange)
        assert client.messages == []

    run(check())


def test_silence_before_the_first_event_begins_the_stream_with_a_ping() -> None:
    async def check() -> None:
        box, client = outbox(first=0.03), Client()
        writer = asyncio.create_task(box.write_to(client.exchange))
        await asyncio.sleep(0.01)
        assert client.messages == []
        await asyncio.sleep(0.05)
        assert box.has_begun  # the pump may not try another key any more
        assert (client.status, client.writes) == (200, [PING])
        box.end()
        await writer

    run(check())


def test_silence_in_a_stream_gets_pings() -> None:
    async def check() -> None:
        box, client = outbox(ping=0.02), Client()
        writer = asyncio.create_task(box.write_to(client.exchange))
        box.begin_stream()
        box.put_last(b"a")
        begun = time.monotonic()
        async with asyncio.timeout(10):
            while client.writes.count(PING) < 3:  # noqa: ASYNC110  # the client only keeps what it gets
                await asyncio.sleep(0.005)
        box.put_last(b"b")
        box.end()
        await writer
        pings = client.writes.count(PING)
        assert pings <= (time.monotonic() - begun) / 0.02
        assert client.writes == [b"a", *[PING] * pings, b"b", b""]

    run(check())


def test_a_json_answer_gets_no_ping_however_long_it_takes() -> None:
    async def check() -> None:
        box, client = outbox(ping=0.01, first=0.01, stream=False), Client()
        writer = asyncio.create_task(box.write_to(client.exchange))
        await asyncio.sleep(0.05)
        assert client.messages == []
        box.answer(WholeAnswer(200, [], b"{}"))
        box.end()
        await writer
        assert client.writes == [b"{}"]

    run(check())


def test_the_pump_waits_for_a_client_that_is_a_megabyte_behind() -> None:
    async def check() -> None:
        box, client = outbox(), Client()
        client.reads.clear()
        writer = asyncio.create_task(box.write_to(client.exchange))
        box.begin_stream()
        for _ in range(16):
            await asyncio.wait_for(box.put(b"x" * 65536), 1.0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(box.put(b"x"), 0.05)
        client.reads.set()
        await asyncio.wait_for(box.put(b"y"), 1.0)
        box.end()
        await writer
        assert sum(map(len, client.writes)) == MB + 1

    run(check())


def test_what_ends_an_answer_never_waits() -> None:
    async def check() -> None:
        box, client = outbox(), Client()
        box.begin_stream()
        await box.put(b"x" * 2 * MB)
        box.put_last(b"the end")
        box.end()
        await box.write_to(client.exchange)
        assert b"".join(client.writes).endswith(b"the end")

    run(check())


def test_a_client_that_has_gone_ends_the_writer() -> None:
    async def check() -> None:
        box, client = outbox(), Client()
        client.is_gone = True
        box.begin_stream()
        with pytest.raises(ClientLeft):
            await box.write_to(client.exchange)

    run(check())
