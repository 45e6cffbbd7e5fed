"""A real service whose disk is full, whose PostgreSQL is killed, or whose upstream misbehaves on the wire."""

from __future__ import annotations

import json
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from opensvm.sandbox.thread import SandboxServer
from tests.acceptance.crash.database import Database
from tests.acceptance.crash.killer import children
from tests.acceptance.crash.ledgers import compare
from tests.acceptance.crash.load import MODEL, Received
from tests.acceptance.service import Service, wait_until
from tests.fault_proxy import FaultProxy
from tests.postgres import postgres_server
from tests.sandbox import SandboxFixture

KEYS = ("sk-or-v1-test-alpha1", "sk-or-v1-test-beta22")
NEW_REQUEST_SECONDS = 1.0
TOLERANCE_SECONDS = 0.5  # for what the machine does besides
BACK_SECONDS = 20.0
UPSTREAM_TIMEOUT_MS = "1000"


# -- the database's disk ---------------------------------------------------------------------------------------------
def test_a_full_disk_refuses_new_work_finishes_the_old_and_recovers(tmp_path: Path, sandbox: SandboxFixture) -> None:
    """Small files may still be written: the journal is one, the database is not."""
    with _pool(tmp_path, sandbox.base_url, sandbox) as service:
        database, key = Database(service.var_dir, ""), service.client_key()
        assert _ask(service, key).status == 200
        sandbox.behave(streamed=True, deltas=20, delay_between=0.1)
        with _stream_under_way(service, key) as finished:
            wait_until(lambda: database.in_flight() == 1)
            with _file_size_limit(service, 4096):
                _refuses_at_once(service, key)
                _says(service, "the database's disk does not take what is written")
                finished.wait_for_end()
        wait_until(lambda: _ask(service, key).status == 200, BACK_SECONDS)
        wait_until(lambda: database.in_flight() == 0 and _is_ready(service), BACK_SECONDS)
        assert finished.received.outcome == "whole"
        assert compare([finished.received], sandbox.ledger(), database.rows()).wrong == {}


# -- PostgreSQL ------------------------------------------------------------------------------------------------------
def test_a_killed_postgresql_refuses_new_work_finishes_the_old_and_recovers(
    tmp_path: Path, sandbox: SandboxFixture
) -> None:
    with postgres_server() as postgres:
        with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
            connection.execute("CREATE DATABASE outage")
        with _pool(tmp_path, sandbox.base_url, sandbox, DATABASE_URL=postgres.url("outage")) as service:
            database, key = Database(service.var_dir, postgres.url("outage")), service.client_key()
            sandbox.behave(streamed=True, deltas=20, delay_between=0.1)
            with _stream_under_way(service, key) as finished:
                wait_until(lambda: database.in_flight() == 1)
                postgres.kill()
                _refuses_at_once(service, key)
                _says(service, "the database can't be reached")
                finished.wait_for_end()
                postgres.start()
            wait_until(lambda: _ask(service, key).status == 200, BACK_SECONDS)
            wait_until(lambda: database.in_flight() == 0 and _is_ready(service), BACK_SECONDS)
            assert finished.received.outcome == "whole"
            assert compare([finished.received], sandbox.ledger(), database.rows()).wrong == {}


# -- upstream --------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    """A service that reaches its upstream through a fault proxy; tests of the module share it."""
    with SandboxServer() as upstream:
        port = int(upstream.url.rpartition(":")[2])
        with FaultProxy("127.0.0.1", port) as proxy:
            url = f"http://127.0.0.1:{proxy.port}/api/v1"
            timeout = {"OPENROUTER_TIMEOUT": UPSTREAM_TIMEOUT_MS, "OPENROUTER_MAX_RETRIES": "1"}
            with _pool(tmp_path_factory.mktemp("wire"), url, upstream.controls, **timeout) as service:
                yield Wire(service, upstream, proxy, service.client_key())


class Wire:
    def __init__(self, service: Service, upstream: SandboxServer, proxy: FaultProxy, key: str) -> None:
        self.service, self.upstream, self.proxy, self.key = service, upstream, proxy, key

    def ask(self, *, stream: bool, **faults: Any) -> Received:
        """One request while the wire has `faults`; the connections of before are gone."""
        self.proxy.cut_all("close")
        self.proxy.behave(**faults)
        try:
            return _ask(self.service, self.key, stream=stream)
        finally:
            self.proxy.behave()

    def compare(self, received: Received) -> dict[str, object]:
        """What is wrong once everything is settled."""
        database = Database(self.service.var_dir, "")
        wait_until(lambda: database.in_flight() == 0 and database.unknown_costs() == 0, BACK_SECONDS)
        return compare([received], self.upstream.controls.ledger(), database.rows()).wrong

    def sent(self) -> int:
        return len(self.upstream.controls.requests())


@pytest.mark.parametrize("stream", [False, True], ids=["JSON", "stream"])
@pytest.mark.parametrize("faults", [{"slice_bytes": 1}, {"latency_seconds": 0.1}], ids=["one-byte packets", "latency"])
def test_a_slow_wire_is_only_slow(wire: Wire, stream: bool, faults: dict[str, Any]) -> None:
    received = wire.ask(stream=stream, **faults)
    assert received.outcome == "whole"
    assert wire.compare(received) == {}


@pytest.mark.parametrize("stream", [False, True], ids=["JSON", "stream"])
def test_a_half_open_upstream_times_out_and_is_not_asked_again(wire: Wire, stream: bool) -> None:
    sent = wire.sent()
    started = time.monotonic()
    received = wire.ask(stream=stream, stalls=True)
    assert time.monotonic() - started < 5.0
    assert (received.status, received.outcome) == (504, "error 504")
    assert wire.sent() <= sent + 1
    assert wire.compare(received) == {}


@pytest.mark.parametrize("cut", ["reset", "close"])
@pytest.mark.parametrize(
    ("stream", "bytes_passed"),
    [(False, 0), (False, 10), (False, 300), (False, 700), (True, 0), (True, 10), (True, 300), (True, 1200)],
    ids=lambda value: {True: "stream", False: "JSON"}.get(value, str(value)) if isinstance(value, bool) else str(value),
)
def test_an_answer_cut_on_the_wire_never_looks_finished(wire: Wire, stream: bool, bytes_passed: int, cut: str) -> None:
    sent = wire.sent()
    received = wire.ask(stream=stream, cut_after_bytes=bytes_passed, cut=cut)
    assert not received.is_whole
    assert received.has_error
    assert wire.sent() == sent + 1
    assert wire.compare(received) == {}


def test_an_upstream_that_is_down_is_tried_again_and_then_an_error(wire: Wire) -> None:
    wire.proxy.go_down()
    try:
        received = _ask(wire.service, wire.key)
    finally:
        wire.proxy.come_up()
    assert received.has_error
    assert received.status is not None
    assert received.status >= 500
    assert wire.ask(stream=False).outcome == "whole"
    assert wire.compare(received) == {}


# -- what the tests share --------------------------------------------------------------------------------------------
@contextmanager
def _pool(folder: Path, upstream_url: str, upstream: Any, **variables: str) -> Iterator[Service]:
    for key in KEYS:
        upstream.add_key(key)
    with Service(
        folder,
        {
            "OPENROUTER_BASE_URL": upstream_url,
            "OPENROUTER_API_KEYS": ",".join(KEYS),
            "OPENROUTER_RETRY_DELAY": "50",
            **variables,
        },
    ) as service:
        yield service


def _ask(service: Service, key: str, *, stream: bool = False) -> Received:
    received = Received(0, is_stream=stream)
    body = {"model": MODEL, "max_tokens": 100, "stream": stream, "messages": [{"role": "user", "content": "Hello"}]}
    headers = {"x-api-key": key}
    try:
        with httpx.stream(
            "POST", f"{service.url}/v1/messages", json=body, headers=headers, timeout=30, trust_env=False
        ) as response:
            received.status, received.request_id = response.status_code, response.headers["request-id"]
            for chunk in response.iter_bytes():
                received.body += chunk
    except httpx.TransportError:
        received.was_cut = True
    received.read()
    return received


class Background:
    """A stream that a client reads in a thread of its own."""

    def __init__(self, service: Service, key: str) -> None:
        self._thread = threading.Thread(target=self._read, args=(service, key), daemon=True)
        self.received = Received(0, is_stream=True)
        self._thread.start()

    def _read(self, service: Service, key: str) -> None:
        self.received = _ask(service, key, stream=True)

    def wait_for_end(self) -> None:
        self._thread.join(30.0)
        assert not self._thread.is_alive(), "the client still waits"


@contextmanager
def _stream_under_way(service: Service, key: str) -> Iterator[Background]:
    background = Background(service, key)
    yield background
    background.wait_for_end()


def _refuses_at_once(service: Service, key: str) -> None:
    """Each of a few new requests, from the first on."""
    for _ in range(4):
        started = time.monotonic()
        response = httpx.post(
            f"{service.url}/v1/messages",
            content=json.dumps({"model": MODEL, "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}),
            headers={"x-api-key": key, "content-type": "application/json"},
            timeout=30,
            trust_env=False,
        )
        assert (response.status_code, response.json()["error"]["type"]) == (529, "overloaded_error")
        assert 1 <= int(response.headers["retry-after"]) <= 60
        assert time.monotonic() - started < NEW_REQUEST_SECONDS + TOLERANCE_SECONDS


def _says(service: Service, words: str) -> None:
    status, body = service.get("/readyz")
    assert (status, json.loads(body)["reasons"]) == (503, [words])


def _is_ready(service: Service) -> bool:
    return service.get("/readyz")[0] == 200


@contextmanager
def _file_size_limit(service: Service, size: int) -> Iterator[None]:
    """The web processes may not write beyond this offset of any file: the kernel says EFBIG."""
    pids = children(service.child_pid("web"))
    for pid in pids:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
