"""The fault proxy itself, in front of a server that answers what it is told."""

from __future__ import annotations

import gc
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.fault_proxy import FaultProxy

WAIT_SECONDS = 5.0


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    """In front of a server that answers every piece with the same, twice."""
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_serve, args=(listener,), daemon=True).start()
    with FaultProxy("127.0.0.1", listener.getsockname()[1]) as proxy:
        yield proxy
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def test_without_a_fault_bytes_pass_unchanged(proxy: FaultProxy) -> None:
    with _connect(proxy) as client:
        assert _ask(client, b"hello") == b"hellohello"


def test_latency_is_felt_both_ways_and_on_open_connections(proxy: FaultProxy) -> None:
    with _connect(proxy) as client:
        _ask(client, b"a")
        proxy.behave(latency_seconds=0.1)
        started = time.monotonic()
        _ask(client, b"a")
        assert 0.2 <= time.monotonic() - started < 1.0


def test_slices_arrive_whole(proxy: FaultProxy) -> None:
    proxy.behave(slice_bytes=1)
    with _connect(proxy) as client:
        assert sorted(_ask(client, b"0123456789")) == sorted(b"0123456789" * 2)  # the server answers each piece


@pytest.mark.parametrize(("how", "is_reset"), [("reset", True), ("close", False)])
def test_a_connection_is_cut_at_byte_n(proxy: FaultProxy, how: str, is_reset: bool) -> None:
    proxy.behave(cut_after_bytes=7, cut=how)
    with _connect(proxy) as client:
        client.sendall(b"hello")
        received, was_reset = _read_to_the_end(client)
    assert received in ((b"hellohe", b"") if is_reset else (b"hellohe",))  # a reset may overtake what was on its way
    assert was_reset is is_reset


def test_a_stalled_connection_is_accepted_and_goes_on_later(proxy: FaultProxy) -> None:
    proxy.behave(stalls=True)
    with _connect(proxy) as client:
        client.sendall(b"hello")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        proxy.behave()
        client.settimeout(WAIT_SECONDS)
        assert _read(client, 10) == b"hellohello"


def test_down_refuses_and_resets_until_it_comes_up_on_the_same_port(proxy: FaultProxy) -> None:
    with _connect(proxy) as client:
        _ask(client, b"a")
        proxy.go_down()
        assert _read_to_the_end(client) == (b"", True)
        with pytest.raises(ConnectionRefusedError):
            _connect(proxy)
    proxy.come_up()
    with _connect(proxy) as client:
        assert _ask(client, b"a") == b"aa"


def test_cut_all_ends_what_is_open_only(proxy: FaultProxy) -> None:
    with _connect(proxy) as client:
        _ask(client, b"a")
        proxy.cut_all("close")
        assert proxy.open_connections == 0
        assert _read_to_the_end(client) == (b"", False)
    with _connect(proxy) as client:
        assert _ask(client, b"a") == b"aa"


def test_a_word_of_the_client_is_delayed(proxy: FaultProxy) -> None:
    proxy.behave(on=b"COMMIT", then="delay", delay_seconds=0.3, times=1)
    with _connect(proxy) as client:
        assert _seconds_of(client, b"BEGIN") < 0.2
        assert _seconds_of(client, b"COMMIT") >= 0.3
        assert _seconds_of(client, b"COMMIT") < 0.2
    assert proxy.triggered == 1


@pytest.mark.parametrize(("then", "arrives"), [("cut_before", False), ("cut_after", True)])
def test_a_word_of_the_client_cuts_before_or_after_the_server_has_it(then: str, arrives: bool) -> None:
    heard: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))
    server = threading.Thread(target=_serve, args=(listener, heard), daemon=True)
    server.start()
    with FaultProxy("127.0.0.1", listener.getsockname()[1]) as proxy:
        proxy.behave(on=b"COMMIT", then=then, delay_seconds=0.1)
        with _connect(proxy) as client:
            client.sendall(b"COMMIT")
            assert _read_to_the_end(client)[0] == b""
        proxy.behave(on=b"COMMIT", then=then, times=0)
        with _connect(proxy) as client:
            assert _ask(client, b"BEGIN") == b"BEGINBEGIN"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    server.join(WAIT_SECONDS)
    assert heard == ([b"COMMIT", b"BEGIN"] if arrives else [b"BEGIN"])


def _serve(listener: socket.socket, heard: list[bytes] | None = None) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            try:
                while chunk := connection.recv(65536):
                    if heard is not None:
                        heard.append(chunk)
                    connection.sendall(chunk * 2)
            except OSError:
                continue


def _connect(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), WAIT_SECONDS)


def _ask(client: socket.socket, data: bytes) -> bytes:
    client.sendall(data)
    return _read(client, 2 * len(data))


def _seconds_of(client: socket.socket, data: bytes) -> float:
    started = time.monotonic()
    _ask(client, data)
    return time.monotonic() - started


def _read(client: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size and (chunk := client.recv(size - len(received))):
        received += chunk
    return received


def _read_to_the_end(client: socket.socket) -> tuple[bytes, bool]:
    """What came, and whether a reset ended it."""
    received = b""
    try:
        while chunk := client.recv(65536):
            received += chunk
    except ConnectionResetError:
        return received, True
    return received, False


def test_what_was_accepted_while_it_goes_down_is_ended_too(proxy: FaultProxy) -> None:
    """Else its transport is found by the garbage collector, in some other test, which fails for it."""
    for _ in range(10):
        clients = [_connect(proxy) for _ in range(10)]
        proxy.go_down()
        assert proxy.open_connections == 0
        for client in clients:
            client.close()
        proxy.come_up()
    gc.collect()
