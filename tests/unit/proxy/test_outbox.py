"""The way from the pump to the client: order, bounds, pings, and who may begin."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

from proxy import exchange as exchange_module
from proxy.exchange import ClientLeft
from proxy.outbox import PING, Head, Outbox, WholeAnswer
from tests.asgi import Client

T = TypeVar("T")
HEAD = Head(200, [(b"content-type", b"text/event-stream")])
MB = 1024 * 1024
SERVERS = pytest.mark.parametrize("at_once", [True, False], ids=["takes at once", "is to be waited for"])


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(work, 5.0))


@asynccontextmanager
async def opened(
    client: Client, *, ping: float = 60.0, first: float = 60.0, stream: bool = True, heard: Counter[str] | None = None
) -> AsyncIterator[Outbox]:
    """An outbox from its opening until it is closed; `heard` counts what it says of the client."""
    box = Outbox(client.exchange, HEAD if stream else None, ping_seconds=ping, first_event_seconds=first)
    box.open(lambda: (heard if heard is not None else Counter[str]()).update(["left"]))
    try:
        yield box
    finally:
        box.close()


async def settle_down() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@SERVERS
def test_nothing_goes_out_before_the_pump_begins(at_once: bool) -> None:
    async def check() -> None:
        client = Client(takes_at_once=at_once)
        async with opened(client) as box:
            await settle_down()
            assert client.messages == []
            assert not box.has_begun
            box.begin_stream()
            box.begin_stream()  # once is enough
            await settle_down()
            assert [m["type"] for m in client.messages] == ["http.response.start"]
            assert box.has_begun
        await box.end()
        assert client.is_over

    run(check())


@SERVERS
def test_chunks_go_out_in_order_and_what_waits_as_one_write(at_once: bool) -> None:
    async def check() -> None:
        client = Client(takes_at_once=at_once)
        async with opened(client) as box:
            box.begin_stream()
            for chunk in (b"a", b"b", b"", b"c"):
                await box.put(chunk)
            await settle_down()
            await box.put(b"d")
            box.put_last(b"e")
        await box.end()
        assert client.body == b"abcde"
        assert client.writes[0] == b"abc"
        assert len(client.writes) <= 3

    run(check())


def test_a_client_that_reads_needs_no_task() -> None:
    async def check() -> None:
        client, before = Client(), asyncio.all_tasks()
        async with opened(client) as box:
            box.begin_stream()
            for _ in range(3):
                await box.put(b"a")
                await settle_down()
            assert asyncio.all_tasks() == before
        assert client.writes == [b"a"] * 3

    run(check())


def test_after_a_stall_nothing_is_waited_for_again() -> None:
    async def check() -> None:
        client, before = Client(), asyncio.all_tasks()
        async with opened(client) as box:
            box.begin_stream()
            client.reads.clear()
            await box.put(b"a")
            await settle_down()
            assert len(asyncio.all_tasks()) == len(before) + 1
            await box.put(b"b")
            await box.put(b"c")
            client.reads.set()
            await settle_down()
            assert asyncio.all_tasks() == before
            await box.put(b"d")
            await settle_down()
        assert client.writes == [b"a", b"bc", b"d"]

    run(check())


@SERVERS
def test_a_whole_answer_is_one_answer(at_once: bool) -> None:
    async def check() -> None:
        client = Client(takes_at_once=at_once)
        async with opened(client, stream=False) as box:
            box.answer(WholeAnswer(413, [], b"{}"))
        await box.end()
        assert (client.status, client.writes) == (413, [b"{}"])

    run(check())


def test_an_error_before_a_stream_began_is_a_whole_answer() -> None:
    async def check() -> None:
        client = Client()
        async with opened(client, first=0.01) as box:
            box.answer(WholeAnswer(529, [], b"{}"))
        await asyncio.sleep(0.03)
        await box.end()
        assert (client.status, client.writes) == (529, [b"{}"])

    run(check())


def test_a_pump_that_ends_without_a_word_sends_nothing() -> None:
    async def check() -> None:
        client = Client()
        async with opened(client) as box:
            pass
        await box.end()
        assert client.messages == []

    run(check())


@SERVERS
def test_silence_before_the_first_event_begins_the_stream_with_a_ping(at_once: bool) -> None:
    async def check() -> None:
        client = Client(takes_at_once=at_once)
        async with opened(client, first=0.03) as box:
            await asyncio.sleep(0.01)
            assert client.messages == []
            await asyncio.sleep(0.05)
            assert box.has_begun  # the pump may not try another key any more
            assert (client.status, client.writes) == (200, [PING])

    run(check())


@SERVERS
@pytest.mark.parametrize("first", [0.001, 60.0], ids=["first event sooner than pings", "later"])
def test_silence_in_a_stream_gets_pings(at_once: bool, first: float) -> None:
    async def check() -> None:
        client = Client(takes_at_once=at_once)
        async with opened(client, ping=0.02, first=first) as box:
            box.begin_stream()
            await box.put(b"a")
            begun = time.monotonic()
            async with asyncio.timeout(10):
                while client.writes.count(PING) < 3:  # noqa: ASYNC110  # the client only keeps what it gets
                    await asyncio.sleep(0.005)
            await box.put(b"b")
        await box.end()
        pings = client.writes.count(PING)
        assert pings <= (time.monotonic() - begun) / 0.02
        assert client.writes == [b"a", *[PING] * pings, b"b"]

    run(check())


def test_events_put_a_ping_off() -> None:
    async def check() -> None:
        client = Client()
        async with opened(client, ping=0.2) as box:
            box.begin_stream()
            for _ in range(30):
                await box.put(b"a")
                await asyncio.sleep(0.01)
        assert PING not in client.writes

    run(check())


def test_a_client_that_is_behind_gets_no_ping() -> None:
    async def check() -> None:
        client = Client()
        client.reads.clear()
        async with opened(client, ping=0.01) as box:
            box.begin_stream()
            await asyncio.sleep(0.05)
            assert client.messages == []
            client.reads.set()
            await settle_down()
            assert client.writes == []

    run(check())


def test_a_json_answer_gets_no_ping_however_long_it_takes() -> None:
    async def check() -> None:
        client = Client()
        async with opened(client, ping=0.01, first=0.01, stream=False) as box:
            await asyncio.sleep(0.05)
            assert client.messages == []
            box.answer(WholeAnswer(200, [], b"{}"))
        await box.end()
        assert client.writes == [b"{}"]

    run(check())


def test_the_pump_waits_for_a_client_that_is_a_megabyte_behind() -> None:
    async def check() -> None:
        client = Client()
        async with opened(client) as box:
            box.begin_stream()
            client.reads.clear()
            for _ in range(17):
                await asyncio.wait_for(box.put(b"x" * 65536), 1.0)
                await asyncio.sleep(0)  # the first is with the server, which does not take it
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(box.put(b"x"), 0.05)
            client.reads.set()
            await asyncio.wait_for(box.put(b"y"), 1.0)
        await box.end()
        assert len(client.body) == MB + 65536 + 1

    run(check())


def test_what_ends_an_answer_never_waits() -> None:
    async def check() -> None:
        client = Client()
        async with opened(client) as box:
            box.begin_stream()
            await box.put(b"x" * 2 * MB)
            box.put_last(b"the end")
        await box.end()
        assert client.body.endswith(b"the end")

    run(check())


def test_a_client_that_has_gone_lets_the_pump_go_on() -> None:
    async def check() -> None:
        client, heard = Client(), Counter[str]()
        async with opened(client, heard=heard) as box:
            box.begin_stream()
            client.is_gone = True
            for _ in range(3):
                await asyncio.wait_for(box.put(b"x" * MB), 1.0)
                await settle_down()
            assert heard == {"left": 1}
            assert client.writes == []
        with pytest.raises(ClientLeft):
            await box.end()

    run(check())


def test_a_client_that_reads_nothing_for_too_long_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_module, "_SEND_SECONDS", 0.05)

    async def check() -> None:
        client, heard = Client(), Counter[str]()
        async with opened(client, heard=heard) as box:
            box.begin_stream()
            client.reads.clear()
            await box.put(b"x" * 2 * MB)
            await settle_down()
            await box.put(b"y" * MB)
            await asyncio.wait_for(box.put(b"z"), 1.0)  # waits for room until the client is given up
            assert heard == {"left": 1}
        with pytest.raises(ClientLeft):
            await box.end()

    run(check())


def test_a_server_that_fails_ends_the_way_and_not_the_pump() -> None:
    async def check() -> list[dict[str, Any]]:
        reports: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
        client, heard = Client(), Counter[str]()
        async with opened(client, heard=heard) as box:
            box.begin_stream()
            box.exchange.send = _fail
            await box.put(b"a")
            await settle_down()
            await asyncio.wait_for(box.put(b"x" * 2 * MB), 1.0)
            await asyncio.wait_for(box.put(b"y"), 1.0)
            assert heard == {"left": 1}
        with pytest.raises(ClientLeft):
            await box.end()
        return reports

    (report,) = run(check())
    assert "broken" in str(report["exception"])


def _fail(message: Any) -> Any:
    raise RuntimeError("broken")
