"""What bad input gets from a real `serve --sandbox`: the socket's own view of the table "What bad input gets"."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from keys.client_keys import new_client_key
from opensvm.sandbox.remote import Controls
from opensvm.serve.sandbox import PORT_FILE
from tests.acceptance.raw_http import Headers, RawClient, RawReply, chunk_of, head
from tests.acceptance.service import Service, wait_until

MESSAGE = {
    "model": "claude-3-sonnet-20240229",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "Hello"}],
}
BODY = json.dumps(MESSAGE).encode()
STREAM_BODY = json.dumps({**MESSAGE, "stream": True}).encode()
HOST = ("Host", "127.0.0.1")
MB = 1024 * 1024
TRUSTED = "127.0.0.2"


@dataclass(frozen=True, slots=True)
class Edge:
    """The service under test, its upstream and its one web process."""

    service: Service
    upstream: Controls
    client_key: str
    worker: int = 0
    known: frozenset[str] = frozenset()  # ledger rows of earlier tests

    def connect(self, source: str = "127.0.0.1") -> RawClient:
        return RawClient(self.service.port, source)

    def head(self, length: int | None = None, *headers: tuple[str, str | bytes], version: str = "HTTP/1.1") -> bytes:
        """A good request's head, with a key; `length` None leaves Content-Length to `headers`."""
        declared = [] if length is None else [("Content-Length", str(length))]
        fields = [HOST, ("x-api-key", self.client_key), ("Content-Type", "application/json"), *declared, *headers]
        return head("POST", "/v1/messages", fields, version=version)

    def ask(self, *parts: bytes, source: str = "127.0.0.1") -> RawReply:
        with self.connect(source) as client:
            for part in parts:
                if not client.send_as_far_as_it_goes(part):
                    break
            return client.reply(parts[0].partition(b" ")[0].decode())

    def refused_nothing_happened(self, reply: RawReply, status: int, error_type: str) -> None:
        """The refusal is Anthropic-shaped, and neither the ledger nor upstream knows of the request."""
        assert (reply.status, reply.error["type"]) == (status, error_type)
        assert self.rows() == []
        assert self.upstream.requests() == []

    # -- what came of it
    def rows(self) -> list[dict[str, Any]]:
        path = self.service.var_dir / "opensvm.sqlite3"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            database.row_factory = sqlite3.Row
            found = [dict(row) for row in database.execute("SELECT * FROM keys_requestlog ORDER BY created_at")]
        return [row for row in found if row["id"] not in self.known]

    def only_row(self) -> dict[str, Any]:
        wait_until(lambda: bool(self.rows()))
        (row,) = self.rows()
        return row

    def memory_mb(self) -> float:
        lines = Path(f"/proc/{self.worker}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024

    def open_files(self) -> set[str]:
        """Regular files that the web process has open."""
        links = []
        for descriptor in Path(f"/proc/{self.worker}/fd").iterdir():
            try:
                links.append(os.readlink(descriptor))
            except OSError:
                continue  # closed meanwhile
        return {link for link in links if link.startswith("/") and not link.startswith("/dev/")}


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    variables = {"OPENSVM_WORKERS": "1", "OPENSVM_TRUSTED_PROXIES": TRUSTED}
    with Service.sandbox(tmp_path_factory.mktemp("edges"), variables, "--role", "web") as service:
        upstream_port = (service.var_dir / PORT_FILE).read_text().strip()
        edge = Edge(service, Controls(f"http://127.0.0.1:{upstream_port}"), service.client_key())
        assert edge.ask(edge.head(len(BODY)), BODY).status == 200  # everything is imported and connected
        wait_until(lambda: bool(service.log("request.settled")))
        yield replace(edge, worker=service.log("request.settled")[-1]["pid"])


@pytest.fixture
def edge(started: Edge) -> Edge:
    """Without rows, rules and upstream requests of the tests before."""
    started.upstream.reset()
    return replace(started, known=frozenset(row["id"] for row in started.rows()))


# -- No or malformed client key: 401 before the body is read ---------------------------------------------------------
GOOD_SHAPE = new_client_key()
BAD_KEYS: dict[str, Headers] = {
    "no key": [],
    "empty": [("x-api-key", "")],
    "not a key": [("x-api-key", "letmein")],
    "wrong checksum": [("x-api-key", GOOD_SHAPE[:-1] + ("a" if GOOD_SHAPE[-1] != "a" else "b"))],
    "cut": [("Authorization", f"Bearer {GOOD_SHAPE[:-3]}")],
    "an upstream key": [("Authorization", "Bearer sk-or-v1-test-not-for-clients")],
    "another scheme": [("Authorization", f"Basic {GOOD_SHAPE}")],
    "bytes that are no text": [("x-api-key", b"sk-ant-api03-\xff\xfe")],
    "ten kilobytes": [("x-api-key", "sk-ant-api03-" + "a" * 10_000)],
    "underscores for dashes": [("x_api_key", GOOD_SHAPE)],
}


@pytest.mark.parametrize("fields", BAD_KEYS.values(), ids=BAD_KEYS)
def test_without_a_good_key_401_comes_before_the_body(edge: Edge, fields: Headers) -> None:
    with edge.connect() as client:
        client.send(head(headers=[HOST, ("Content-Length", str(MB)), *fields]))  # and not a byte of the body
        reply = client.reply()
    edge.refused_nothing_happened(reply, 401, "authentication_error")
    assert reply.header("x-should-retry") == "false"


def test_without_a_good_key_no_100_continue_is_sent(edge: Edge) -> None:
    with edge.connect() as client:
        client.send(head(headers=[HOST, ("Content-Length", str(MB)), ("Expect", "100-continue")]))
        assert client.first_bytes() == b"HTTP/1.1 401"


def test_with_a_good_key_100_continue_is_sent(edge: Edge) -> None:
    with edge.connect() as client:
        client.send(edge.head(len(BODY), ("Expect", "100-continue")))
        assert client.first_bytes(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(BODY)
        assert client.reply().status == 200


def test_a_client_that_sends_all_of_a_large_body_still_reads_its_401(edge: Edge) -> None:
    reply = edge.ask(head(headers=[HOST, ("Content-Length", str(8 * MB))]), b" " * 8 * MB)
    edge.refused_nothing_happened(reply, 401, "authentication_error")


def test_malformed_and_unknown_keys_look_alike(edge: Edge) -> None:
    malformed = edge.ask(head(headers=[HOST, ("x-api-key", "no"), ("Content-Length", str(len(BODY)))]), BODY)
    unknown = edge.ask(head(headers=[HOST, ("x-api-key", GOOD_SHAPE), ("Content-Length", str(len(BODY)))]), BODY)
    edge.refused_nothing_happened(unknown, 401, "authentication_error")
    assert malformed.error == unknown.error
    assert unknown.header("x-should-retry") == malformed.header("x-should-retry") == "false"


def test_the_log_says_which_401_it_was(edge: Edge) -> None:
    seen = len(edge.service.log("client.refused"))
    edge.ask(head(headers=[HOST, ("x-api-key", "letmein"), ("Content-Length", "0")]))
    edge.ask(head(headers=[HOST, ("x-api-key", GOOD_SHAPE), ("Content-Length", str(len(BODY)))]), BODY)
    wait_until(lambda: len(edge.service.log("client.refused")) == seen + 2)
    malformed, unknown = edge.service.log("client.refused")[seen:]
    assert (malformed["reason"], malformed["prefix"], malformed["client_ip"]) == ("malformed", "", "127.0.0.1")
    assert (unknown["reason"], unknown["prefix"]) == ("unknown", GOOD_SHAPE[:17])


# -- Bodies ----------------------------------------------------------------------------------------------------------
def test_a_body_that_is_not_json_gets_400(edge: Edge) -> None:
    reply = edge.ask(edge.head(4), b"nope")
    edge.refused_nothing_happened(reply, 400, "invalid_request_error")
    assert reply.error["message"].startswith("body: is not JSON")


def test_a_declared_body_over_32_mb_gets_413_before_it_is_read(edge: Edge) -> None:
    with edge.connect() as client:
        client.send(edge.head(32 * MB + 1))
        reply = client.reply()
    edge.refused_nothing_happened(reply, 413, "request_too_large")


def test_a_chunked_body_over_32_mb_gets_413_while_it_is_read(edge: Edge) -> None:
    chunk = chunk_of(b" " * MB)
    with edge.connect() as client:
        client.send(edge.head(None, ("Transfer-Encoding", "chunked")))
        for _ in range(32):
            client.send(chunk)
        assert client.first_bytes(1, 0.1) == b""  # 32 MB are within the limit
        client.send_as_far_as_it_goes(chunk)  # and no last chunk follows
        reply = client.reply()
    edge.refused_nothing_happened(reply, 413, "request_too_large")


def test_a_body_of_exactly_32_mb_is_read(edge: Edge) -> None:
    body = BODY + b" " * (32 * MB - len(BODY))
    assert edge.ask(edge.head(len(body)), body).status == 200


def test_a_body_that_is_read_is_not_written_to_disk(edge: Edge) -> None:
    files, written = edge.open_files(), _written_bytes(edge.worker)
    with edge.connect() as client:
        client.send(edge.head(24 * MB))
        client.send(BODY + b" " * (24 * MB - len(BODY) - 1))
        assert edge.open_files() <= files
        assert _written_bytes(edge.worker) - written < 100_000
        client.send(b" ")
        assert client.reply().status == 200


def _written_bytes(pid: int) -> int:
    """By any system call, to files of every kind."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["wchar"])


def test_a_body_with_30_s_of_silence_is_refused(edge: Edge) -> None:
    """The service runs with OPENSVM_TIME_SCALE 0.05: 1.5 s."""
    started = time.monotonic()
    with edge.connect() as client:
        client.send(edge.head(len(BODY)))
        client.send(BODY[:10])
        reply = client.reply()
        assert client.rest() is not None  # closed
    assert 1.0 < time.monotonic() - started < 4.0
    edge.refused_nothing_happened(reply, 408, "timeout_error")


@pytest.mark.parametrize("is_chunked", [False, True], ids=["with a length", "chunked"])
def test_a_body_under_64_kb_a_second_is_refused_after_its_first_30_s(edge: Edge, is_chunked: bool) -> None:
    started = time.monotonic()
    with edge.connect() as client:
        client.send(edge.head(None, ("Transfer-Encoding", "chunked")) if is_chunked else edge.head(MB))
        piece = b" " * 1000
        while not client.has_answer(0.1) and time.monotonic() - started < 6.0:  # 10 kB a second, never silent
            client.send_as_far_as_it_goes(chunk_of(piece) if is_chunked else piece)
        reply = client.reply()
    assert 1.0 < time.monotonic() - started < 4.0
    edge.refused_nothing_happened(reply, 408, "timeout_error")


BROKEN_BODIES = {
    "half-closed": (("Content-Length", "100"), b"{"),
    "a chunk size that is none": (("Transfer-Encoding", "chunked"), b"zz\r\n"),
}


@pytest.mark.parametrize(("framing", "sent"), BROKEN_BODIES.values(), ids=BROKEN_BODIES)
def test_a_body_that_breaks_off_gets_400(edge: Edge, framing: tuple[str, str], sent: bytes) -> None:
    with edge.connect() as client:
        client.send(edge.head(None, framing))
        client.send(sent)
        client.half_close()
        reply = client.reply()
    edge.refused_nothing_happened(reply, 400, "invalid_request_error")


# -- Headers ---------------------------------------------------------------------------------------------------------
LARGE_HEADERS: dict[str, Headers] = {
    "one of 70 kB": [("x-large", "a" * 70_000)],
    "90 of 800 bytes": [(f"x-{number}", "a" * 800) for number in range(90)],
    "2000 small ones": [(f"x-{number}", "a" * 40) for number in range(2000)],
    "a megabyte": [("x-large", "a" * MB)],
}


@pytest.mark.parametrize("fields", LARGE_HEADERS.values(), ids=LARGE_HEADERS)
def test_headers_over_64_kb_are_refused_or_closed(edge: Edge, fields: Headers) -> None:
    with edge.connect() as client:
        client.send_as_far_as_it_goes(edge.head(len(BODY), *fields) + BODY)
        answered = client.rest()
    assert answered is not None, "the connection is still open"
    assert answered[:12] in (b"HTTP/1.1 431", b"HTTP/1.1 400", b"")
    assert edge.rows() == edge.upstream.requests() == []


def test_headers_of_60_kb_are_taken(edge: Edge) -> None:
    assert edge.ask(edge.head(len(BODY), ("x-large", "a" * 60_000)), BODY).status == 200


@pytest.fixture(scope="module")
def slow_head(started: Edge) -> Iterator[list[float]]:
    """A head that gets a byte a second and never ends; begun early, as it takes its time. When it was closed."""
    closed: list[float] = []

    def dribble() -> None:
        begun = time.monotonic()
        with started.connect() as client:
            client.send(b"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nx-slow: ")
            while client.rest(1.0) is None and time.monotonic() - begun < 31.0:
                client.send_as_far_as_it_goes(b"a")
        closed.append(time.monotonic() - begun)

    thread = threading.Thread(target=dribble, daemon=True)
    thread.start()
    yield closed
    thread.join(31.0)


@pytest.fixture(scope="module", autouse=True)
def _begin_early(slow_head: list[float]) -> None:
    """So that the other tests run meanwhile."""


FRAMINGS = {
    "two hosts": [HOST, ("Host", "example.org")],
    "the same host twice": [HOST, HOST],
    "no host": [],
    "an empty host": [("Host", "")],
}


@pytest.mark.parametrize("hosts", FRAMINGS.values(), ids=FRAMINGS)
def test_a_duplicate_or_missing_host_gets_400(edge: Edge, hosts: Headers) -> None:
    fields = [*hosts, ("x-api-key", edge.client_key), ("Content-Length", str(len(BODY)))]
    edge.refused_nothing_happened(edge.ask(head(headers=fields), BODY), 400, "invalid_request_error")


def test_of_transfer_encoding_and_content_length_the_first_counts_and_the_connection_ends(edge: Edge) -> None:
    """A smuggled second request is never read."""
    smuggled = chunk_of(BODY) + chunk_of(b"") + edge.head(len(BODY)) + BODY
    with edge.connect() as client:
        client.send(edge.head(len(BODY), ("Transfer-Encoding", "chunked")) + smuggled)
        answered = client.rest()
    assert answered is not None, "the connection is still open"
    assert answered.count(b"HTTP/1.1 ") == 1
    assert len(edge.upstream.requests()) <= 1


def test_two_different_lengths_are_refused(edge: Edge) -> None:
    with edge.connect() as client:
        client.send(edge.head(len(BODY), ("Content-Length", "3")) + BODY)
        assert client.first_bytes() == b"HTTP/1.1 400"
    assert edge.rows() == edge.upstream.requests() == []


def test_headers_with_underscores_are_ignored(edge: Edge) -> None:
    reply = edge.ask(
        edge.head(len(BODY), ("anthropic_beta", "smuggled"), ("x_forwarded_for", "6.6.6.6")), BODY, source=TRUSTED
    )
    assert reply.status == 200
    (asked,) = edge.upstream.requests()
    assert "smuggled" not in str(asked.headers)
    assert edge.only_row()["client_ip"] == TRUSTED


FORWARDED = {
    "a stranger is not believed": ("127.0.0.1", [("X-Forwarded-For", "203.0.113.7")], "127.0.0.1"),
    "a trusted proxy is believed": (TRUSTED, [("X-Forwarded-For", "203.0.113.7")], "203.0.113.7"),
    "the last untrusted hop counts": (
        TRUSTED,
        [("X-Forwarded-For", f"6.6.6.6, 203.0.113.7, {TRUSTED}")],
        "203.0.113.7",
    ),
    "IPv6": (TRUSTED, [("X-Forwarded-For", "2001:db8::1")], "2001:db8::1"),
    "not an address": (TRUSTED, [("X-Forwarded-For", "unknown")], TRUSTED),
    "without it": (TRUSTED, [], TRUSTED),
}


@pytest.mark.parametrize(("source", "fields", "expected"), FORWARDED.values(), ids=FORWARDED)
def test_x_forwarded_for_counts_only_from_opensvm_trusted_proxies(
    edge: Edge, source: str, fields: list[tuple[str, str]], expected: str
) -> None:
    assert edge.ask(edge.head(len(BODY), *fields), BODY, source=source).status == 200
    assert edge.only_row()["client_ip"] == expected


def test_x_forwarded_proto_counts_only_from_opensvm_trusted_proxies(edge: Edge) -> None:
    """The stranger's claim does not make Django think that the page came by https."""
    login = head("GET", "/admin/login/", [HOST, ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "evil.example")])
    with edge.connect() as client:
        client.send(login)
        reply = client.reply("GET")
    assert reply.status == 200
    assert b"evil.example" not in reply.body


# -- Methods, paths, versions ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "TRACE", "BREW"])
def test_a_wrong_method_gets_405(edge: Edge, method: str) -> None:
    reply = edge.ask(head(method, "/v1/messages", [HOST, ("x-api-key", edge.client_key)]))
    edge.refused_nothing_happened(reply, 405, "invalid_request_error")
    assert "POST" in (reply.header("allow") or "").split(", ")


def test_head_gets_405_without_a_body(edge: Edge) -> None:
    with edge.connect() as client:
        client.send(head("HEAD", "/v1/messages", [HOST]))
        answered = client.rest()
    assert answered is not None
    assert answered.startswith(b"HTTP/1.1 405")
    assert answered.endswith(b"\r\n\r\n")


PATHS = ["/v1/", "/v1/nothing", "/v1/messages/", "/v1//messages", "/v1/../admin/", "/v1/%00", "/v1/%ff", "/v1/ÿ"]


@pytest.mark.parametrize("path", [*PATHS, "/v1/" + "a" * 20_000], ids=[*PATHS, "20 kB"])
def test_an_unknown_path_under_v1_gets_404(edge: Edge, path: str) -> None:
    reply = edge.ask(head("POST", path, [HOST, ("x-api-key", edge.client_key)]))
    edge.refused_nothing_happened(reply, 404, "not_found_error")
    assert len(reply.body) < 1000


def test_http_1_0_gets_an_answer_and_the_connection_is_closed(edge: Edge) -> None:
    with edge.connect() as client:
        client.send(edge.head(len(BODY), version="HTTP/1.0") + BODY)
        reply = client.reply()
        assert client.rest() is not None
    assert reply.status == 200
    assert json.loads(reply.body)["type"] == "message"


def test_http_1_0_gets_a_stream_that_is_not_chunked(edge: Edge) -> None:
    with edge.connect() as client:
        client.send(edge.head(len(STREAM_BODY), version="HTTP/1.0") + STREAM_BODY)
        answered = client.rest()
    assert answered is not None
    answer_head, _, body = answered.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in answer_head.lower()
    assert body.startswith((b"event: message_start\n", b": "))
    assert body.endswith(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')


GARBAGE = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a NUL in a header": b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nuser-agent: a\0b\r\n\r\n",
    "text": b"hello\r\n\r\n",
    "zeros": bytes(1000),
}


@pytest.mark.parametrize("sent", GARBAGE.values(), ids=GARBAGE)
def test_what_is_no_http_is_refused_or_closed(edge: Edge, sent: bytes) -> None:
    with edge.connect() as client:
        client.send(sent)
        answered = client.rest()
    assert answered is not None, "the connection is still open"
    assert answered[:12] in (b"HTTP/1.1 400", b"")


# -- Clients that leave ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("leave", ["half_close", "reset", "close"])
def test_a_client_that_leaves_a_stream_ends_the_upstream_call(edge: Edge, leave: str) -> None:
    edge.upstream.behave(deltas=1000, delay_between=0.02)
    with edge.connect() as client:
        client.send(edge.head(len(STREAM_BODY)) + STREAM_BODY)
        client.read_until(b"content_block_delta")
        getattr(client, leave)()
        left = time.monotonic()
        edge.upstream.wait_until(lambda upstream: upstream.requests()[0].left_at is not None)
        assert time.monotonic() - left < 1.0
    row = edge.only_row()
    assert (row["status"], row["cause"], row["cost_source"]) == (499, "client_left", "unknown")
    assert row["generation_id"] == edge.upstream.requests()[0].generation_id


def test_a_client_that_half_closes_before_a_json_answer_has_left(edge: Edge) -> None:
    edge.upstream.behave(delay_headers=5.0)
    with edge.connect() as client:
        client.send(edge.head(len(BODY)) + BODY)
        edge.upstream.wait_until(lambda upstream: len(upstream.requests()) == 1)
        client.half_close()
        edge.upstream.wait_until(lambda upstream: upstream.requests()[0].left_at is not None)
    assert edge.only_row()["status"] == 499


# -- Logged fields ---------------------------------------------------------------------------------------------------
ODD_AGENTS: dict[str, str | bytes] = {
    "10 kB": "u" * 10_240,
    "bytes that are no text": b"\xff\xfe\x80 agent",
    "UTF-8": "Grüße 🦀".encode(),
    "a tab and quotes": "a\tb \"'; DROP TABLE keys_requestlog; --",
    "a log line": 'x"}\\n{"level": "error"',
}


@pytest.mark.parametrize("agent", ODD_AGENTS.values(), ids=ODD_AGENTS)
def test_any_bytes_in_a_logged_field_are_exactly_one_row(edge: Edge, agent: str | bytes) -> None:
    assert edge.ask(edge.head(len(BODY), ("User-Agent", agent)), BODY).status == 200
    row = edge.only_row()
    assert len(row["user_agent"]) <= 300
    assert row["user_agent"]


# -- Memory ----------------------------------------------------------------------------------------------------------
def test_memory_stays_flat_while_200_connections_are_stuck(edge: Edge) -> None:
    before = edge.memory_mb()
    with ExitStack() as stack:
        for number in range(200):
            client = stack.enter_context(edge.connect())
            stuck_in_head = head(headers=[HOST, ("x-slow", "a" * 30_000)])[:-4]
            client.send(stuck_in_head if number % 2 else edge.head(30 * MB) + b" " * 30_000)
        assert edge.ask(edge.head(len(BODY)), BODY).status == 200  # the others are served
        assert edge.memory_mb() - before < 32.0


def test_memory_stays_flat_while_a_client_reads_nothing(edge: Edge) -> None:
    edge.upstream.behave(text_length=48 * MB, deltas=400)
    before = edge.memory_mb()
    with edge.connect() as client:
        client.send(edge.head(len(STREAM_BODY)) + STREAM_BODY)
        client.read_until(b"content_block_delta")
        time.sleep(1.0)  # upstream could send all of it in this time
        assert edge.memory_mb() - before < 24.0
        assert not edge.upstream.requests()[0].whole
    edge.upstream.wait_until(lambda upstream: upstream.requests()[0].left_at is not None)


def test_headers_that_are_not_complete_in_30_s_are_closed(slow_head: list[float]) -> None:
    """The last test of the module: the head was begun with the first."""
    wait_until(lambda: bool(slow_head), 31.0)
    assert slow_head[0] < 30.0
