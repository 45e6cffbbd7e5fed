"""Faults at exact bytes and moments, and what the sandbox notices of its clients."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.sandbox import SandboxFixture

Body = Callable[..., dict[str, Any]]
HEADERS = b"Authorization: Bearer sk-or-v1-test-alpha\r\nContent-Type: application/json\r\nHost: sandbox\r\n"


def read_raw(sandbox: SandboxFixture, body: dict[str, Any], extra: bytes = b"") -> bytes:
    """All bytes of the answer to a request sent by hand, up to the end of the connection or a second of silence."""
    content = json.dumps(body).encode()
    head = b"POST /api/v1/messages HTTP/1.1\r\n" + HEADERS + extra + b"Content-Length: %d\r\n\r\n" % len(content)
    port = int(sandbox.url.rpartition(":")[2])
    received = bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(head + content)
        try:
            while piece := connection.recv(65536):
                received += piece
        except (TimeoutError, ConnectionResetError):
            pass
    return bytes(received)


def chunks(raw: bytes) -> list[bytes]:
    """The chunks of a chunked answer, as far as they are whole."""
    rest = raw.partition(b"\r\n\r\n")[2]
    found = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        found.append(rest[:length])
        rest = rest[length + 2 :]
    return found


@pytest.mark.parametrize(
    ("cut", "error"), [("close", httpx.RemoteProtocolError), ("reset", httpx.ReadError)], ids=["close", "reset"]
)
def test_a_stream_is_cut_after_so_many_events(
    sandbox: SandboxFixture, api: httpx.Client, body: Body, cut: str, error: type[Exception]
) -> None:
    sandbox.behave(cut_after_events=2, cut=cut)
    lines: list[str] = []

    with pytest.raises(error), api.stream("POST", "/messages", json=body(stream=True)) as response:
        lines.extend(response.iter_lines())

    names = [line for line in lines if line.startswith("event: ")]
    assert names == ["event: message_start", "event: content_block_start"]
    assert not sandbox.requests()[0].whole


@pytest.mark.parametrize("size", [0, 1, 40, 300], ids=str)
def test_a_body_is_cut_at_the_byte(sandbox: SandboxFixture, api: httpx.Client, body: Body, size: int) -> None:
    sandbox.behave(cut_after_bytes=size)

    raw = read_raw(sandbox, body())

    head, _, sent = raw.partition(b"\r\n\r\n")
    assert len(sent) == size
    assert b"Content-Length: %d" % size not in head


def test_a_stalled_stream_stays_open_until_the_client_leaves(
    sandbox: SandboxFixture, api: httpx.Client, body: Body
) -> None:
    sandbox.behave(cut_after_events=3, cut="stall")

    with pytest.raises(httpx.ReadTimeout):
        api.post("/messages", json=body(stream=True), timeout=0.2)
    sandbox.wait_until(lambda s: s.requests()[0].left_at is not None)

    request = sandbox.requests()[0]
    assert request.left_at is not None
    assert (request.left_at - request.at).total_seconds() >= 0.15


@pytest.mark.parametrize(
    ("how", "error"),
    [("close", httpx.RemoteProtocolError), ("reset", httpx.ReadError), ("stall", httpx.ReadTimeout)],
    ids=["close", "reset", "stall"],
)
def test_a_call_can_end_without_a_byte(
    sandbox: SandboxFixture, api: httpx.Client, body: Body, how: str, error: type[Exception]
) -> None:
    sandbox.behave(hang_up=how)

    with pytest.raises(error):
        api.post("/messages", json=body(), timeout=0.2)

    sandbox.wait_until(lambda s: s.requests()[0].ended_at is not None)
    assert sandbox.requests()[0].status is None


@pytest.mark.parametrize("at", ["accept", "first_byte"], ids=str)
def test_connections_can_end_before_the_request_is_read(
    sandbox: SandboxFixture, api: httpx.Client, body: Body, at: str
) -> None:
    sandbox.break_connections(2, at=at)

    for _ in range(2):
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)):
            api.post("/messages", json=body())

    assert api.post("/messages", json=body()).status_code == 200
    assert len(sandbox.requests()) == 1


def test_controls_pass_where_calls_are_broken(sandbox: SandboxFixture, api: httpx.Client) -> None:
    sandbox.break_connections(1, how="reset")

    assert sandbox.requests() == []
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        api.get("/models")


def test_a_stream_can_come_byte_by_byte(sandbox: SandboxFixture, api: httpx.Client, body: Body) -> None:
    sandbox.behave(slice_bytes=1, text="Grüße")

    found = chunks(read_raw(sandbox, body(stream=True), b"Connection: close\r\n"))

    assert {len(chunk) for chunk in found} == {0, 1}
    assert "Grüße" in b"".join(found).decode()


@pytest.mark.parametrize("ending", ["\r\n", "\r"], ids=["crlf", "cr"])
def test_line_ends_can_differ(sandbox: SandboxFixture, api: httpx.Client, body: Body, ending: str) -> None:
    sandbox.behave(line_end=ending, text="a\nb")

    text = api.post("/messages", json=body(stream=True)).content.decode()

    assert f"event: message_stop{ending}data: " in text
    assert text.replace(ending, "").count("\n") == 0
    assert r"a\nb" in text


def test_events_can_be_left_out_and_added(sandbox: SandboxFixture, api: httpx.Client, body: Body) -> None:
    extra = ((1, "event: new\ndata: {}\n\n"), (-1, "event: last\ndata: {}\n\n"))
    sandbox.behave(omit=("comment", "ping", "done"), extra_events=extra)

    text = api.post("/messages", json=body(stream=True)).text

    names = [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]
    assert names[:3] == ["message_start", "new", "content_block_start"]
    assert names[-2:] == ["message_stop", "last"]
    assert "ping" not in names
    assert not text.startswith(":")


def test_the_number_and_length_of_deltas_is_scripted(sandbox: SandboxFixture, api: httpx.Client, body: Body) -> None:
    sandbox.behave(text_length=1000, deltas=50)

    text = api.post("/messages", json=body(stream=True, max_tokens=1)).text

    assert text.count("event: content_block_delta") == 50
    assert '"output_tokens":250' in text


def test_silence_comes_where_it_is_scripted(sandbox: SandboxFixture, api: httpx.Client, body: Body) -> None:
    sandbox.behave(delay_headers=0.1, delay_first_event=0.2)
    started = time.monotonic()

    with api.stream("POST", "/messages", json=body(stream=True)) as response:
        to_headers = time.monotonic() - started
        next(response.iter_raw())
        to_first = time.monotonic() - started

    assert to_headers >= 0.1
    assert to_first - to_headers >= 0.15


def test_comments_can_fill_the_silence(sandbox: SandboxFixture, api: httpx.Client, body: Body) -> None:
    sandbox.behave(delay_first_event=0.6, comment_seconds=0.05)

    text = api.post("/messages", json=body(stream=True), timeout=0.4).text

    assert text.startswith(": OPENROUTER PROCESSING\n\n" * 4)


@pytest.mark.parametrize("content", [b"\x00\xff not utf-8", "Grüße".encode(), b""], ids=["bytes", "text", "empty"])
def test_a_body_goes_out_byte_for_byte(sandbox: SandboxFixture, api: httpx.Client, body: Body, content: bytes) -> None:
    sandbox.behave(body=content, status=418, headers={"X-Own": "yes", "content-type": "text/plain"})

    response = api.post("/messages", json=body())

    assert (response.status_code, response.content) == (418, content)
    assert (response.headers["x-own"], response.headers["content-type"]) == ("yes", "text/plain")


def test_a_scripted_stream_can_be_cut_by_events(sandbox: SandboxFixture, api: httpx.Client, body: Body) -> None:
    raw = b": hi\n\nevent: a\ndata: 1\n\nevent: b\ndata: 2\n\n"
    sandbox.behave(
        body_base64=base64.b64encode(raw).decode(),
        headers={"Content-Type": "text/event-stream"},
        cut_after_events=1,
    )

    assert chunks(read_raw(sandbox, body())) == [b": hi\n\n", b"event: a\ndata: 1\n\n"]


@pytest.mark.parametrize("how", ["close_after", "idle"], ids=str)
def test_a_connection_can_end_between_requests(
    sandbox: SandboxFixture, api: httpx.Client, body: Body, how: str
) -> None:
    if how == "idle":
        sandbox.configure(idle_seconds=0.05)
    else:
        sandbox.behave(close_after=True)

    assert "connection" not in api.post("/messages", json=body()).headers
    time.sleep(0.2)
    assert api.post("/messages", json=body()).status_code == 200

    first, second = sandbox.requests()
    assert first.connection != second.connection


def test_connections_are_kept_and_counted(sandbox: SandboxFixture, api: httpx.Client, body: Body) -> None:
    for _ in range(3):
        api.post("/messages", json=body())

    assert len({request.connection for request in sandbox.requests()}) == 1


def test_a_request_is_recorded_without_its_key(sandbox: SandboxFixture, api: httpx.Client, body: Body) -> None:
    api.post("/messages?beta=true", json=body(), headers={"X-Own": "Some Thing", "Anthropic-Version": "2023-06-01"})

    (request,) = sandbox.requests(key="alpha")
    assert (request.method, request.path, request.query) == ("POST", "/api/v1/messages", {"beta": "true"})
    assert request.headers["x-own"] == "Some Thing"
    assert request.headers["authorization"] == "Bearer ...lpha"
    assert (request.key_name, request.key_tail) == ("alpha", "...lpha")
    assert request.body == body()
    assert (request.status, request.whole, request.left_at) == (200, True, None)


def test_a_client_that_goes_on_to_the_end_never_left(
    sandbox: SandboxFixture, api: httpx.Client, body: Body, no_tls: ssl.SSLContext
) -> None:
    for _ in range(50):
        with httpx.Client(base_url=sandbox.base_url, headers=api.headers, verify=no_tls) as client:
            client.post("/messages", json=body())

    assert [request.left_at for request in sandbox.requests()] == [None] * 50


def test_a_large_body_after_100_continue_is_read(sandbox: SandboxFixture, api: httpx.Client, body: Body) -> None:
    raw = read_raw(sandbox, body(filler="x" * 2_000_000), b"Expect: 100-continue\r\nConnection: close\r\n")

    assert b"HTTP/1.1 200 OK" in raw
    assert sandbox.requests()[0].body_bytes > 2_000_000


def test_what_is_no_http_is_answered_with_400(sandbox: SandboxFixture) -> None:
    port = int(sandbox.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(b"hello\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400")
