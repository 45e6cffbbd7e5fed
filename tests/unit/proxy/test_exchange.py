"""One exchange with a client, its ASGI server played by the test."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest

from proxy import exchange as exchange_module
from proxy.dialects import MESSAGES
from proxy.errors import Refusal
from proxy.exchange import WATCH_AFTER_SECONDS, BodyBudget, BodyLimits, ClientLeft, Exchange
from proxy.upstream import Upstream, UpstreamConfig
from proxy.views import session_id, upstream_headers
from tests.asgi import Taken

T = TypeVar("T")
LIMITS = BodyLimits(max_bytes=100, silence_seconds=0.05, grace_seconds=0.05, min_bytes_per_second=1000)
LEFT = {"type": "http.disconnect"}


@dataclass
class Server:
    """What the client sends, message by message (a number: a pause in seconds), and what it was sent."""

    incoming: list[Any] = field(default_factory=list)
    sent: list[Any] = field(default_factory=list)
    stalls: bool = False
    error: Exception | None = None

    async def receive(self) -> Any:
        if self.incoming and isinstance(self.incoming[0], float):
            await asyncio.sleep(self.incoming.pop(0))
        if not self.incoming:
            await asyncio.Event().wait()
        return self.incoming.pop(0)

    async def send(self, message: Any) -> None:
        if self.error is not None:
            raise self.error
        if self.stalls:
            await asyncio.Event().wait()
        self.sent.append(dict(message))

    def take(self, message: Any) -> Taken:
        self.sent.append(dict(message))
        return Taken()


def part(body: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def exchange_with(server: Server, *headers: tuple[bytes, bytes], budget: BodyBudget | None = None) -> Exchange:
    scope = {"method": "POST", "headers": list(headers), "client": ("127.0.0.1", "5000")}
    exchange = Exchange(scope, server.receive, server.send, LIMITS, budget or BodyBudget(1000))
    exchange.name("req_1")
    return exchange


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(work, 5.0))


def refusal_of(exchange: Exchange) -> tuple[int, str]:
    with pytest.raises(Refusal) as caught:
        run(exchange.read_body())
    return caught.value.status, caught.value.error_type


# -- Reading ---------------------------------------------------------------------------------------------------------
BODIES = {
    "whole": [part(b"hello", more=False)],
    "in parts": [part(b"he"), part(b"l"), part(b""), part(b"lo"), part(b"", more=False)],
    "without its optional fields": [part(b"hello"), {"type": "http.request"}],
}


@pytest.mark.parametrize("incoming", BODIES.values(), ids=BODIES)
def test_a_body_is_read_however_it_is_cut(incoming: list[Any]) -> None:
    exchange = exchange_with(Server(list(incoming)))
    assert run(exchange.read_body()) == b"hello"
    assert exchange.is_body_read
    assert exchange.budget.used == 5
    exchange.release_body()
    exchange.release_body()  # a second time gives nothing back
    assert exchange.budget.used == 0


def test_a_body_of_the_largest_size_is_read() -> None:
    assert run(exchange_with(Server([part(b"x" * 100, more=False)])).read_body()) == b"x" * 100


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        (b"100", None),
        (b"000100", None),
        (b"101", (413, "request_too_large")),
        (b"9" * 5000, (413, "request_too_large")),
        (b"-1", (400, "invalid_request_error")),
        (b"1e2", (400, "invalid_request_error")),
        (b"\xb2", (400, "invalid_request_error")),
    ],
    ids=repr,
)
def test_a_declared_length_is_checked_before_anything_is_read(
    declared: bytes, expected: tuple[int, str] | None
) -> None:
    server = Server([part(b"", more=False)])
    exchange = exchange_with(server, (b"content-length", declared))
    if expected is None:
        assert run(exchange.read_body()) == b""
        return
    assert refusal_of(exchange) == expected
    assert len(server.incoming) == 1


def test_a_body_over_the_limit_is_refused_at_its_first_byte_too_many() -> None:
    server = Server([part(b"x" * 60), part(b"x" * 41), part(b"never read")])
    assert refusal_of(exchange_with(server)) == (413, "request_too_large")
    assert len(server.incoming) == 1


def test_bodies_share_a_budget() -> None:
    budget = BodyBudget(100)
    first = exchange_with(Server([part(b"x" * 60, more=False)]), budget=budget)
    second = exchange_with(Server([part(b"x" * 30), part(b"x" * 20)]), budget=budget)
    run(first.read_body())
    assert refusal_of(second) == (529, "overloaded_error")
    assert budget.used == 90  # what the second one holds until it is released
    second.release_body()
    assert budget.used == 60


def test_a_silent_body_is_refused() -> None:
    assert refusal_of(exchange_with(Server([part(b"x")]))) == (408, "timeout_error")


def test_a_slow_body_is_refused_after_its_grace() -> None:
    slow = [0.02, part(b"x")] * 20
    assert refusal_of(exchange_with(Server(slow))) == (408, "timeout_error")


def test_a_fast_body_is_not() -> None:
    fast = [0.03, part(b"x" * 40), 0.03, part(b"x" * 40), 0.0, part(b"", more=False)]
    assert len(run(exchange_with(Server(fast)).read_body())) == 80


def test_a_client_that_leaves_in_its_body_is_told_apart() -> None:
    with pytest.raises(ClientLeft):
        run(exchange_with(Server([part(b"x"), LEFT])).read_body())


def test_who_watches_hears_once_that_the_client_has_gone() -> None:
    server = Server([part(b"", more=False), LEFT, LEFT])
    heard: list[str] = []

    async def watch() -> None:
        exchange_with(server).watch(lambda: heard.append("left"))
        await asyncio.sleep(WATCH_AFTER_SECONDS * 1.5)

    run(watch())
    assert heard == ["left"]
    assert len(server.incoming) == 1


def test_who_does_not_watch_any_more_hears_nothing() -> None:
    server = Server([LEFT])
    heard: list[str] = []

    async def watch() -> None:
        exchange = exchange_with(server)
        exchange.watch(lambda: heard.append("left"))
        exchange.unwatch()
        await asyncio.sleep(WATCH_AFTER_SECONDS * 1.5)

    run(watch())
    assert not heard


def test_a_server_that_fails_to_say_whether_the_client_is_there_counts_as_left() -> None:
    heard: list[str] = []

    async def broken() -> Any:
        raise OSError("gone")

    async def watch() -> None:
        exchange = exchange_with(Server())
        exchange.receive = broken
        exchange.watch(lambda: heard.append("left"))
        await asyncio.sleep(WATCH_AFTER_SECONDS * 1.5)

    run(watch())
    assert heard == ["left"]


# -- Answering -------------------------------------------------------------------------------------------------------
def test_every_answer_carries_the_request_id() -> None:
    server = Server()
    exchange = exchange_with(server)
    run(exchange.answer(400, [(b"content-type", b"application/json")], b"{}"))
    start, body = server.sent
    assert start["status"] == 400
    assert dict(start["headers"]) == {
        b"content-type": b"application/json",
        b"content-length": b"2",
        b"request-id": b"req_1",
    }
    assert body == {"type": "http.response.body", "body": b"{}", "more_body": False}
    assert exchange.has_begun


def test_a_stream_is_begun_written_and_ended() -> None:
    server = Server()
    exchange = exchange_with(server)

    async def stream() -> None:
        await exchange.wait_for(exchange.begin(200, []))
        await exchange.wait_for(exchange.write(b"a"))
        await exchange.wait_for(exchange.write(b"", is_last=True))

    run(stream())
    assert [(m["type"], m.get("body"), m.get("more_body")) for m in server.sent] == [
        ("http.response.start", None, None),
        ("http.response.body", b"a", True),
        ("http.response.body", b"", False),
    ]


def test_what_a_server_takes_at_once_is_not_waited_for() -> None:
    server = Server()
    exchange = exchange_with(server)
    exchange.send = server.take
    assert exchange.begin(200, []) is None
    assert exchange.write(b"a", is_last=True) is None
    run(exchange.wait_for(None))
    assert [m["type"] for m in server.sent] == ["http.response.start", "http.response.body"]


async def write_to(server: Server) -> None:
    exchange = exchange_with(server)
    await exchange.wait_for(exchange.write(b"x"))


def test_a_client_that_reads_nothing_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_module, "_SEND_SECONDS", 0.05)
    with pytest.raises(ClientLeft):
        run(write_to(Server(stalls=True)))


def test_a_server_that_says_so_is_believed() -> None:
    with pytest.raises(ClientLeft):
        run(write_to(Server(error=ConnectionResetError("gone"))))


# -- Headers ---------------------------------------------------------------------------------------------------------
def test_the_first_of_several_headers_counts() -> None:
    exchange = exchange_with(Server(), (b"user-agent", b"a\xff"), (b"user-agent", b"b"))
    assert exchange.header(b"user-agent") == "a\xff"
    assert exchange.header(b"missing") == ""
    assert exchange.client_ip == "127.0.0.1"


UPSTREAM = Upstream(UpstreamConfig("http://upstream.test", silence_seconds=1.0, connect_seconds=1.0))
HEADERS: dict[str, tuple[list[tuple[bytes, bytes]], dict[str, str]]] = {
    "none": ([], {"anthropic-version": "2023-06-01"}),
    "verbatim": ([(b"anthropic-beta", b"a,b, c")], {"anthropic-beta": "a,b, c"}),
    "repeated": ([(b"anthropic-beta", b"a"), (b"anthropic-beta", b"b,c")], {"anthropic-beta": "a, b,c"}),
    "a version of its own": ([(b"anthropic-version", b"2026-10-21")], {"anthropic-version": "2026-10-21"}),
    "an empty version": ([(b"anthropic-version", b" ")], {"anthropic-version": "2023-06-01"}),
    "unsendable bytes": ([(b"anthropic-x", b"a\r\nb\0\xffc\td")], {"anthropic-x": "abc\td"}),
    "a session": ([(b"x-session-id", b"s")], {"x-session-id": "s"}),
    "Claude Code's session first": (
        [(b"x-session-id", b"s"), (b"x-claude-code-session-id", b"c")],
        {"x-session-id": "c"},
    ),
    "a session that is no text": ([(b"x-session-id", b"\xff"), (b"x-claude-code-session-id", b"\0")], {}),
    "a long session": ([(b"x-session-id", b"s" * 1000)], {"x-session-id": "s" * 256}),
}


@pytest.mark.parametrize(("headers", "expected"), HEADERS.values(), ids=HEADERS)
def test_the_headers_that_go_upstream(headers: list[tuple[bytes, bytes]], expected: dict[str, str]) -> None:
    always = {"content-type": "application/json", "accept": "text/event-stream", "accept-encoding": "identity"}
    defaults = {"anthropic-version": "2023-06-01"}
    credentials = [(b"x-api-key", b"k"), (b"authorization", b"Bearer k"), (b"cookie", b"c"), (b"host", b"h")]
    exchange = exchange_with(Server(), *credentials, *headers)
    assert upstream_headers(exchange, session_id(exchange), is_stream=True, dialect=MESSAGES, upstream=UPSTREAM) == {
        **always,
        **defaults,
        **expected,
    }


def test_a_server_may_give_its_headers_as_lists() -> None:
    """ASGI asks for pairs of any kind; what is kept by them must not be asked for a hash."""
    exchange = exchange_with(Server(), (b"anthropic-beta", b"a"))
    exchange.scope["headers"] = [list(header) for header in exchange.scope["headers"]]

    sent = upstream_headers(exchange, "", is_stream=True, dialect=MESSAGES, upstream=UPSTREAM)
    assert sent["anthropic-beta"] == "a"
