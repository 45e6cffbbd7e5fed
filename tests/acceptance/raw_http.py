"""HTTP/1.1 by hand, over a plain socket: requests no client library would send, and answers seen byte for byte."""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

WAIT_SECONDS = 10.0
HEAD_END = b"\r\n\r\n"
_NO_LINGER = struct.pack("ii", 1, 0)

Headers = Sequence[tuple[str, str | bytes]]


@dataclass(frozen=True, slots=True)
class RawReply:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    @property
    def error(self) -> dict[str, str]:
        """Of an error in Anthropic's shape, whose request id is the header's."""
        document: dict[str, Any] = json.loads(self.body)
        assert set(document) == {"type", "error", "request_id"}, document
        assert document["request_id"] == self.header("request-id")
        return dict(document["error"])


class RawClient:
    """One connection. `source` is the address it comes from; all of 127.0.0.0/8 is this machine."""

    def __init__(self, port: int, source: str = "127.0.0.1") -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), WAIT_SECONDS, source_address=(source, 0))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> RawClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- Saying ------------------------------------------------------------------------------------------------------
    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def send_as_far_as_it_goes(self, data: bytes) -> bool:
        """Whether all of it was taken: a server that has answered may close before it has read."""
        try:
            self._socket.sendall(data)
        except OSError:
            return False
        return True

    def half_close(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._socket.close()

    def close(self) -> None:
        self._socket.close()

    # -- Hearing -----------------------------------------------------------------------------------------------------
    def reply(self, method: str = "POST") -> RawReply:
        """The next answer, whole. `http.client` reads over a 100 Continue."""
        response = http.client.HTTPResponse(self._socket, method=method)
        try:
            response.begin()
            return RawReply(response.status, response.getheaders(), response.read())
        finally:
            response.close()

    def has_answer(self, seconds: float) -> bool:
        """Whether anything can be read within `seconds`, be it only the end."""
        return bool(select.select([self._socket], [], [], seconds)[0])

    def first_bytes(self, size: int = 12, seconds: float = WAIT_SECONDS) -> bytes:
        """As many bytes as have come when `size` have, or when the server has closed or the time is over."""
        received = b""
        deadline = time.monotonic() + seconds
        while len(received) < size and (left := deadline - time.monotonic()) > 0:
            if not select.select([self._socket], [], [], left)[0]:
                break
            chunk = self._socket.recv(size - len(received))
            if not chunk:
                break
            received += chunk
        return received

    def read_until(self, marker: bytes, seconds: float = WAIT_SECONDS) -> bytes:
        """Everything up to and with `marker`, and what came in the same packet."""
        received = b""
        deadline = time.monotonic() + seconds
        while marker not in received:
            left = deadline - time.monotonic()
            assert left > 0, f"{marker!r} did not come within {seconds:g} s; received {received[-200:]!r}"
            if select.select([self._socket], [], [], left)[0]:
                chunk = self._socket.recv(65536)
                assert chunk, f"closed before {marker!r}; received {received[-200:]!r}"
                received += chunk
        return received

    def rest(self, seconds: float = WAIT_SECONDS) -> bytes | None:
        """What comes until the server closes; None if it has not closed in time."""
        received = b""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(ConnectionError):
            while (left := deadline - time.monotonic()) > 0:
                if not select.select([self._socket], [], [], left)[0]:
                    return None
                chunk = self._socket.recv(65536)
                if not chunk:
                    return received
                received += chunk
            return None
        return received


def head(
    method: str = "POST", path: str | bytes = "/v1/messages", headers: Headers = (), *, version: str = "HTTP/1.1"
) -> bytes:
    """A request's head as given: nothing is added, not even a Host."""
    lines = [b" ".join((method.encode(), _bytes(path), version.encode()))]
    lines += [
        name.encode() + b": " + (value if isinstance(value, bytes) else value.encode()) for name, value in headers
    ]
    return b"\r\n".join(lines) + HEAD_END


def chunk_of(data: bytes) -> bytes:
    """One chunk of a chunked body; of nothing, the last one."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()
